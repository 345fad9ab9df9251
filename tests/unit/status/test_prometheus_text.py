"""Claims about the numbers for Prometheus: well formed whatever a name has in it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive import monitoring
from postfix_archive.replicate import replication_lag
from postfix_archive.seal.seal_lag import SealState
from postfix_archive.search.index_lag import Lag
from postfix_archive.status import overview, prometheus_text
from postfix_archive.status.overview import Backlog, FileSystem, Snapshot
from postfix_archive.store.bypass_period import BypassPeriod
from postfix_archive.store.tally import Tally

from unit.examples import LEGAL

ALERTS = Path(__file__).resolve().parents[3] / "contrib" / "prometheus-alerts.yml"
TIME = "2026-11-22T11:53:00Z"
NO_BACKLOG = {"queue": Backlog(), "fallback": Backlog(), "filter": Backlog()}
RECONCILE_RUN = {
    "time": TIME,
    "since": None,
    "until": TIME,
    "accepted": 10,
    "archived": 7,
    "waiting": 1,
    "rescued": 0,
    "not_requested": 1,
    "missing": 1,
}
# https://prometheus.io/docs/instrumenting/exposition_formats/
LINE = re.compile(r'([a-z_]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\n"])*",?)+)\} (\d+)')
ESCAPES = {"\\": "\\", "n": "\n", '"': '"'}
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def make_tally(**fields: Any) -> Tally:
    tally = Tally()
    for name, value in fields.items():
        setattr(tally, name, value)
    return tally


def make_snapshot(**overrides: Any) -> Snapshot:
    """A standing in which everything is known."""
    values: dict[str, Any] = {
        "directory": "/etc/postfix",
        "version": "0.1.0",
        "backlogs": {**NO_BACKLOG, "queue": Backlog(3, 700, TIME, "down", True)},
        "on_hold": {"4Zx": TIME},
        "bypass": BypassPeriod(TIME, "root", "disk"),
        "tallies": {LEGAL: make_tally(messages=5, last_archived=TIME, waiting={"a"})},
        "store_errors": {"hr@example.com": "it cannot be read"},
        "file_systems": {
            "store": FileSystem(100, 50, 10, 5),
            "fallback": FileSystem(9, 8, 0, 0),
        },
        "reconcile_run": overview.parse_reconcile_run(RECONCILE_RUN),
        "rescue_time": 1e9,
        "followed_until": 1e9,
        "seal_state": SealState(TIME, TIME),
        "time": 2e9,
        "index_lags": {"legal@example.com": Lag(has_index=True, size=9, seconds=5.2)},
        "replication_lags": {"legal@example.com": replication_lag.Lag(9, 5.2, 1)},
    }
    return Snapshot(**{**values, **overrides})


def empty_snapshot() -> Snapshot:
    return Snapshot("/etc/postfix", "0.1.0", NO_BACKLOG, {})


def parse(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], int]:
    """Read the exposition format back, with no code of ours."""
    samples = {}
    for line in text.split("\n")[:-1]:
        if line.startswith("# "):
            continue
        match = LINE.fullmatch(line)
        assert match, line
        name, labels, value = match.groups()
        pairs = tuple((key, unescape(each)) for key, each in LABEL.findall(labels))
        assert (name, pairs) not in samples, "no series twice"
        samples[name, pairs] = int(value)
    return samples


def unescape(value: str) -> str:
    """A label's value without its escapes."""
    return re.sub(r'\\([\\n"])', lambda match: ESCAPES[match[1]], value)


def values_of(snapshot: Snapshot, name: str) -> list[int]:
    samples = parse(prometheus_text.text(snapshot))
    return [v for (n, _), v in samples.items() if n == prometheus_text.PREFIX + name]


def test_every_metric_has_help_and_type() -> None:
    text = prometheus_text.text(make_snapshot())
    for name, (kind, help_text) in prometheus_text.FAMILIES.items():
        assert f"# HELP postfix_archive_{name} {help_text}\n" in text
        assert f"# TYPE postfix_archive_{name} {kind}\npostfix_archive_{name}" in text
        assert values_of(make_snapshot(), name)


def test_what_only_grows_ends_in_total_and_nothing_else_does() -> None:
    for name, (kind, help_text) in prometheus_text.FAMILIES.items():
        assert name.endswith("_total") == (kind == prometheus_text.COUNTER)
        assert (
            help_text.endswith(".") and help_text[0].isupper() | help_text[0].isdigit()
        )


def test_what_is_not_known_is_left_out_and_never_nothing() -> None:
    text = prometheus_text.text(empty_snapshot())
    for name in (
        "reconciled",
        "last_archived",
        "followed",
        "filesystem",
        "bypass_started",
    ):
        assert name not in text
    assert values_of(empty_snapshot(), "bypass_on") == [0]
    assert values_of(empty_snapshot(), "store_readable") == [1]


def test_a_file_system_without_inodes_is_not_full() -> None:
    assert values_of(make_snapshot(), "filesystem_avail_bytes") == [50, 8]
    assert values_of(make_snapshot(), "filesystem_avail_inodes") == [5]


def test_an_unreadable_archive_is_reported_and_not_shown_as_empty() -> None:
    samples = parse(prometheus_text.text(make_snapshot()))
    labels = (("config_directory", "/etc/postfix"), ("archive", "hr@example.com"))
    assert samples["postfix_archive_journal_readable", labels] == 0
    assert ("postfix_archive_archived_messages_total", labels) not in samples
    assert values_of(make_snapshot(), "store_readable") == [0]


def test_a_bypass_that_only_a_journal_lacks_is_not_on() -> None:
    ended = BypassPeriod(TIME, "root", "disk", TIME, "root")
    assert values_of(make_snapshot(bypass=ended), "bypass_on") == [0]
    assert values_of(make_snapshot(bypass=ended), "severity") == [monitoring.CRITICAL]


def test_outcomes_and_stamps_of_every_kind_are_there_from_the_first() -> None:
    assert len(values_of(make_snapshot(), "outcomes_total")) == 7
    assert len(values_of(make_snapshot(), "stamps_total")) == 5


@given(st.text(alphabet=st.characters(categories=("L", "P", "Z", "C", "S", "M"))))
def test_no_name_breaks_out_of_its_label(name: str) -> None:
    snapshot = replace(
        make_snapshot(), tallies={name: make_tally(messages=7)}, directory=name
    )
    sound = name.encode("utf-8", "backslashreplace").decode()
    samples = parse(prometheus_text.text(snapshot))
    labels = (("config_directory", sound), ("archive", sound))
    assert samples["postfix_archive_archived_messages_total", labels] == 7


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        {},
        {**RECONCILE_RUN, "missing": "3"},
        {**RECONCILE_RUN, "missing": True},
        {**RECONCILE_RUN, "missing": -1},
        {**RECONCILE_RUN, "time": "yesterday"},
        {**RECONCILE_RUN, "time": "2026-11-22T11:53:00"},
        {**RECONCILE_RUN, "time": 5},
        {**RECONCILE_RUN, "since": 5},
        {k: v for k, v in RECONCILE_RUN.items() if k != "accepted"},
    ],
)
def test_a_note_of_a_reconcile_run_of_another_form_is_none(fields: object) -> None:
    assert overview.parse_reconcile_run(fields) is None


def test_the_exit_code_gives_the_severity() -> None:
    def code(**overrides: Any) -> int:
        return replace(empty_snapshot(), **overrides).severity

    assert code() == monitoring.OK
    assert code(backlogs={**NO_BACKLOG, "queue": Backlog(1, 400)}) == monitoring.WARNING
    assert code(backlogs={**NO_BACKLOG, "queue": Backlog(1, 10)}) == monitoring.OK
    assert (
        code(backlogs={**NO_BACKLOG, "fallback": Backlog(1, 1)}) == monitoring.WARNING
    )
    assert (
        code(backlogs={**NO_BACKLOG, "filter": Backlog(1, 400)}) == monitoring.CRITICAL
    )
    assert (
        code(reconcile_run=overview.parse_reconcile_run(RECONCILE_RUN))
        == monitoring.WARNING
    )
    assert (
        code(
            reconcile_run=overview.parse_reconcile_run({**RECONCILE_RUN, "missing": 0})
        )
        == monitoring.OK
    )
    assert code(store_errors={"": "away"}) == monitoring.CRITICAL
    assert code(tallies={LEGAL: make_tally(damaged=1)}) == monitoring.CRITICAL


def test_every_alert_uses_metrics_that_exist() -> None:
    metrics = set(re.findall(r"\bpostfix_archive_(\w+)", ALERTS.read_text()))
    assert len(metrics) > 10
    assert metrics <= set(prometheus_text.FAMILIES)
