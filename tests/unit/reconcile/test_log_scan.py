"""Claims about which messages Postfix accepted, by lines that it has really logged."""

from __future__ import annotations

import random
import sys
from collections.abc import Sized

import pytest

from postfix_archive.maillog import queue_file
from postfix_archive.reconcile import log_scan, messages
from postfix_archive.reconcile.log_scan import LogScan
from postfix_archive.reconcile.messages import Message

from unit.samples import VERSIONS, expected

FILTER = "scan:[127.0.0.1]:10024"
NAMES = ("postfix", "postfix/archive-handback", "postfix/archive-capsule")
RENAMED = (
    "Nov 25 09:47:27 mail postfix/postsuper[9]:"
    " Renamed to match inode number: 2 messages"
)
LOCAL = "client=localhost[127.0.0.1]"
FIRST, SECOND, THIRD = "4jZFG724PhzK5b4", "4jZFG74yqtzK5dh", "4jZFG75qcLzK5dp"
ID = "20261125-5792af7ed677f885f4d7c4f63fd2666cc4c4ce79"
OTHER = "20261125-b2eb9afec3b0bfb9dcbba3bb1b7a09866f7e12c9"
QUEUED = "from=<ann@example.org>, size=351, nrcpt=1 (queue active)"
RCPT = "from=<ann@example.org> to=<bob@example.net> proto=ESMTP helo=<c.example>"
FILTERED = (
    f"filter: RCPT from a[1.2.3.4]: <x>: Sender address triggers FILTER x:y; {RCPT}"
)
THROWN = f"discard: RCPT from a[1.2.3.4]: <x>: Sender address thrown away; {RCPT}"


def sent(relay: str, said: str, *, to: str = "bob@example.net", what: str = "") -> str:
    return (
        f"to=<{to}>, relay={relay}, delay=0.91, delays=0.16/0/0/0.74, dsn=2.0.0,"
        f" status={what or 'sent'} ({said})"
    )


def stamped(said: str = f"id={ID} as={SECOND} result=done") -> str:
    """What pipe(8) logs of a stamp filter: the first hundred bytes that it said."""
    told = f"delivered via archive-stamp service ({said[:100]})"
    return sent("archive-stamp", told)


class Log:
    """A log that is read as it is written; each line a second after the other."""

    def __init__(self, *, stores: bool = True) -> None:
        self.read = LogScan(NAMES, (FILTER,), has_store=stores)
        self.now = 1795348380.0

    def say(self, process: str, text: str) -> None:
        """Say it; process is daemon and pid, or service, daemon and pid."""
        service, _, daemon = process.rpartition("/")
        service = f"postfix/{service}" if service else "postfix"
        self.now += 1
        line = f"Nov 25 09:47:27 mail {service}/{daemon}: {text}"
        self.read.read_line(line, self.now)

    def came(self, queue_id: str, name: str = "a", pid: int = 7) -> None:
        """Say that a message has come by SMTP, as far as cleanup(8)."""
        self.say(f"smtpd[{pid}]", f"{queue_id}: {LOCAL}")
        self.say("cleanup[2]", f"{queue_id}: message-id=<{name}@example.org>")

    def accepted(self, queue_id: str, name: str = "a", pid: int = 7) -> None:
        """Say that a message has come by SMTP and is Postfix's to deliver."""
        self.came(queue_id, name, pid)
        self.say("qmgr[3]", f"{queue_id}: {QUEUED}")

    def handed_in(self, queue_id: str, origin: str = "", name: str = "a") -> None:
        """Say that a hand-back port has taken a message."""
        more = f", orig_queue_id={origin}, orig_client=a[1.2.3.4]" if origin else ""
        self.say("archive-handback/smtpd[8]", f"{queue_id}: {LOCAL}{more}")
        self.say("archive-cleanup/cleanup[9]", f"{queue_id}: message-id=<{name}@x>")
        self.say("qmgr[3]", f"{queue_id}: {QUEUED}")

    def removed(self, *queue_ids: str) -> None:
        for each in queue_ids:
            self.say("qmgr[3]", f"{each}: removed")

    def later(self) -> list[Message]:
        """Return what is judged when a while has passed, and it is forgotten."""
        self.now += log_scan.KEEP_SECONDS + 1
        self.say("qmgr[3]", "4zzzzzzzzzzzz0: removed")
        return [each for each in self.read.pop_finished() if each.is_accepted]

    def rest(self) -> list[Message]:
        return [each for each in self.read.remaining() if each.is_accepted]


@pytest.fixture
def log() -> Log:
    return Log()


def test_what_the_stamp_filter_hands_back_is_the_message_that_it_took(log: Log) -> None:
    log.accepted(FIRST)
    log.handed_in(SECOND, FIRST)
    log.say("pipe[5]", f"{FIRST}: {stamped()}")
    log.removed(FIRST)
    log.say("pipe[6]", f"{SECOND}: {sent('sink', 'delivered via sink service')}")
    log.removed(SECOND)
    [found] = log.later()
    assert found.queue_id == FIRST
    assert found.archive_ids == (ID,)
    assert (found.sender, found.recipient_count) == ("ann@example.org", 1)
    assert not found.relay
    assert not log.rest()


def test_it_is_waited_for_until_its_last_queue_file_is_gone(log: Log) -> None:
    log.accepted(FIRST)
    log.handed_in(SECOND, FIRST)
    log.say("pipe[5]", f"{FIRST}: {stamped()}")
    log.removed(FIRST)
    assert not log.later()
    assert [each.queue_id for each in log.rest()] == [FIRST]
    log.removed(SECOND)
    assert [each.queue_id for each in log.later()] == [FIRST]


def test_a_line_that_pipe_truncates_has_what_is_needed(log: Log) -> None:
    """pipe(8) logs a hundred bytes."""
    said = f"id={ID} as={SECOND} alarm=forged,incomplete forged=12 result=done"
    assert len(said) > 100
    log.accepted(FIRST)
    log.handed_in(SECOND, FIRST)
    log.removed(SECOND)
    log.say("pipe[5]", f"{FIRST}: {stamped(said)}")
    log.removed(FIRST)
    [found] = log.later()
    assert found.queue_id == FIRST and not found.is_reinjected
    assert found.archive_ids == (ID,)


@pytest.mark.parametrize("archive", ["legal@example.com", "one@x.org,two@x.org"])
@pytest.mark.parametrize("loud", ["", "alarm=forged "])
def test_what_a_worker_says_is_read_to_its_end(
    log: Log, archive: str, loud: str
) -> None:
    """lmtp(8) names the worker's socket, and logs all that it said."""
    relay = f"mail.example.com[private/archive.{archive}]"
    said = f"250 2.0.0 id={ID} as={SECOND} {loud}result=done"
    log.accepted(FIRST)
    log.handed_in(SECOND, FIRST)
    log.removed(SECOND)
    log.say("archive-stamp/lmtp[5]", f"{FIRST}: {sent(relay, said)}")
    log.removed(FIRST)
    [found] = log.later()
    assert found.queue_id == FIRST and not found.is_reinjected
    assert found.archive_ids == (ID,)
    assert log.read.unreadable_count == 0


def test_what_is_handed_back_is_not_judged_while_its_filter_is_at_work(
    log: Log,
) -> None:
    log.accepted(FIRST)
    log.handed_in(SECOND, FIRST)
    log.removed(SECOND)
    assert not log.later()
    assert [each.queue_id for each in log.rest()] == [FIRST]
    log.say("pipe[5]", f"{FIRST}: {stamped()}")
    log.removed(FIRST)
    assert [each.queue_id for each in log.later()] == [FIRST]


def test_what_no_filter_handed_back_is_a_message_of_its_own(log: Log) -> None:
    log.handed_in(SECOND)
    log.accepted(FIRST)
    log.say("pipe[5]", f"{FIRST}: {stamped(f'id={ID} as={THIRD} result=done')}")
    log.removed(FIRST, SECOND)
    found = {each.queue_id: each.is_reinjected for each in log.later()}
    assert found == {FIRST: False, SECOND: True}


def test_what_another_service_may_say_of_the_stamp_filter_is_not_believed(
    log: Log,
) -> None:
    """A recipient that looks like a whole line, as sendmail(1) takes it."""
    log.handed_in(SECOND)
    log.accepted(FIRST)
    hostile = f'x>, relay=archive-stamp, {stamped().partition(", ")[2]}'
    log.say("smtp[5]", f"{FIRST}: {sent('mx.example[1.2.3.4]:25', 'ok', to=hostile)}")
    log.removed(FIRST, SECOND)
    assert [each.archive_ids for each in log.later()] == [(), ()]
    assert log.read.unreadable_count == 1


def test_an_action_of_an_access_table_belongs_to_the_next_message_of_its_process(
    log: Log,
) -> None:
    log.say("smtpd[7]", f"NOQUEUE: {FILTERED}")
    log.accepted(SECOND, "b", pid=8)
    log.accepted(FIRST)
    log.accepted(THIRD, "c")
    assert {each.queue_id: each.action_text for each in log.rest()} == {
        FIRST: FILTERED,
        SECOND: "",
        THIRD: "",
    }


def test_what_an_access_table_throws_away_was_accepted(log: Log) -> None:
    """smtpd(8) says 250 to its client, and nothing more in the log."""
    log.say("smtpd[7]", f"NOQUEUE: {THROWN}")
    log.say("smtpd[7]", f"{FIRST}: {LOCAL}")
    [found] = log.later()
    assert found.discard_text == THROWN


def test_what_is_delivered_was_not_thrown_away(log: Log) -> None:
    """The table spoke of a recipient whose transaction the client gave up."""
    log.say("smtpd[7]", f"NOQUEUE: {THROWN}")
    log.accepted(FIRST)
    log.removed(FIRST)
    [found] = log.later()
    assert not found.discard_text


def test_what_header_checks_throw_away_was_accepted(log: Log) -> None:
    log.came(FIRST)
    log.say(
        "cleanup[2]", f"{FIRST}: discard: header X-Do: x from a[1.2.3.4]; {RCPT}: x"
    )
    [found] = log.later()
    assert found.discard_text.startswith("discard: header")


@pytest.mark.parametrize(
    "why", ["reject: header X: y", "milter-reject: END-OF-MESSAGE"]
)
def test_what_is_rejected_was_not_accepted(log: Log, why: str) -> None:
    log.came(FIRST)
    log.say("cleanup[2]", f"{FIRST}: {why} from a[1.2.3.4]; {RCPT}: no")
    assert not log.later() and not log.rest()


def test_a_client_that_goes_away_has_sent_nothing(log: Log) -> None:
    log.say("smtpd[7]", f"{FIRST}: {LOCAL}")
    assert not log.later() and not log.rest()


def test_what_postfix_makes_itself_is_not_counted(log: Log) -> None:
    """Bounces, and what local(8) forwards: cleanup(8) is the first to know them."""
    log.say("cleanup[2]", f"{FIRST}: message-id=<20261125.{FIRST}@mail.example.com>")
    log.say("qmgr[3]", f"{FIRST}: from=<>, size=2404, nrcpt=1 (queue active)")
    log.say("smtp[5]", f"{FIRST}: {sent('mx.example.org[1.2.3.4]:25', '250 ok')}")
    log.removed(FIRST)
    assert not log.later() and not log.rest()
    assert not log.read.queued_before


def test_an_address_probe_is_no_mail(log: Log) -> None:
    log.say("pickup[4]", f"{FIRST}: uid=0 from=<root>")
    log.say("cleanup[2]", f"{FIRST}: message-id=<x@mail.example.com>")
    log.say("qmgr[3]", f"{FIRST}: {QUEUED}")
    log.say("smtp[5]", f"{FIRST}: {sent('a[1.2.3.4]:25', 'ok', what='deliverable')}")
    log.removed(FIRST)
    assert not log.later()


def test_mail_that_is_requeued_is_the_same_mail(log: Log) -> None:
    log.accepted(FIRST)
    log.say("postsuper[9]", f"{FIRST}: requeued")
    log.say("pickup[4]", f"{SECOND}: uid=101 from=<ann@example.org> orig_id={FIRST}")
    log.say("cleanup[2]", f"{SECOND}: message-id=<a@example.org>")
    log.say("qmgr[3]", f"{SECOND}: {QUEUED}")
    log.say("pipe[5]", f"{SECOND}: {stamped(f'id={ID} as={THIRD} result=done')}")
    log.removed(SECOND)
    [found] = log.later()
    assert (found.queue_id, found.archive_ids) == (FIRST, (ID,))


def test_what_was_deleted_while_the_filter_had_it_in_hand_is_archived(
    log: Log,
) -> None:
    """postsuper -d logs at once; the run ends, and what it did counts."""
    log.accepted(FIRST)
    log.handed_in(SECOND, FIRST)
    log.say("postsuper[9]", f"{FIRST}: removed")
    log.say("pipe[5]", f"{FIRST}: {stamped()}")
    log.removed(SECOND)
    [found] = log.later()
    assert not found.end and found.archive_ids == (ID,)


def test_what_was_deleted_or_expired_before_it_was_archived_says_so(log: Log) -> None:
    log.accepted(FIRST)
    log.say("postsuper[9]", f"{FIRST}: removed")
    log.accepted(SECOND, "b")
    gone = "from=<ann@example.org>, status=expired, returned to sender"
    log.say("qmgr[3]", f"{SECOND}: {gone}")
    log.removed(SECOND)
    assert {each.queue_id: each.end for each in log.later()} == {
        FIRST: messages.DELETED,
        SECOND: messages.EXPIRED,
    }


def test_mail_on_hold_is_accepted_when_the_queue_has_it(log: Log) -> None:
    log.came(FIRST)
    log.came(SECOND, "b")
    log.read.accept_queued([FIRST])
    [found] = log.rest()
    assert found.queue_id == found.current_queue_id == FIRST


def test_mail_that_a_filter_gives_back_by_smtp_is_the_same_mail(log: Log) -> None:
    log.accepted(FIRST)
    log.accepted(SECOND)
    relay = "127.0.0.1[127.0.0.1]:10024"
    said = f"250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 Ok: queued as {SECOND}"
    log.say("smtp[5]", f"{FIRST}: {sent(relay, said)}")
    log.removed(FIRST)
    log.say("pipe[5]", f"{SECOND}: {stamped(f'id={ID} as={THIRD} result=done')}")
    log.removed(SECOND)
    [found] = log.later()
    assert (found.queue_id, found.archive_ids) == (FIRST, (ID,))


def test_mail_that_a_filter_gives_back_by_xforward_is_the_same_mail(log: Log) -> None:
    log.accepted(FIRST)
    log.say("smtpd[7]", f"{SECOND}: {LOCAL}, orig_queue_id={FIRST}")
    log.say("qmgr[3]", f"{SECOND}: {QUEUED}")
    assert [each.queue_id for each in log.rest()] == [FIRST]


@pytest.mark.parametrize("picked_up_first", [True, False])
def test_mail_that_a_filter_gives_back_by_sendmail_is_the_same_mail(
    log: Log, picked_up_first: bool
) -> None:
    def pick_up() -> None:
        log.say("pickup[4]", f"{SECOND}: uid=65534 from=<ann@example.org>")
        log.say("cleanup[2]", f"{SECOND}: message-id=<a@example.org>")
        log.say("qmgr[3]", f"{SECOND}: {QUEUED}")

    log.accepted(FIRST)
    if picked_up_first:
        pick_up()
    log.say("pipe[5]", f"{FIRST}: {sent('scan', 'delivered via scan service')}")
    log.removed(FIRST)
    if not picked_up_first:
        pick_up()
    log.removed(SECOND)
    [found] = log.later()
    assert found.queue_id == FIRST


def test_messages_with_one_message_id_stay_messages(log: Log) -> None:
    """Each is archived, and given to the content filter behind the archive."""
    ids = [f"4jZFG7{number}zK5b4" for number in ("4bbb", "5bbb", "6bbb")]
    backs = [f"4jZFG7{number}zK5b4" for number in ("4ccc", "5ccc", "6ccc")]
    for queue_id, back in zip(ids, backs):
        log.say("pickup[4]", f"{queue_id}: uid=33 from=<ann@example.org>")
        log.say("cleanup[2]", f"{queue_id}: message-id=<same@example.org>")
        log.say("qmgr[3]", f"{queue_id}: {QUEUED}")
        log.handed_in(back, queue_id, "same")
        said = f"id={ID} as={back} result=done"
        log.say("pipe[5]", f"{queue_id}: {stamped(said)}")
        log.say("smtp[5]", f"{back}: {sent('127.0.0.1[127.0.0.1]:10024', '250 ok')}")
    log.removed(*ids, *backs)
    assert [each.queue_id for each in log.later()] == ids


def test_a_filter_before_the_archive_takes_and_gives_back_one_message(
    log: Log,
) -> None:
    """It says nothing but 250 ok; what it gives back is archived before it says so."""
    log.accepted(FIRST)
    log.accepted(SECOND)
    said = f"id={ID} as={THIRD} result=done"
    log.say("pipe[5]", f"{SECOND}: {stamped(said)}")
    log.say("smtp[5]", f"{FIRST}: {sent('127.0.0.1[127.0.0.1]:10024', '250 ok')}")
    log.removed(FIRST, SECOND)
    [found] = log.later()
    assert (found.queue_id, found.archive_ids) == (FIRST, (ID,))


def test_a_remote_host_that_names_a_queue_id_of_ours_is_not_believed(log: Log) -> None:
    log.accepted(SECOND, "b")
    log.accepted(FIRST)
    said = f"250 2.0.0 Ok: queued as {SECOND}"
    log.say("smtp[5]", f"{FIRST}: {sent('mx.example.org[192.0.2.1]:25', said)}")
    log.removed(FIRST)
    [found] = log.later()
    assert (found.queue_id, found.relay) == (FIRST, "mx.example.org[192.0.2.1]:25")
    assert [each.queue_id for each in log.rest()] == [SECOND]


def test_a_queue_file_with_another_name_is_the_same_message(log: Log) -> None:
    """Postfix renames them at start and reload; the moment in the name stays."""
    log.accepted(FIRST)
    renamed = FIRST.partition("z")[0] + "zJqHt"
    log.read.read_line(RENAMED, log.now)
    log.say("qmgr[3]", f"{renamed}: {QUEUED}")
    log.say("pipe[5]", f"{renamed}: {stamped()}")
    log.removed(renamed)
    [found] = log.later()
    assert (found.queue_id, found.archive_ids) == (FIRST, (ID,))
    assert not log.read.queued_before


def test_a_queue_file_with_another_name_is_known_when_it_is_released_from_hold(
    log: Log,
) -> None:
    log.accepted(FIRST)
    log.say("postsuper[9]", f"{FIRST}: placed on hold")
    renamed = FIRST.partition("z")[0] + "zJqHt"
    log.read.read_line(RENAMED, log.now)
    log.say("postsuper[9]", f"{renamed}: released from hold")
    log.say("qmgr[3]", f"{renamed}: {QUEUED}")
    log.say("pipe[5]", f"{renamed}: {stamped()}")
    log.removed(renamed)
    [found] = log.later()
    assert (found.queue_id, found.archive_ids) == (FIRST, (ID,))
    assert not log.read.queued_before


def test_a_capsule_with_another_name_is_the_same_capsule(log: Log) -> None:
    capsule(log, THIRD)
    renamed = THIRD.partition("z")[0] + "zJqHt"
    log.read.read_line(RENAMED, log.now)
    log.say("qmgr[3]", f"{renamed}: from=<>, size=2164, nrcpt=1 (queue active)")
    assert log.read.capsules.queue_id(ID) == renamed
    assert not log.read.queued_before


def test_ids_that_have_a_moment_in_common_are_two_as_long_as_none_was_renamed(
    log: Log,
) -> None:
    log.accepted("5A3B21C0FE")
    log.say("qmgr[3]", f"5A3B21C0FF: {QUEUED}")
    assert log.read.queued_before == 1
    assert [each.queue_id for each in log.rest()] == ["5A3B21C0FE"]


def test_short_queue_ids_that_are_used_again_are_other_messages(log: Log) -> None:
    for archive_id in (ID, OTHER):
        log.accepted("5A3B21C0FE", archive_id)
        said = f"id={archive_id} as={SECOND} result=done"
        log.say("pipe[5]", f"5A3B21C0FE: {stamped(said)}")
        log.removed("5A3B21C0FE")
    assert [each.archive_ids for each in log.later()] == [(ID,), (OTHER,)]


def test_what_was_on_its_way_when_the_log_began_is_counted_apart(log: Log) -> None:
    for _ in range(3):
        log.say("qmgr[3]", f"{FIRST}: {QUEUED}")
        log.say("smtp[5]", f"{FIRST}: {sent('none', 'later', what='deferred')}")
    log.removed(FIRST, SECOND)
    assert not log.later() and not log.rest()
    assert log.read.queued_before == 1


def test_a_transport_that_is_deferred_says_nothing_of_the_way(log: Log) -> None:
    log.accepted(FIRST)
    later = sent("none", "deferred transport", what="deferred")
    log.say("error[5]", f"{FIRST}: {later}")
    assert [each.relay for each in log.rest()] == [""]


def test_another_instance_on_the_host_is_left_alone(log: Log) -> None:
    line = f"Nov 25 09:47:27 mail postfix-in/smtpd[7]: {FIRST}: {LOCAL}"
    log.read.read_line(line, log.now)
    assert not log.read.line_count


def test_all_that_is_over_is_forgotten(log: Log) -> None:
    for number in range(500):
        log.came(f"4jZFG8{number:04d}zK5b4", f"r{number}")
        log.say("cleanup[2]", f"4jZFG8{number:04d}zK5b4: reject: header X: {RCPT}: x")
        queue_id = f"4jZFG7{number:04d}zK5b4"
        log.accepted(queue_id, str(number))
        log.say("pipe[5]", f"{queue_id}: {stamped()}")
        log.removed(queue_id)
        list(log.read.pop_finished())
    log.later()
    kept = vars(log.read.tracker.queue_files).values()
    assert not [each for each in kept if isinstance(each, Sized) and len(each)]


def test_of_what_no_queue_ever_had_only_the_newest_is_kept(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """smtpd(8) names a queue id for a client that then goes away without a word."""
    monkeypatch.setattr(queue_file, "MAX_INCOMING", 10)
    for number in range(200):
        log.say("smtpd[7]", f"4jZFG7{number:04d}zK5b4: {LOCAL}")
    log.accepted(FIRST)
    assert not log.later()
    assert len(log.read.tracker.queue_files.by_key) <= 11
    assert [each.queue_id for each in log.rest()] == [FIRST]


def test_mail_that_was_queued_when_the_log_began_is_not_counted_behind_the_filter(
    log: Log,
) -> None:
    log.handed_in(SECOND, FIRST)
    log.say("pipe[5]", f"{FIRST}: {stamped()}")
    log.removed(FIRST, SECOND)
    assert not log.later() and not log.rest()


# --- capsules -------------------------------------------------------------------------


def capsule(log: Log, queue_id: str, archive_id: str = ID) -> None:
    named = f"message-id=<capsule.{archive_id}@mail.example.com>"
    log.say("archive-capsule/smtpd[6]", f"{queue_id}: {LOCAL}")
    log.say("archive-capsule-cleanup/cleanup[7]", f"{queue_id}: {named}")
    log.say("qmgr[3]", f"{queue_id}: from=<>, size=2164, nrcpt=1 (queue active)")


def test_a_capsule_that_is_on_its_way_is_known_by_its_archive_id(log: Log) -> None:
    capsule(log, THIRD)
    assert log.read.capsules.queue_id(ID) == THIRD
    assert not log.read.capsules.is_settled(ID)
    done = f"delivered via archive service (id={ID} result=stored)"
    log.say("pipe[5]", f"{THIRD}: {sent('archive', done, to='capsule@x.invalid')}")
    log.removed(THIRD)
    assert log.read.capsules.is_settled(ID)
    assert not log.rest()


def test_a_capsule_that_is_requeued_is_the_same_capsule(log: Log) -> None:
    capsule(log, THIRD)
    log.say("pickup[4]", f"{SECOND}: uid=101 from=<> orig_id={THIRD}")
    assert log.read.capsules.queue_id(ID) == SECOND
    assert not log.rest()


@pytest.mark.parametrize(
    ("process", "text", "how"),
    [
        ("postsuper[9]", "removed", "deleted by postsuper -d"),
        ("qmgr[3]", "from=<>, status=expired, returned to sender", "expired in"),
        ("pipe[5]", sent("sink", "ok"), "sent to sink"),
    ],
)
def test_the_end_of_a_capsule_that_got_nowhere_is_known(
    log: Log, process: str, text: str, how: str
) -> None:
    capsule(log, THIRD)
    log.say(process, f"{THIRD}: {text}")
    log.removed(THIRD)
    told, queue_id = log.read.capsules.ends[ID]
    assert told.startswith(how) and queue_id == THIRD


def test_a_message_cannot_pretend_to_be_a_capsule(log: Log) -> None:
    log.say("smtpd[7]", f"{FIRST}: {LOCAL}")
    log.say("cleanup[2]", f"{FIRST}: message-id=<capsule.{ID}@mail.example.com>")
    log.say("qmgr[3]", f"{FIRST}: {QUEUED}")
    assert [each.queue_id for each in log.rest()] == [FIRST]
    assert log.read.capsules.is_settled(ID)


# --- lines of any kind ----------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_lines_of_any_kind_torn_mixed_or_whole_archive_nothing(version: str) -> None:
    """No stamp filter has written any of these; some look as if one had."""
    given = [line for line, _ in expected(version)]
    chance = random.Random(version)
    torn = [line[: chance.randrange(len(line) + 1)] for line in given]
    mixed = [a + b for a, b in zip(torn, reversed(given), strict=True)]
    for lines in (given, torn, mixed, chance.sample(given, len(given))):
        log = Log()
        for line in lines:
            log.now += 1
            log.read.read_line(line, log.now)
        found = [*log.read.pop_finished(), *log.read.remaining()]
        assert not [each for each in found if each.archive_ids or each.is_stamped]


def test_a_log_that_begins_in_the_middle_of_much_mail_is_read_in_no_time(
    log: Log,
) -> None:
    """None of its queue ids is known, and each could be a renamed one."""
    for number in range(3000):
        log.accepted(f"4jZFG7{number:04d}zK5b4", str(number))
    calls = 0

    def counted(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(counted)
    for number in range(3000):
        log.say("qmgr[3]", f"4jZFG6{number:04d}zK5b4: {QUEUED}")
    sys.setprofile(None)
    assert log.read.queued_before == 3000
    assert calls < 3000 * 200
