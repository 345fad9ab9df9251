"""Claims about the reckoning: each message counts once, and the numbers add up."""

from __future__ import annotations

import pytest

from postfix_archive import monitoring
from postfix_archive.postfix.queued_message import QueuedMessage
from postfix_archive.reconcile.causes import Classifier
from postfix_archive.reconcile.summary import MAX_SHOWN, Result
from postfix_archive.reconcile.totals import Pending, Totals

from unit.reconcile.test_causes import by_hand
from unit.reconcile.test_log_scan import (
    FIRST,
    ID,
    OTHER,
    SECOND,
    THIRD,
    Log,
    capsule,
    sent,
    stamped,
)

MORE = "2525 inet n - n - - smtpd -o syslog_name=postfix/more -o content_filter=\n"
ASIDE = f"delivered via archive service (id={ID} alarm=fallback reason=full)"


def waiting(queue_id: str, queue: str = "deferred", age: int = 60) -> QueuedMessage:
    return QueuedMessage(
        queue_id, age, "ann@example.org", ("bob@x",), ("later",), "", queue
    )


class Run:
    """A run of reconcile over a log, with what queue, fallback and journals have."""

    def __init__(self, log: Log, since: float = 0, until: float = 1e12) -> None:
        self.log = log
        self.judge = Classifier(by_hand(MORE), (), log.read.archiving_processes)
        self.reckoning = Totals(log.read, self.judge, since, until)

    def done(
        self,
        *queue: QueuedMessage,
        kept: tuple[str, ...] = (),
        fallback: tuple[str, ...] = (),
    ) -> Result:
        """Return what is found; the parts add up."""
        aside = dict.fromkeys(fallback, self.log.now - 60)
        held = Pending({each.queue_id: each for each in queue}, aside, self.log.now)
        self.reckoning.add_remaining(held)
        self.reckoning.finish(held, set(kept))
        found = Result(self.reckoning, held, 0, self.log.now)
        words = found.to_json()
        kinds = ("archived", "waiting", "rescued", "not_requested", "missing")
        parts = sum(words[kind] for kind in (*kinds, "unclear"))
        assert parts == words["accepted"]
        assert len(words["messages"]) == sum(words[k] for k in kinds[1:]) - (
            words["not_requested"]
        )
        return found


@pytest.fixture
def log() -> Log:
    return Log()


def one_captured(log: Log) -> None:
    """Say that one message was captured, and its copy is on its way."""
    log.accepted(FIRST)
    log.handed_in(SECOND, FIRST)
    capsule(log, THIRD)
    log.say("pipe[5]", f"{FIRST}: {stamped()}")
    log.removed(FIRST, SECOND)


def only(found: Result) -> tuple[str, str]:
    """Return kind and cause of the one message that is not archived."""
    [case] = found.totals.unarchived
    return case.verdict.kind, case.verdict.explanation


def test_what_a_journal_has_is_archived(log: Log) -> None:
    one_captured(log)
    log.removed(THIRD)
    found = Run(log).done(kept=(ID,))
    assert found.summary()["archived"] == 1
    assert found.severity == monitoring.OK
    assert "Totals match." in list(found.text_lines())


def test_the_log_alone_is_not_believed(log: Log) -> None:
    one_captured(log)
    done = sent("archive", f"delivered via archive service (id={ID} result=stored)")
    log.say("pipe[5]", f"{THIRD}: {done}")
    log.removed(THIRD)
    found = Run(log).done(kept=(OTHER,))
    kind, cause = only(found)
    assert kind == "missing"
    places = "neither journal, queue nor fallback directory has it"
    assert cause == f"captured as {ID}, but {places}"
    assert found.severity == monitoring.CRITICAL


def test_without_a_store_what_left_as_mail_is_archived() -> None:
    log = Log(stores=False)
    one_captured(log)
    done = sent("archive", f"delivered via archive service (id={ID} result=stored)")
    log.say("pipe[5]", f"{THIRD}: {done}")
    log.removed(THIRD)
    assert Run(log).done().summary()["archived"] == 1


def test_a_copy_in_the_queue_waits(log: Log) -> None:
    one_captured(log)
    found = Run(log).done(waiting(THIRD))
    assert only(found) == ("waiting", f"capsule {THIRD} waits: later")
    [case] = found.totals.unarchived
    assert (case.queue, case.waiting_since) == ("deferred", log.now - 60)
    assert found.severity == monitoring.OK


def test_what_waits_long_is_late(log: Log) -> None:
    one_captured(log)
    assert Run(log).done(waiting(THIRD, age=600)).severity == monitoring.WARNING


def test_a_copy_that_waits_for_the_outcome_is_not_late(log: Log) -> None:
    """archive_wait_for_outcome = 1h"""
    one_captured(log)
    found = Run(log).done(waiting(THIRD, age=600))
    assert found.severity == monitoring.WARNING
    then = found.pending
    patient = Pending(then.queue, then.fallback, then.now, 3900)
    later = Result(found.totals, patient, found.since, found.until)
    assert later.severity == monitoring.OK


def test_a_copy_that_was_archived_before_and_waits_again_waits(log: Log) -> None:
    """It is stored, and the copy that is to be mailed is not out."""
    one_captured(log)
    assert only(Run(log).done(waiting(THIRD), kept=(ID,)))[0] == "waiting"


def test_a_copy_in_the_fallback_directory_is_rescued(log: Log) -> None:
    one_captured(log)
    log.say("pipe[5]", f"{THIRD}: {sent('archive', ASIDE)}")
    log.removed(THIRD)
    found = Run(log).done(fallback=(ID,))
    assert only(found)[0] == "rescued"
    assert found.severity == monitoring.WARNING


def test_a_copy_that_came_back_from_the_fallback_directory_is_archived(
    log: Log,
) -> None:
    one_captured(log)
    log.say("pipe[5]", f"{THIRD}: {sent('archive', ASIDE)}")
    log.removed(THIRD)
    assert Run(log).done(kept=(ID,)).summary()["archived"] == 1


def test_a_copy_that_was_deleted_is_missing_and_says_so(log: Log) -> None:
    one_captured(log)
    log.say("postsuper[9]", f"{THIRD}: removed")
    kind, cause = only(Run(log).done())
    assert kind == "missing"
    assert cause.endswith(f"its capsule {THIRD} was deleted by postsuper -d")


def test_a_copy_that_was_deleted_when_it_was_archived_is_archived(log: Log) -> None:
    one_captured(log)
    log.say("postsuper[9]", f"{THIRD}: removed")
    assert Run(log).done(kept=(ID,)).summary()["archived"] == 1


def test_mail_that_waits_for_the_filter_waits(log: Log) -> None:
    log.accepted(FIRST)
    found = Run(log).done(waiting(FIRST, "active"))
    assert only(found) == ("waiting", "not captured yet: later")


def test_mail_that_waits_on_a_way_around_the_archive_is_missing(log: Log) -> None:
    log.say("more/smtpd[7]", f"{FIRST}: client=localhost[127.0.0.1]")
    log.say("qmgr[3]", f"{FIRST}: from=<a@b.c>, size=3, nrcpt=1 (queue active)")
    assert only(Run(log).done(waiting(FIRST)))[0] == "missing"


def test_mail_that_is_nowhere_and_has_no_end_in_the_log_is_unclear(log: Log) -> None:
    log.accepted(FIRST)
    found = Run(log).done()
    assert found.summary()["unclear"] == 1
    assert found.severity == monitoring.WARNING
    assert any("do not match: 1 accepted" in each for each in found.text_lines())


def test_another_log_than_that_of_this_instance_is_said_to_be_wrong(log: Log) -> None:
    found = Run(log).done()
    assert found.severity == monitoring.WARNING
    assert any("no lines of this Postfix" in each for each in found.text_lines())


def test_only_what_came_in_the_time_counts(log: Log) -> None:
    log.accepted(FIRST)
    middle = log.now + 0.5
    log.accepted(SECOND, "b")
    one = Run(log, until=middle).done(waiting(FIRST), waiting(SECOND))
    two = Run(log, since=middle).done(waiting(FIRST), waiting(SECOND))
    assert [each.queue_id for each in one.totals.unarchived] == [FIRST]
    assert [each.queue_id for each in two.totals.unarchived] == [SECOND]


def test_messages_are_sorted_as_they_end_and_looked_up_in_between(log: Log) -> None:
    run = Run(log)
    one_captured(log)
    log.removed(THIRD)
    run.reckoning.add(log.later())
    assert [each.queue_id for each in run.reckoning.captured] == [FIRST]
    run.reckoning.confirm({ID})
    assert not run.reckoning.captured and not run.reckoning.unconfirmed()
    assert run.done().summary()["archived"] == 1


def test_what_is_not_found_at_first_is_looked_up_again(log: Log) -> None:
    """Its copy waited, and was archived when the rest of the log had been read."""
    run = Run(log)
    one_captured(log)
    log.removed(THIRD)
    run.reckoning.add(log.later())
    run.reckoning.confirm(set())
    assert [each.queue_id for each in run.reckoning.unconfirmed()] == [FIRST]
    assert run.done(kept=(ID,)).summary()["archived"] == 1


def test_a_hostile_sender_is_shown_on_one_line(log: Log) -> None:
    log.came(FIRST)
    sender = "x\x1b[2J\u2028\udcff@example.org"
    log.say("qmgr[3]", f"{FIRST}: from=<{sender}>, size=3, nrcpt=2 (queue active)")
    log.say("smtp[5]", f"{FIRST}: {sent('mx.example[192.0.2.1]:25', '250 ok')}")
    log.removed(FIRST)
    [line] = [each for each in Run(log).done().text_lines() if FIRST in each]
    assert line.isprintable() and line.encode()
    assert "  2 recipients  unexplained: sent to mx.example[192.0.2.1]:25" in line


def test_people_are_shown_the_first_of_very_many(log: Log) -> None:
    for number in range(MAX_SHOWN + 7):
        queue_id = f"4jZFG7{number:04d}zK5b4"
        log.accepted(queue_id, str(number))
        log.say("smtp[5]", f"{queue_id}: {sent('mx[192.0.2.1]:25', '250 ok')}")
        log.removed(queue_id)
    found = Run(log).done()
    assert list(found.text_lines())[-1] == "and 7 more: --json has them all"
    assert len(found.to_json()["messages"]) == MAX_SHOWN + 7
