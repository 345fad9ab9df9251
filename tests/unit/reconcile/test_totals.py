"""Claims about the reckoning: each message counts once, and the numbers add up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postfix_archive import monitoring
from postfix_archive.postfix.queued_message import QueuedMessage
from postfix_archive.reconcile.causes import Classifier
from postfix_archive.reconcile.summary import MAX_SHOWN, Result
from postfix_archive.reconcile.totals import Pending, Totals

from unit.reconcile.test_causes import config_with_services
from unit.reconcile.test_log_scan import (
    FIRST,
    ID,
    OTHER_ID,
    SECOND,
    THIRD,
    ScannedLog,
    delivery_text,
    filter_delivery,
    log_capsule,
)

MORE_SERVICE = (
    "2525 inet n - n - - smtpd -o syslog_name=postfix/more -o content_filter=\n"
)
FALLBACK_DELIVERY = (
    f"delivered via archive service (id={ID} alarm=fallback reason=full)"
)


def waiting(queue_id: str, queue: str = "deferred", age: int = 60) -> QueuedMessage:
    return QueuedMessage(
        queue_id, age, "ann@example.org", ("bob@x",), ("later",), "", queue
    )


class ReconcileRun:
    """A run of reconcile over a log, with what queue, fallback and journals have."""

    def __init__(
        self,
        log: ScannedLog,
        since: float = 0,
        until: float = 1e12,
        archive_begin: float = 0,
    ) -> None:
        self.log = log
        self.classifier = Classifier(
            config_with_services(MORE_SERVICE), (), log.scan.archiving_processes
        )
        self.totals = Totals(
            log.scan, self.classifier, since, until, archive_begin=archive_begin
        )

    def finish(
        self,
        *queue: QueuedMessage,
        archived_ids: tuple[str, ...] = (),
        fallback: tuple[str, ...] = (),
    ) -> Result:
        """Return what is found; the parts add up."""
        fallback_times = dict.fromkeys(fallback, self.log.now - 60)
        pending = Pending(
            {each.queue_id: each for each in queue}, fallback_times, self.log.now
        )
        self.totals.add_remaining(pending)
        self.totals.finish(pending, set(archived_ids))
        result = Result(self.totals, pending, 0, self.log.now)
        json_fields = result.to_json()
        kinds = (
            *("archived", "waiting", "rescued", "not_requested", "missing"),
            "accepted_missing",
        )
        parts = sum(json_fields[kind] for kind in (*kinds, "unclear"))
        assert parts == json_fields["accepted"]
        assert len(json_fields["messages"]) == sum(
            json_fields[k] for k in kinds[1:]
        ) - (json_fields["not_requested"])
        return result


@pytest.fixture
def log() -> ScannedLog:
    return ScannedLog()


def log_captured_message(log: ScannedLog) -> None:
    """Say that one message was captured, and its copy is on its way."""
    log.add_accepted(FIRST)
    log.add_reinjected(SECOND, FIRST)
    log_capsule(log, THIRD)
    log.add_line("pipe[5]", f"{FIRST}: {filter_delivery()}")
    log.add_removed(FIRST, SECOND)


def only_message(result: Result) -> tuple[str, str]:
    """Return kind and cause of the one message that is not archived."""
    [case] = result.totals.unarchived
    return case.verdict.kind, case.verdict.explanation


def test_what_a_journal_has_is_archived(log: ScannedLog) -> None:
    log_captured_message(log)
    log.add_removed(THIRD)
    result = ReconcileRun(log).finish(archived_ids=(ID,))
    assert result.summary()["archived"] == 1
    assert result.severity == monitoring.OK
    assert "Totals match." in list(result.text_lines())


def test_the_log_alone_is_not_believed(log: ScannedLog) -> None:
    log_captured_message(log)
    delivered = delivery_text(
        "archive", f"delivered via archive service (id={ID} result=stored)"
    )
    log.add_line("pipe[5]", f"{THIRD}: {delivered}")
    log.add_removed(THIRD)
    result = ReconcileRun(log).finish(archived_ids=(OTHER_ID,))
    kind, cause = only_message(result)
    assert kind == "missing"
    searched = "neither journal, queue nor fallback directory has it"
    assert cause == f"captured as {ID}, but {searched}"
    assert result.severity == monitoring.CRITICAL


def test_without_a_store_what_left_as_mail_is_archived() -> None:
    log = ScannedLog(stores=False)
    log_captured_message(log)
    delivered = delivery_text(
        "archive", f"delivered via archive service (id={ID} result=stored)"
    )
    log.add_line("pipe[5]", f"{THIRD}: {delivered}")
    log.add_removed(THIRD)
    assert ReconcileRun(log).finish().summary()["archived"] == 1


def test_a_copy_in_the_queue_waits(log: ScannedLog) -> None:
    log_captured_message(log)
    result = ReconcileRun(log).finish(waiting(THIRD))
    assert only_message(result) == ("waiting", f"capsule {THIRD} waits: later")
    [case] = result.totals.unarchived
    assert (case.queue, case.waiting_since) == ("deferred", log.now - 60)
    assert result.severity == monitoring.OK


def test_what_waits_long_is_late(log: ScannedLog) -> None:
    log_captured_message(log)
    assert (
        ReconcileRun(log).finish(waiting(THIRD, age=600)).severity == monitoring.WARNING
    )


def test_a_copy_that_waits_for_the_outcome_is_not_late(log: ScannedLog) -> None:
    """archive_wait_for_outcome = 1h"""
    log_captured_message(log)
    result = ReconcileRun(log).finish(waiting(THIRD, age=600))
    assert result.severity == monitoring.WARNING
    then = result.pending
    patient = Pending(then.queue, then.fallback, then.now, 3900)
    later = Result(result.totals, patient, result.since, result.until)
    assert later.severity == monitoring.OK


def test_a_copy_that_was_archived_before_and_waits_again_waits(log: ScannedLog) -> None:
    """It is stored, and the copy that is to be mailed is not out."""
    log_captured_message(log)
    assert (
        only_message(ReconcileRun(log).finish(waiting(THIRD), archived_ids=(ID,)))[0]
        == "waiting"
    )


def test_a_copy_in_the_fallback_directory_is_rescued(log: ScannedLog) -> None:
    log_captured_message(log)
    log.add_line("pipe[5]", f"{THIRD}: {delivery_text('archive', FALLBACK_DELIVERY)}")
    log.add_removed(THIRD)
    result = ReconcileRun(log).finish(fallback=(ID,))
    assert only_message(result)[0] == "rescued"
    assert result.severity == monitoring.WARNING


def test_a_copy_that_came_back_from_the_fallback_directory_is_archived(
    log: ScannedLog,
) -> None:
    log_captured_message(log)
    log.add_line("pipe[5]", f"{THIRD}: {delivery_text('archive', FALLBACK_DELIVERY)}")
    log.add_removed(THIRD)
    assert ReconcileRun(log).finish(archived_ids=(ID,)).summary()["archived"] == 1


def test_a_copy_that_was_deleted_is_missing_with_that_cause(log: ScannedLog) -> None:
    log_captured_message(log)
    log.add_line("postsuper[9]", f"{THIRD}: removed")
    kind, cause = only_message(ReconcileRun(log).finish())
    assert kind == "missing"
    assert cause.endswith(f"its capsule {THIRD} was deleted by postsuper -d")


def test_a_copy_that_was_deleted_when_it_was_archived_is_archived(
    log: ScannedLog,
) -> None:
    log_captured_message(log)
    log.add_line("postsuper[9]", f"{THIRD}: removed")
    assert ReconcileRun(log).finish(archived_ids=(ID,)).summary()["archived"] == 1


def test_mail_that_waits_for_the_filter_waits(log: ScannedLog) -> None:
    log.add_accepted(FIRST)
    result = ReconcileRun(log).finish(waiting(FIRST, "active"))
    assert only_message(result) == ("waiting", "not captured yet: later")


def test_mail_that_waits_on_a_route_around_the_archive_is_missing(
    log: ScannedLog,
) -> None:
    log.add_line("more/smtpd[7]", f"{FIRST}: client=localhost[127.0.0.1]")
    log.add_line("qmgr[3]", f"{FIRST}: from=<a@b.c>, size=3, nrcpt=1 (queue active)")
    assert only_message(ReconcileRun(log).finish(waiting(FIRST)))[0] == "missing"


def test_mail_that_is_nowhere_and_has_no_end_in_the_log_is_unclear(
    log: ScannedLog,
) -> None:
    log.add_accepted(FIRST)
    result = ReconcileRun(log).finish()
    assert result.summary()["unclear"] == 1
    assert result.severity == monitoring.WARNING
    assert any("do not match: 1 accepted" in each for each in result.text_lines())


def test_the_log_of_another_instance_is_reported_as_wrong(log: ScannedLog) -> None:
    result = ReconcileRun(log).finish()
    assert result.severity == monitoring.WARNING
    assert any("no lines of this Postfix" in each for each in result.text_lines())


def test_only_what_came_in_the_time_counts(log: ScannedLog) -> None:
    log.add_accepted(FIRST)
    middle = log.now + 0.5
    log.add_accepted(SECOND, "b")
    before_middle = ReconcileRun(log, until=middle).finish(
        waiting(FIRST), waiting(SECOND)
    )
    after_middle = ReconcileRun(log, since=middle).finish(
        waiting(FIRST), waiting(SECOND)
    )
    assert [each.queue_id for each in before_middle.totals.unarchived] == [FIRST]
    assert [each.queue_id for each in after_middle.totals.unarchived] == [SECOND]


def test_messages_are_sorted_as_they_end_and_looked_up_in_between(
    log: ScannedLog,
) -> None:
    run = ReconcileRun(log)
    log_captured_message(log)
    log.add_removed(THIRD)
    run.totals.add(log.pop_finished())
    assert [each.queue_id for each in run.totals.captured] == [FIRST]
    run.totals.confirm({ID})
    assert not run.totals.captured and not run.totals.unconfirmed()
    assert run.finish().summary()["archived"] == 1


def test_what_is_not_found_at_first_is_looked_up_again(log: ScannedLog) -> None:
    """Its copy waited, and was archived when the rest of the log had been read."""
    run = ReconcileRun(log)
    log_captured_message(log)
    log.add_removed(THIRD)
    run.totals.add(log.pop_finished())
    run.totals.confirm(set())
    assert [each.queue_id for each in run.totals.unconfirmed()] == [FIRST]
    assert run.finish(archived_ids=(ID,)).summary()["archived"] == 1


def test_a_hostile_sender_is_shown_on_one_line(log: ScannedLog) -> None:
    log.add_client(FIRST)
    sender = "x\x1b[2J\u2028\udcff@example.org"
    log.add_line("qmgr[3]", f"{FIRST}: from=<{sender}>, size=3, nrcpt=2 (queue active)")
    log.add_line(
        "smtp[5]", f"{FIRST}: {delivery_text('mx.example[192.0.2.1]:25', '250 ok')}"
    )
    log.add_removed(FIRST)
    [line] = [each for each in ReconcileRun(log).finish().text_lines() if FIRST in each]
    assert line.isprintable() and line.encode()
    origin = "  2 recipients  127.0.0.1  postfix/smtpd"
    assert f"{origin}  unexplained: sent to mx.example[192.0.2.1]:25" in line


def test_the_text_shows_the_first_of_very_many(log: ScannedLog) -> None:
    for number in range(MAX_SHOWN + 7):
        queue_id = f"4jZFG7{number:04d}zK5b4"
        log.add_accepted(queue_id, str(number))
        log.add_line(
            "smtp[5]", f"{queue_id}: {delivery_text('mx[192.0.2.1]:25', '250 ok')}"
        )
        log.add_removed(queue_id)
    result = ReconcileRun(log).finish()
    assert list(result.text_lines())[-1] == "and 7 more: --json has them all"
    assert len(result.to_json()["messages"]) == MAX_SHOWN + 7


def test_a_log_that_ends_before_archived_mail_is_no_good_news(log: ScannedLog) -> None:
    log_captured_message(log)
    result = ReconcileRun(log).finish(archived_ids=(ID,))
    assert log.scan.last_line_time == log.now
    assert result.severity == monitoring.OK
    stale = replace(result, arrival_after_log=log.now + 3600)
    assert stale.severity == monitoring.WARNING
    text = "\n".join(stale.text_lines())
    assert "The log ends before mail that was archived at 2026-" in text
    assert "Totals match." not in text
    assert stale.to_json()["archived_after_log"].startswith("2026-")
    assert result.to_json()["archived_after_log"] is None


def test_mail_from_before_the_installation_is_told_and_not_missing(
    log: ScannedLog,
) -> None:
    log.add_accepted(THIRD)
    log.add_line("smtp[5]", f"{THIRD}: {delivery_text('mx[192.0.2.1]:25', '250 ok')}")
    log.add_removed(THIRD)
    log.now += 60
    begin = log.now
    log_captured_message(log)
    result = ReconcileRun(log, archive_begin=begin).finish(archived_ids=(ID,))
    assert (result.totals.accepted, result.totals.before_archive) == (1, 1)
    assert result.severity == monitoring.OK
    assert "1 messages were accepted before the archive was installed" in "\n".join(
        result.text_lines()
    )
    assert result.to_json()["before_archive"] == 1


@pytest.mark.parametrize("evidence", ["captured", "failed", "reinjected"])
def test_what_has_met_the_stamp_filter_is_never_from_before(
    log: ScannedLog, evidence: str
) -> None:
    if evidence == "captured":
        log_captured_message(log)
    elif evidence == "failed":
        log.add_accepted(FIRST)
        failed = filter_delivery().replace("status=sent", "status=deferred")
        log.add_line("pipe[5]", f"{FIRST}: {failed}")
        log.add_line("postsuper[1]", f"{FIRST}: removed")
    else:
        log.add_reinjected(FIRST)
        log.add_removed(FIRST)
    result = ReconcileRun(log, archive_begin=log.now + 60).finish()
    assert (result.totals.before_archive, result.totals.counts["missing"]) == (0, 1)
