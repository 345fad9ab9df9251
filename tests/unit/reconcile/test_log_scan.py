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
RENAMED_LINE = (
    "Nov 25 09:47:27 mail postfix/postsuper[9]:"
    " Renamed to match inode number: 2 messages"
)
LOCAL_CLIENT = "client=localhost[127.0.0.1]"
FIRST, SECOND, THIRD = "4jZFG724PhzK5b4", "4jZFG74yqtzK5dh", "4jZFG75qcLzK5dp"
ID = "20261125-5792af7ed677f885f4d7c4f63fd2666cc4c4ce79"
OTHER_ID = "20261125-b2eb9afec3b0bfb9dcbba3bb1b7a09866f7e12c9"
QUEUED = "from=<ann@example.org>, size=351, nrcpt=1 (queue active)"
RCPT_LINE = "from=<ann@example.org> to=<bob@example.net> proto=ESMTP helo=<c.example>"
FILTERED = (
    "filter: RCPT from a[1.2.3.4]: <x>: Sender address triggers FILTER x:y;"
    f" {RCPT_LINE}"
)
DISCARD_LINE = (
    f"discard: RCPT from a[1.2.3.4]: <x>: Sender address thrown away; {RCPT_LINE}"
)


def delivery_text(
    relay: str, reply: str, *, to: str = "bob@example.net", extra_fields: str = ""
) -> str:
    return (
        f"to=<{to}>, relay={relay}, delay=0.91, delays=0.16/0/0/0.74, dsn=2.0.0,"
        f" status={extra_fields or 'sent'} ({reply})"
    )


def filter_delivery(reply: str = f"id={ID} as={SECOND} result=done") -> str:
    """What pipe(8) logs of a stamp filter: the first hundred bytes that it said."""
    shown_reply = f"delivered via archive-stamp service ({reply[:100]})"
    return delivery_text("archive-stamp", shown_reply)


class ScannedLog:
    """A log that is read as it is written; each line a second after the other."""

    def __init__(self, *, stores: bool = True) -> None:
        self.scan = LogScan(NAMES, (FILTER,), has_store=stores)
        self.now = 1795348380.0

    def add_line(self, process: str, text: str) -> None:
        """Say it; process is daemon and pid, or service, daemon and pid."""
        service, _, daemon = process.rpartition("/")
        service = f"postfix/{service}" if service else "postfix"
        self.now += 1
        line = f"Nov 25 09:47:27 mail {service}/{daemon}: {text}"
        self.scan.read_line(line, self.now)

    def add_client(self, queue_id: str, name: str = "a", pid: int = 7) -> None:
        """Say that a message has come by SMTP, as far as cleanup(8)."""
        self.add_line(f"smtpd[{pid}]", f"{queue_id}: {LOCAL_CLIENT}")
        self.add_line("cleanup[2]", f"{queue_id}: message-id=<{name}@example.org>")

    def add_accepted(self, queue_id: str, name: str = "a", pid: int = 7) -> None:
        """Say that a message has come by SMTP and is Postfix's to deliver."""
        self.add_client(queue_id, name, pid)
        self.add_line("qmgr[3]", f"{queue_id}: {QUEUED}")

    def add_reinjected(self, queue_id: str, origin: str = "", name: str = "a") -> None:
        """Say that a hand-back port has taken a message."""
        origin_fields = (
            f", orig_queue_id={origin}, orig_client=a[1.2.3.4]" if origin else ""
        )
        self.add_line(
            "archive-handback/smtpd[8]", f"{queue_id}: {LOCAL_CLIENT}{origin_fields}"
        )
        self.add_line(
            "archive-cleanup/cleanup[9]", f"{queue_id}: message-id=<{name}@example.org>"
        )
        self.add_line("qmgr[3]", f"{queue_id}: {QUEUED}")

    def add_removed(self, *queue_ids: str) -> None:
        for each in queue_ids:
            self.add_line("qmgr[3]", f"{each}: removed")

    def pop_finished(self) -> list[Message]:
        """Return what is judged when a while has passed, and it is forgotten."""
        self.now += log_scan.KEEP_SECONDS + 1
        self.add_line("qmgr[3]", "4zzzzzzzzzzzz0: removed")
        return [each for each in self.scan.pop_finished() if each.is_accepted]

    def remaining(self) -> list[Message]:
        return [each for each in self.scan.remaining() if each.is_accepted]


@pytest.fixture
def log() -> ScannedLog:
    return ScannedLog()


def test_what_the_stamp_filter_reinjects_is_the_message_that_it_took(
    log: ScannedLog,
) -> None:
    log.add_accepted(FIRST)
    log.add_reinjected(SECOND, FIRST)
    log.add_line("pipe[5]", f"{FIRST}: {filter_delivery()}")
    log.add_removed(FIRST)
    log.add_line(
        "pipe[6]", f"{SECOND}: {delivery_text('sink', 'delivered via sink service')}"
    )
    log.add_removed(SECOND)
    [message] = log.pop_finished()
    assert message.queue_id == FIRST
    assert message.archive_ids == (ID,)
    assert (message.sender, message.recipient_count) == ("ann@example.org", 1)
    assert not message.relay
    assert not log.remaining()


def test_it_is_waited_for_until_its_last_queue_file_is_gone(log: ScannedLog) -> None:
    log.add_accepted(FIRST)
    log.add_reinjected(SECOND, FIRST)
    log.add_line("pipe[5]", f"{FIRST}: {filter_delivery()}")
    log.add_removed(FIRST)
    assert not log.pop_finished()
    assert [each.queue_id for each in log.remaining()] == [FIRST]
    log.add_removed(SECOND)
    assert [each.queue_id for each in log.pop_finished()] == [FIRST]


def test_a_line_that_pipe_truncates_has_what_is_needed(log: ScannedLog) -> None:
    """pipe(8) logs a hundred bytes."""
    reply = f"id={ID} as={SECOND} alarm=forged,incomplete forged=12 result=done"
    assert len(reply) > 100
    log.add_accepted(FIRST)
    log.add_reinjected(SECOND, FIRST)
    log.add_removed(SECOND)
    log.add_line("pipe[5]", f"{FIRST}: {filter_delivery(reply)}")
    log.add_removed(FIRST)
    [found] = log.pop_finished()
    assert found.queue_id == FIRST and not found.is_reinjected
    assert found.archive_ids == (ID,)


@pytest.mark.parametrize("archive", ["legal@example.com", "one@x.org,two@x.org"])
@pytest.mark.parametrize("alarm", ["", "alarm=forged "])
def test_the_reply_of_a_worker_is_read_to_its_end(
    log: ScannedLog, archive: str, alarm: str
) -> None:
    """lmtp(8) names the worker's socket, and logs all that it said."""
    relay = f"mail.example.com[private/archive.{archive}]"
    reply = f"250 2.0.0 id={ID} as={SECOND} {alarm}result=done"
    log.add_accepted(FIRST)
    log.add_reinjected(SECOND, FIRST)
    log.add_removed(SECOND)
    log.add_line("archive-stamp/lmtp[5]", f"{FIRST}: {delivery_text(relay, reply)}")
    log.add_removed(FIRST)
    [message] = log.pop_finished()
    assert message.queue_id == FIRST and not message.is_reinjected
    assert message.archive_ids == (ID,)
    assert log.scan.unreadable_count == 0


def test_a_reinjected_message_is_not_judged_while_its_filter_runs(
    log: ScannedLog,
) -> None:
    log.add_accepted(FIRST)
    log.add_reinjected(SECOND, FIRST)
    log.add_removed(SECOND)
    assert not log.pop_finished()
    assert [each.queue_id for each in log.remaining()] == [FIRST]
    log.add_line("pipe[5]", f"{FIRST}: {filter_delivery()}")
    log.add_removed(FIRST)
    assert [each.queue_id for each in log.pop_finished()] == [FIRST]


def test_what_no_filter_reinjected_is_a_message_of_its_own(log: ScannedLog) -> None:
    log.add_reinjected(SECOND)
    log.add_accepted(FIRST)
    log.add_line(
        "pipe[5]", f"{FIRST}: {filter_delivery(f'id={ID} as={THIRD} result=done')}"
    )
    log.add_removed(FIRST, SECOND)
    is_reinjected = {each.queue_id: each.is_reinjected for each in log.pop_finished()}
    assert is_reinjected == {FIRST: False, SECOND: True}


def test_what_another_service_may_say_of_the_stamp_filter_is_not_believed(
    log: ScannedLog,
) -> None:
    """A recipient that looks like a whole line, as sendmail(1) takes it."""
    log.add_reinjected(SECOND)
    log.add_accepted(FIRST)
    hostile = f'x>, relay=archive-stamp, {filter_delivery().partition(", ")[2]}'
    log.add_line(
        "smtp[5]",
        f"{FIRST}: {delivery_text('mx.example[1.2.3.4]:25', 'ok', to=hostile)}",
    )
    log.add_removed(FIRST, SECOND)
    assert [each.archive_ids for each in log.pop_finished()] == [(), ()]
    assert log.scan.unreadable_count == 1


def test_an_action_of_an_access_table_belongs_to_the_next_message_of_its_process(
    log: ScannedLog,
) -> None:
    log.add_line("smtpd[7]", f"NOQUEUE: {FILTERED}")
    log.add_accepted(SECOND, "b", pid=8)
    log.add_accepted(FIRST)
    log.add_accepted(THIRD, "c")
    assert {each.queue_id: each.action_text for each in log.remaining()} == {
        FIRST: FILTERED,
        SECOND: "",
        THIRD: "",
    }


def test_what_an_access_table_discards_was_accepted(log: ScannedLog) -> None:
    """smtpd(8) says 250 to its client, and nothing more in the log."""
    log.add_line("smtpd[7]", f"NOQUEUE: {DISCARD_LINE}")
    log.add_line("smtpd[7]", f"{FIRST}: {LOCAL_CLIENT}")
    [message] = log.pop_finished()
    assert message.discard_text == DISCARD_LINE


def test_what_is_delivered_was_not_discarded(log: ScannedLog) -> None:
    """The table spoke of a recipient whose transaction the client gave up."""
    log.add_line("smtpd[7]", f"NOQUEUE: {DISCARD_LINE}")
    log.add_accepted(FIRST)
    log.add_removed(FIRST)
    [message] = log.pop_finished()
    assert not message.discard_text


def test_what_header_checks_discard_was_accepted(log: ScannedLog) -> None:
    log.add_client(FIRST)
    log.add_line(
        "cleanup[2]",
        f"{FIRST}: discard: header X-Do: x from a[1.2.3.4]; {RCPT_LINE}: x",
    )
    [message] = log.pop_finished()
    assert message.discard_text.startswith("discard: header")


@pytest.mark.parametrize(
    "rejection", ["reject: header X: y", "milter-reject: END-OF-MESSAGE"]
)
def test_what_is_rejected_was_not_accepted(log: ScannedLog, rejection: str) -> None:
    log.add_client(FIRST)
    log.add_line("cleanup[2]", f"{FIRST}: {rejection} from a[1.2.3.4]; {RCPT_LINE}: no")
    assert not log.pop_finished() and not log.remaining()


def test_a_client_that_disconnects_has_sent_nothing(log: ScannedLog) -> None:
    log.add_line("smtpd[7]", f"{FIRST}: {LOCAL_CLIENT}")
    assert not log.pop_finished() and not log.remaining()


def test_what_postfix_makes_itself_is_not_counted(log: ScannedLog) -> None:
    """Bounces, and what local(8) forwards: cleanup(8) is the first to know them."""
    log.add_line(
        "cleanup[2]", f"{FIRST}: message-id=<20261125.{FIRST}@mail.example.com>"
    )
    log.add_line("qmgr[3]", f"{FIRST}: from=<>, size=2404, nrcpt=1 (queue active)")
    log.add_line(
        "smtp[5]", f"{FIRST}: {delivery_text('mx.example.org[1.2.3.4]:25', '250 ok')}"
    )
    log.add_removed(FIRST)
    assert not log.pop_finished() and not log.remaining()
    assert not log.scan.queued_before


def test_an_address_probe_is_no_mail(log: ScannedLog) -> None:
    log.add_line("pickup[4]", f"{FIRST}: uid=0 from=<root>")
    log.add_line("cleanup[2]", f"{FIRST}: message-id=<x@mail.example.com>")
    log.add_line("qmgr[3]", f"{FIRST}: {QUEUED}")
    log.add_line(
        "smtp[5]",
        f"{FIRST}: {delivery_text('a[1.2.3.4]:25', 'ok', extra_fields='deliverable')}",
    )
    log.add_removed(FIRST)
    assert not log.pop_finished()


def test_mail_that_is_requeued_is_the_same_mail(log: ScannedLog) -> None:
    log.add_accepted(FIRST)
    log.add_line("postsuper[9]", f"{FIRST}: requeued")
    log.add_line(
        "pickup[4]", f"{SECOND}: uid=101 from=<ann@example.org> orig_id={FIRST}"
    )
    log.add_line("cleanup[2]", f"{SECOND}: message-id=<a@example.org>")
    log.add_line("qmgr[3]", f"{SECOND}: {QUEUED}")
    log.add_line(
        "pipe[5]", f"{SECOND}: {filter_delivery(f'id={ID} as={THIRD} result=done')}"
    )
    log.add_removed(SECOND)
    [message] = log.pop_finished()
    assert (message.queue_id, message.archive_ids) == (FIRST, (ID,))


def test_what_was_deleted_while_the_filter_ran_is_archived(
    log: ScannedLog,
) -> None:
    """postsuper -d logs at once; the run ends, and what it did counts."""
    log.add_accepted(FIRST)
    log.add_reinjected(SECOND, FIRST)
    log.add_line("postsuper[9]", f"{FIRST}: removed")
    log.add_line("pipe[5]", f"{FIRST}: {filter_delivery()}")
    log.add_removed(SECOND)
    [message] = log.pop_finished()
    assert not message.end and message.archive_ids == (ID,)


def test_what_was_deleted_or_expired_before_it_was_archived_is_reported_so(
    log: ScannedLog,
) -> None:
    log.add_accepted(FIRST)
    log.add_line("postsuper[9]", f"{FIRST}: removed")
    log.add_accepted(SECOND, "b")
    expired_line = "from=<ann@example.org>, status=expired, returned to sender"
    log.add_line("qmgr[3]", f"{SECOND}: {expired_line}")
    log.add_removed(SECOND)
    assert {each.queue_id: each.end for each in log.pop_finished()} == {
        FIRST: messages.DELETED,
        SECOND: messages.EXPIRED,
    }


def test_mail_on_hold_is_accepted_when_the_queue_has_it(log: ScannedLog) -> None:
    log.add_client(FIRST)
    log.add_client(SECOND, "b")
    log.scan.accept_queued([FIRST])
    [message] = log.remaining()
    assert message.queue_id == message.current_queue_id == FIRST


def test_mail_that_a_filter_gives_back_by_smtp_is_the_same_mail(
    log: ScannedLog,
) -> None:
    log.add_accepted(FIRST)
    log.add_accepted(SECOND)
    relay = "127.0.0.1[127.0.0.1]:10024"
    reply = f"250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 Ok: queued as {SECOND}"
    log.add_line("smtp[5]", f"{FIRST}: {delivery_text(relay, reply)}")
    log.add_removed(FIRST)
    log.add_line(
        "pipe[5]", f"{SECOND}: {filter_delivery(f'id={ID} as={THIRD} result=done')}"
    )
    log.add_removed(SECOND)
    [message] = log.pop_finished()
    assert (message.queue_id, message.archive_ids) == (FIRST, (ID,))


def test_mail_that_a_filter_gives_back_by_xforward_is_the_same_mail(
    log: ScannedLog,
) -> None:
    log.add_accepted(FIRST)
    log.add_line("smtpd[7]", f"{SECOND}: {LOCAL_CLIENT}, orig_queue_id={FIRST}")
    log.add_line("qmgr[3]", f"{SECOND}: {QUEUED}")
    assert [each.queue_id for each in log.remaining()] == [FIRST]


@pytest.mark.parametrize("picked_up_first", [True, False])
def test_mail_that_a_filter_gives_back_by_sendmail_is_the_same_mail(
    log: ScannedLog, picked_up_first: bool
) -> None:
    def pick_up() -> None:
        log.add_line("pickup[4]", f"{SECOND}: uid=65534 from=<ann@example.org>")
        log.add_line("cleanup[2]", f"{SECOND}: message-id=<a@example.org>")
        log.add_line("qmgr[3]", f"{SECOND}: {QUEUED}")

    log.add_accepted(FIRST)
    if picked_up_first:
        pick_up()
    log.add_line(
        "pipe[5]", f"{FIRST}: {delivery_text('scan', 'delivered via scan service')}"
    )
    log.add_removed(FIRST)
    if not picked_up_first:
        pick_up()
    log.add_removed(SECOND)
    [message] = log.pop_finished()
    assert message.queue_id == FIRST


def test_messages_with_one_message_id_stay_messages(log: ScannedLog) -> None:
    """Each is archived, and given to the content filter behind the archive."""
    ids = [f"4jZFG7{number}zK5b4" for number in ("4bbb", "5bbb", "6bbb")]
    backs = [f"4jZFG7{number}zK5b4" for number in ("4ccc", "5ccc", "6ccc")]
    for queue_id, reinjected_id in zip(ids, backs):
        log.add_line("pickup[4]", f"{queue_id}: uid=33 from=<ann@example.org>")
        log.add_line("cleanup[2]", f"{queue_id}: message-id=<same@example.org>")
        log.add_line("qmgr[3]", f"{queue_id}: {QUEUED}")
        log.add_reinjected(reinjected_id, queue_id, "same")
        reply = f"id={ID} as={reinjected_id} result=done"
        log.add_line("pipe[5]", f"{queue_id}: {filter_delivery(reply)}")
        log.add_line(
            "smtp[5]",
            f"{reinjected_id}: {delivery_text('127.0.0.1[127.0.0.1]:10024', '250 ok')}",
        )
    log.add_removed(*ids, *backs)
    assert [each.queue_id for each in log.pop_finished()] == ids


def test_a_filter_before_the_archive_takes_and_gives_back_one_message(
    log: ScannedLog,
) -> None:
    """It says nothing but 250 ok; what it gives back is archived before it says so."""
    log.add_accepted(FIRST)
    log.add_accepted(SECOND)
    reply = f"id={ID} as={THIRD} result=done"
    log.add_line("pipe[5]", f"{SECOND}: {filter_delivery(reply)}")
    log.add_line(
        "smtp[5]", f"{FIRST}: {delivery_text('127.0.0.1[127.0.0.1]:10024', '250 ok')}"
    )
    log.add_removed(FIRST, SECOND)
    [message] = log.pop_finished()
    assert (message.queue_id, message.archive_ids) == (FIRST, (ID,))


def test_a_remote_host_that_names_a_queue_id_of_ours_is_not_believed(
    log: ScannedLog,
) -> None:
    log.add_accepted(SECOND, "b")
    log.add_accepted(FIRST)
    reply = f"250 2.0.0 Ok: queued as {SECOND}"
    log.add_line(
        "smtp[5]", f"{FIRST}: {delivery_text('mx.example.org[192.0.2.1]:25', reply)}"
    )
    log.add_removed(FIRST)
    [message] = log.pop_finished()
    assert (message.queue_id, message.relay) == (FIRST, "mx.example.org[192.0.2.1]:25")
    assert [each.queue_id for each in log.remaining()] == [SECOND]


def test_a_queue_file_with_another_name_is_the_same_message(log: ScannedLog) -> None:
    """Postfix renames them at start and reload; the moment in the name stays."""
    log.add_accepted(FIRST)
    renamed = FIRST.partition("z")[0] + "zJqHt"
    log.scan.read_line(RENAMED_LINE, log.now)
    log.add_line("qmgr[3]", f"{renamed}: {QUEUED}")
    log.add_line("pipe[5]", f"{renamed}: {filter_delivery()}")
    log.add_removed(renamed)
    [message] = log.pop_finished()
    assert (message.queue_id, message.archive_ids) == (FIRST, (ID,))
    assert not log.scan.queued_before


def test_a_queue_file_with_another_name_is_known_when_it_is_released_from_hold(
    log: ScannedLog,
) -> None:
    log.add_accepted(FIRST)
    log.add_line("postsuper[9]", f"{FIRST}: placed on hold")
    renamed = FIRST.partition("z")[0] + "zJqHt"
    log.scan.read_line(RENAMED_LINE, log.now)
    log.add_line("postsuper[9]", f"{renamed}: released from hold")
    log.add_line("qmgr[3]", f"{renamed}: {QUEUED}")
    log.add_line("pipe[5]", f"{renamed}: {filter_delivery()}")
    log.add_removed(renamed)
    [found] = log.pop_finished()
    assert (found.queue_id, found.archive_ids) == (FIRST, (ID,))
    assert not log.scan.queued_before


def test_a_capsule_with_another_name_is_the_same_capsule(log: ScannedLog) -> None:
    log_capsule(log, THIRD)
    renamed = THIRD.partition("z")[0] + "zJqHt"
    log.scan.read_line(RENAMED_LINE, log.now)
    log.add_line("qmgr[3]", f"{renamed}: from=<>, size=2164, nrcpt=1 (queue active)")
    assert log.scan.capsules.queue_id(ID) == renamed
    assert not log.scan.queued_before


def test_ids_that_have_a_moment_in_common_are_two_as_long_as_none_was_renamed(
    log: ScannedLog,
) -> None:
    log.add_accepted("5A3B21C0FE")
    log.add_line("qmgr[3]", f"5A3B21C0FF: {QUEUED}")
    assert log.scan.queued_before == 1
    assert [each.queue_id for each in log.remaining()] == ["5A3B21C0FE"]


def test_short_queue_ids_that_are_used_again_are_other_messages(
    log: ScannedLog,
) -> None:
    for archive_id in (ID, OTHER_ID):
        log.add_accepted("5A3B21C0FE", archive_id)
        reply = f"id={archive_id} as={SECOND} result=done"
        log.add_line("pipe[5]", f"5A3B21C0FE: {filter_delivery(reply)}")
        log.add_removed("5A3B21C0FE")
    assert [each.archive_ids for each in log.pop_finished()] == [(ID,), (OTHER_ID,)]


def test_what_was_in_the_queue_when_the_log_began_is_counted_separately(
    log: ScannedLog,
) -> None:
    for _ in range(3):
        log.add_line("qmgr[3]", f"{FIRST}: {QUEUED}")
        log.add_line(
            "smtp[5]",
            f"{FIRST}: {delivery_text('none', 'later', extra_fields='deferred')}",
        )
    log.add_removed(FIRST, SECOND)
    assert not log.pop_finished() and not log.remaining()
    assert log.scan.queued_before == 1


def test_a_deferred_transport_gives_no_route(log: ScannedLog) -> None:
    log.add_accepted(FIRST)
    later = delivery_text("none", "deferred transport", extra_fields="deferred")
    log.add_line("error[5]", f"{FIRST}: {later}")
    assert [each.relay for each in log.remaining()] == [""]


def test_another_instance_on_the_host_is_left_alone(log: ScannedLog) -> None:
    line = f"Nov 25 09:47:27 mail postfix-in/smtpd[7]: {FIRST}: {LOCAL_CLIENT}"
    log.scan.read_line(line, log.now)
    assert not log.scan.line_count


def test_all_that_is_over_is_forgotten(log: ScannedLog) -> None:
    for number in range(500):
        log.add_client(f"4jZFG8{number:04d}zK5b4", f"r{number}")
        log.add_line(
            "cleanup[2]", f"4jZFG8{number:04d}zK5b4: reject: header X: {RCPT_LINE}: x"
        )
        queue_id = f"4jZFG7{number:04d}zK5b4"
        log.add_accepted(queue_id, str(number))
        log.add_line("pipe[5]", f"{queue_id}: {filter_delivery()}")
        log.add_removed(queue_id)
        list(log.scan.pop_finished())
    log.pop_finished()
    tables = vars(log.scan.tracker.queue_files).values()
    assert not [each for each in tables if isinstance(each, Sized) and len(each)]


def test_of_what_no_queue_ever_had_only_the_newest_is_kept(
    log: ScannedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """smtpd(8) names a queue id for a client that then goes away without a word."""
    monkeypatch.setattr(queue_file, "MAX_INCOMING", 10)
    for number in range(200):
        log.add_line("smtpd[7]", f"4jZFG7{number:04d}zK5b4: {LOCAL_CLIENT}")
    log.add_accepted(FIRST)
    assert not log.pop_finished()
    assert len(log.scan.tracker.queue_files.by_key) <= 11
    assert [each.queue_id for each in log.remaining()] == [FIRST]


def test_mail_that_was_queued_when_the_log_began_is_not_counted_behind_the_filter(
    log: ScannedLog,
) -> None:
    log.add_reinjected(SECOND, FIRST)
    log.add_line("pipe[5]", f"{FIRST}: {filter_delivery()}")
    log.add_removed(FIRST, SECOND)
    assert not log.pop_finished() and not log.remaining()


# --- capsules -------------------------------------------------------------------------


def log_capsule(log: ScannedLog, queue_id: str, archive_id: str = ID) -> None:
    message_id = f"message-id=<capsule.{archive_id}@mail.example.com>"
    log.add_line("archive-capsule/smtpd[6]", f"{queue_id}: {LOCAL_CLIENT}")
    log.add_line("archive-capsule-cleanup/cleanup[7]", f"{queue_id}: {message_id}")
    log.add_line("qmgr[3]", f"{queue_id}: from=<>, size=2164, nrcpt=1 (queue active)")


def test_a_queued_capsule_is_known_by_its_archive_id(log: ScannedLog) -> None:
    log_capsule(log, THIRD)
    assert log.scan.capsules.queue_id(ID) == THIRD
    assert not log.scan.capsules.is_settled(ID)
    delivered = f"delivered via archive service (id={ID} result=stored)"
    log.add_line(
        "pipe[5]",
        f"{THIRD}: {delivery_text('archive', delivered, to='capsule@x.invalid')}",
    )
    log.add_removed(THIRD)
    assert log.scan.capsules.is_settled(ID)
    assert not log.remaining()


def test_a_capsule_that_is_requeued_is_the_same_capsule(log: ScannedLog) -> None:
    log_capsule(log, THIRD)
    log.add_line("pickup[4]", f"{SECOND}: uid=101 from=<> orig_id={THIRD}")
    assert log.scan.capsules.queue_id(ID) == SECOND
    assert not log.remaining()


def test_a_requeued_capsule_waits_whatever_is_logged_first(log: ScannedLog) -> None:
    """The stamp filter sends it on; the line of its delivery may come last."""
    log_capsule(log, THIRD)
    log.add_line("postsuper[9]", f"{THIRD}: requeued")
    log.add_line("pickup[4]", f"{SECOND}: uid=101 from=<> orig_id={THIRD}")
    log_capsule(log, FIRST)
    waits = delivery_text("none", "later", to="capsule@x.invalid")
    log.add_line("retry[5]", f"{FIRST}: {waits.replace('sent', 'deferred')}")
    sent_on = filter_delivery(f"capsule={ID} as={FIRST} result=requeued")
    log.add_line("pipe[5]", f"{SECOND}: {sent_on}")
    log.add_removed(SECOND)
    assert log.scan.capsules.queue_id(ID) == FIRST
    assert not log.scan.capsules.is_settled(ID)


@pytest.mark.parametrize(
    ("process", "text", "expected_end"),
    [
        ("postsuper[9]", "removed", "deleted by postsuper -d"),
        ("qmgr[3]", "from=<>, status=expired, returned to sender", "expired in"),
        ("pipe[5]", delivery_text("sink", "ok"), "sent to sink"),
    ],
)
def test_the_end_of_a_capsule_that_got_nowhere_is_known(
    log: ScannedLog, process: str, text: str, expected_end: str
) -> None:
    log_capsule(log, THIRD)
    log.add_line(process, f"{THIRD}: {text}")
    log.add_removed(THIRD)
    end, queue_id = log.scan.capsules.ends[ID]
    assert end.startswith(expected_end) and queue_id == THIRD


def test_a_message_cannot_pretend_to_be_a_capsule(log: ScannedLog) -> None:
    log.add_line("smtpd[7]", f"{FIRST}: {LOCAL_CLIENT}")
    log.add_line("cleanup[2]", f"{FIRST}: message-id=<capsule.{ID}@mail.example.com>")
    log.add_line("qmgr[3]", f"{FIRST}: {QUEUED}")
    assert [each.queue_id for each in log.remaining()] == [FIRST]
    assert log.scan.capsules.is_settled(ID)


# --- lines of any kind ----------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_lines_of_any_kind_torn_mixed_or_complete_archive_nothing(version: str) -> None:
    """No stamp filter has written any of these; some look as if one had."""
    sample_lines = [line for line, _ in expected(version)]
    generator = random.Random(version)
    torn = [line[: generator.randrange(len(line) + 1)] for line in sample_lines]
    mixed = [a + b for a, b in zip(torn, reversed(sample_lines), strict=True)]
    for lines in (
        sample_lines,
        torn,
        mixed,
        generator.sample(sample_lines, len(sample_lines)),
    ):
        log = ScannedLog()
        for line in lines:
            log.now += 1
            log.scan.read_line(line, log.now)
        messages = [*log.scan.pop_finished(), *log.scan.remaining()]
        assert not [each for each in messages if each.archive_ids or each.is_stamped]


def test_a_log_that_begins_in_the_middle_of_much_mail_is_read_in_no_time(
    log: ScannedLog,
) -> None:
    """None of its queue ids is known, and each could be a renamed one."""
    for number in range(3000):
        log.add_accepted(f"4jZFG7{number:04d}zK5b4", str(number))
    calls = 0

    def counted(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(counted)
    for number in range(3000):
        log.add_line("qmgr[3]", f"4jZFG6{number:04d}zK5b4: {QUEUED}")
    sys.setprofile(None)
    assert log.scan.queued_before == 3000
    assert calls < 3000 * 200


def log_reinjected_twice(log: ScannedLog, *, requeued: bool, name: str = "a") -> None:
    """Say that two runs of a stamp filter reinjected one message; the last reports."""
    origin = FIRST
    log.add_accepted(FIRST)
    log.add_reinjected(SECOND, FIRST)
    if requeued:
        origin = "4jZFG724PhzK5b9"
        log.add_line("postsuper[1]", f"{FIRST}: requeued")
        log.add_line(
            "pickup[4]", f"{origin}: uid=102 from=<ann@example.org> orig_id={FIRST}"
        )
        log.add_line("cleanup[2]", f"{origin}: message-id=<{name}@example.org>")
        log.add_line("qmgr[3]", f"{origin}: {QUEUED}")
    log.add_reinjected(THIRD, origin)
    report = filter_delivery(f"id={ID} as={THIRD} result=done")
    log.add_line("pipe[5]", f"{origin}: {report}")
    log.add_removed(origin, SECOND, THIRD)


@pytest.mark.parametrize("requeued", [False, True])
def test_what_was_reinjected_twice_is_no_other_mail(
    log: ScannedLog, requeued: bool
) -> None:
    log_reinjected_twice(log, requeued=requeued)
    by_id = {each.queue_id: each for _ in range(9) for each in log.pop_finished()}
    assert by_id.keys() == {FIRST, SECOND}
    assert by_id[FIRST].archive_ids == (ID,)
    assert by_id[SECOND].is_second_reinjection
    assert not log.remaining()


@pytest.mark.parametrize(
    ("sender", "name", "is_late"),
    [("eve", "a", False), ("ann", "other", False), ("ann", "a", True)],
)
def test_other_mail_under_the_id_of_a_captured_message_is_other_mail(
    log: ScannedLog, sender: str, name: str, is_late: bool
) -> None:
    log.add_accepted(FIRST)
    report = f"{FIRST}: {filter_delivery(f'id={ID} as={THIRD} result=done')}"
    log.add_reinjected(THIRD, FIRST)
    if is_late:
        log.add_line("pipe[5]", report)
    log.add_reinjected(SECOND, FIRST, name)
    log.add_line("qmgr[3]", f"{SECOND}: {QUEUED}".replace("ann", sender))
    if not is_late:
        log.add_line("pipe[5]", report)
    log.add_removed(FIRST, SECOND, THIRD)
    by_id = {each.queue_id: each for _ in range(9) for each in log.pop_finished()}
    assert by_id.keys() == {FIRST, SECOND}
    assert by_id[SECOND].is_reinjected and not by_id[SECOND].is_second_reinjection
