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
from postfix_archive.status import overview, prometheus_text
from postfix_archive.status.overview import Backlog, FileSystem, Snapshot
from postfix_archive.store.bypass_period import BypassPeriod
from postfix_archive.store.tally import Tally

from unit.examples import LEGAL

ALERTS = Path(__file__).resolve().parents[3] / "contrib" / "prometheus-alerts.yml"
TIME = "2026-11-22T11:53:00Z"
NOTHING = {"queue": Backlog(), "fallback": Backlog(), "filter": Backlog()}
RUN = {
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
MARKS = {"\\": "\\", "n": "\n", '"': '"'}
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def tallied(**words: Any) -> Tally:
    found = Tally()
    for name, value in words.items():
        setattr(found, name, value)
    return found


def full(**known: Any) -> Snapshot:
    """A standing in which everything is known."""
    values: dict[str, Any] = {
        "directory": "/etc/postfix",
        "version": "0.1.0",
        "backlogs": {**NOTHING, "queue": Backlog(3, 700, TIME, "down", True)},
        "on_hold": {"4Zx": TIME},
        "bypass": BypassPeriod(TIME, "root", "disk"),
        "tallies": {LEGAL: tallied(messages=5, last_archived=TIME, waiting={"a"})},
        "store_errors": {"hr@example.com": "it cannot be read"},
        "file_systems": {
            "store": FileSystem(100, 50, 10, 5),
            "fallback": FileSystem(9, 8, 0, 0),
        },
        "reconcile_run": overview.parse_reconcile_run(RUN),
        "rescue_time": 1e9,
        "followed_until": 1e9,
    }
    return Snapshot(**{**values, **known})


def empty() -> Snapshot:
    return Snapshot("/etc/postfix", "0.1.0", NOTHING, {})


def read(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], int]:
    """Read the exposition format back, with no code of ours."""
    found = {}
    for line in text.split("\n")[:-1]:
        if line.startswith("# "):
            continue
        told = LINE.fullmatch(line)
        assert told, line
        name, labels, value = told.groups()
        pairs = tuple((key, plain(each)) for key, each in LABEL.findall(labels))
        assert (name, pairs) not in found, "no series twice"
        found[name, pairs] = int(value)
    return found


def plain(value: str) -> str:
    """A label's value without its escapes."""
    return re.sub(r'\\([\\n"])', lambda found: MARKS[found[1]], value)


def values(found: Snapshot, name: str) -> list[int]:
    told = read(prometheus_text.text(found))
    return [v for (n, _), v in told.items() if n == prometheus_text.PREFIX + name]


def test_every_number_there_is_is_told_with_help_and_type() -> None:
    text = prometheus_text.text(full())
    for name, (kind, told) in prometheus_text.FAMILIES.items():
        assert f"# HELP postfix_archive_{name} {told}\n" in text
        assert f"# TYPE postfix_archive_{name} {kind}\npostfix_archive_{name}" in text
        assert values(full(), name)


def test_what_only_grows_ends_in_total_and_nothing_else_does() -> None:
    for name, (kind, told) in prometheus_text.FAMILIES.items():
        assert name.endswith("_total") == (kind == prometheus_text.COUNTER)
        assert told.endswith(".") and told[0].isupper() | told[0].isdigit()


def test_what_is_not_known_is_left_out_and_never_nothing() -> None:
    text = prometheus_text.text(empty())
    for name in (
        "reconciled",
        "last_archived",
        "followed",
        "filesystem",
        "bypass_started",
    ):
        assert name not in text
    assert values(empty(), "bypass_on") == [0]
    assert values(empty(), "store_readable") == [1]


def test_a_file_system_without_inodes_is_not_without_room() -> None:
    assert values(full(), "filesystem_avail_bytes") == [50, 8]
    assert values(full(), "filesystem_avail_inodes") == [5]


def test_an_archive_that_cannot_be_read_is_told_of_and_not_empty() -> None:
    told = read(prometheus_text.text(full()))
    where = (("config_directory", "/etc/postfix"), ("archive", "hr@example.com"))
    assert told["postfix_archive_journal_readable", where] == 0
    assert ("postfix_archive_archived_messages_total", where) not in told
    assert values(full(), "store_readable") == [0]


def test_a_bypass_that_only_a_journal_lacks_is_not_on() -> None:
    ended = BypassPeriod(TIME, "root", "disk", TIME, "root")
    assert values(full(bypass=ended), "bypass_on") == [0]
    assert values(full(bypass=ended), "severity") == [monitoring.CRITICAL]


def test_outcomes_and_stamps_of_every_kind_are_there_from_the_first() -> None:
    assert len(values(full(), "outcomes_total")) == 7
    assert len(values(full(), "stamps_total")) == 4


@given(st.text(alphabet=st.characters(categories=("L", "P", "Z", "C", "S", "M"))))
def test_no_name_breaks_out_of_its_label(name: str) -> None:
    found = replace(full(), tallies={name: tallied(messages=7)}, directory=name)
    sound = name.encode("utf-8", "backslashreplace").decode()
    told = read(prometheus_text.text(found))
    where = (("config_directory", sound), ("archive", sound))
    assert told["postfix_archive_archived_messages_total", where] == 7


@pytest.mark.parametrize(
    "words",
    [
        None,
        [],
        {},
        {**RUN, "missing": "3"},
        {**RUN, "missing": True},
        {**RUN, "missing": -1},
        {**RUN, "time": "yesterday"},
        {**RUN, "time": "2026-11-22T11:53:00"},
        {**RUN, "time": 5},
        {**RUN, "since": 5},
        {k: v for k, v in RUN.items() if k != "accepted"},
    ],
)
def test_a_note_of_a_reconcile_run_of_another_form_is_none(words: object) -> None:
    assert overview.parse_reconcile_run(words) is None


def test_the_exit_code_says_how_bad_it_is() -> None:
    def code(**known: Any) -> int:
        return replace(empty(), **known).severity

    assert code() == monitoring.OK
    assert code(backlogs={**NOTHING, "queue": Backlog(1, 400)}) == monitoring.WARNING
    assert code(backlogs={**NOTHING, "queue": Backlog(1, 10)}) == monitoring.OK
    assert code(backlogs={**NOTHING, "fallback": Backlog(1, 1)}) == monitoring.WARNING
    assert code(backlogs={**NOTHING, "filter": Backlog(1, 400)}) == monitoring.CRITICAL
    assert code(reconcile_run=overview.parse_reconcile_run(RUN)) == monitoring.WARNING
    assert (
        code(reconcile_run=overview.parse_reconcile_run({**RUN, "missing": 0}))
        == monitoring.OK
    )
    assert code(store_errors={"": "away"}) == monitoring.CRITICAL
    assert code(tallies={LEGAL: tallied(damaged=1)}) == monitoring.CRITICAL


def test_every_alert_asks_for_numbers_that_there_are() -> None:
    asked = set(re.findall(r"\bpostfix_archive_(\w+)", ALERTS.read_text()))
    assert len(asked) > 10
    assert asked <= set(prometheus_text.FAMILIES)
