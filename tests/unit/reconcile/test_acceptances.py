"""Claims about accepted unarchived mail: it hides no other, and only root adds it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from postfix_archive import monitoring
from postfix_archive.errors import AcceptanceInvalid, NotRoot
from postfix_archive.reconcile import acceptances, causes
from postfix_archive.reconcile.acceptances import Acceptance, Pattern
from postfix_archive.reconcile.summary import Result

from unit.reconcile.test_log_scan import FIRST, SECOND, THIRD, ScannedLog, delivery_text
from unit.reconcile.test_totals import ReconcileRun

BASE_TIME = "2026-11-22T11:53:00Z"
# What amavisd-new sends to its own reinjection port, which has an empty content_filter.
NOTICE = Pattern("other-content-filter", "", "127.0.0.1", "postfix/more/smtpd")
OTHER_PATTERNS = (
    replace(NOTICE, sender="ann@example.org"),
    replace(NOTICE, client="192.0.2.7"),
    replace(NOTICE, service="postfix/smtpd"),
    replace(NOTICE, cause="filter-action"),
)


def accepted(pattern: Pattern = NOTICE, expires: str = "") -> Acceptance:
    return Acceptance(pattern, "amavis notices", "root", BASE_TIME, expires)


def log_notice(log: ScannedLog, queue_id: str, sender: str = "") -> None:
    """Say that a message came by the port of the other content filter."""
    client = "client=localhost[127.0.0.1]"
    log.add_line("more/smtpd[7]", f"{queue_id}: {client}")
    log.add_line("cleanup[2]", f"{queue_id}: message-id=<{queue_id}@example.org>")
    queued = f"from=<{sender}>, size=3, nrcpt=1 (queue active)"
    log.add_line("qmgr[3]", f"{queue_id}: {queued}")
    log.add_line("smtp[5]", f"{queue_id}: {delivery_text('mx[::1]:25', '250 ok')}")
    log.add_removed(queue_id)


def reconcile(log: ScannedLog, *accepted_patterns: Acceptance) -> Result:
    run = ReconcileRun(log)
    run.totals.acceptances = dict.fromkeys(accepted_patterns, 0)
    return run.finish()


def test_accepted_messages_are_counted_apart_and_are_no_error() -> None:
    log = ScannedLog()
    log_notice(log, FIRST)
    log_notice(log, SECOND)
    result = reconcile(log, accepted())
    summary = result.summary()
    assert (summary["missing"], summary["accepted_missing"]) == (0, 2)
    assert result.severity == monitoring.OK
    lines = list(result.text_lines())
    assert "accepted missing         2  2 amavis notices (by root)" in lines
    [shown] = result.to_json()["acceptances"]
    assert shown == {**accepted().to_json(), "messages": 2}
    assert {e["kind"] for e in result.to_json()["messages"]} == {"accepted_missing"}


@pytest.mark.parametrize("pattern", OTHER_PATTERNS)
def test_a_message_that_differs_in_one_value_is_missing(pattern: Pattern) -> None:
    log = ScannedLog()
    log_notice(log, FIRST)
    result = reconcile(log, accepted(pattern))
    assert result.summary()["missing"] == 1
    assert result.severity == monitoring.CRITICAL
    assert result.to_json()["acceptances"][0]["messages"] == 0


def test_only_messages_from_before_the_end_of_an_acceptance_are_covered() -> None:
    log = ScannedLog()
    log_notice(log, FIRST)
    ends = (BASE_TIME, "2100-01-01T00:00:00Z")
    counts = [reconcile(log, accepted(expires=end)).summary() for end in ends[1:]]
    assert counts[0]["missing"] == 0
    arrival = 1795348380.0  # BASE_TIME
    assert accepted(expires=BASE_TIME).covers(NOTICE, arrival - 1)
    assert not accepted(expires=BASE_TIME).covers(NOTICE, arrival)


@pytest.mark.parametrize(
    "cause",
    [
        *(causes.CAPSULE_MISSING, causes.DELETED, causes.EXPIRED),
        *(causes.UNEXPLAINED, causes.BYPASS_ON, causes.FOREIGN_REINJECTION),
    ],
)
def test_what_was_lost_or_sent_past_the_archive_cannot_be_accepted(cause: str) -> None:
    pattern = replace(NOTICE, cause=cause)
    assert acceptances.find([accepted(pattern)], pattern, 0) is None


def test_acceptances_are_kept_replaced_and_removed(tmp_path: Path) -> None:
    directory = str(tmp_path)
    assert acceptances.read(directory) == ()
    acceptances.add(directory, NOTICE, "first", None)
    acceptances.add(directory, OTHER_PATTERNS[0], "other", 1795348380.0)
    acceptances.add(directory, NOTICE, "second", None)
    kept = acceptances.read(directory)
    assert [(e.pattern, e.reason, e.expires) for e in kept] == [
        (OTHER_PATTERNS[0], "other", BASE_TIME),
        (NOTICE, "second", ""),
    ]
    assert acceptances.remove(directory, 1) == kept[0]
    assert acceptances.read(directory) == kept[1:]
    for number in (0, 2, -1):
        with pytest.raises(AcceptanceInvalid, match="--accepted lists them"):
            acceptances.remove(directory, number)


def test_only_root_may_accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NotRoot):
        acceptances.add(str(tmp_path), NOTICE, "mine", None)
    with pytest.raises(NotRoot):
        acceptances.remove(str(tmp_path), 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[1]", "[null]", '"x"', "1", "[{}]", "[[]]", '{"a": 1}'),
        json.dumps([{**accepted().to_json(), "sender": None}]),
        json.dumps([{**accepted().to_json(), "sender": 5}]),
        json.dumps([{**accepted().to_json(), "more": "x"}]),
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / acceptances.FILE_NAME).write_text(content)
    with pytest.raises(AcceptanceInvalid, match="archive.accepted: .*restore it"):
        acceptances.read(str(tmp_path))


def test_the_client_of_a_message_is_what_the_log_says_of_it() -> None:
    log = ScannedLog()
    log_notice(log, FIRST)
    log.add_line("pickup[4]", f"{SECOND}: uid=33 from=<www>")
    log.add_line("qmgr[3]", f"{SECOND}: from=<www@x>, size=3, nrcpt=1 (queue active)")
    log.add_removed(SECOND)
    log.add_line("smtpd[7]", f"{THIRD}: client=x[2001:db8::7], sasl_sender=a[1.2.3.4]")
    log.add_line("qmgr[3]", f"{THIRD}: from=<a@x>, size=3, nrcpt=1 (queue active)")
    log.add_removed(THIRD)
    found = {each.queue_id: each.client for each in log.remaining()}
    assert found == {FIRST: "127.0.0.1", SECOND: "uid=33", THIRD: "2001:db8::7"}
