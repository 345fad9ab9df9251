"""The end of a bypass, where a journal cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from postfix_archive.bypass import switch
from postfix_archive.store import journal
from postfix_archive.store.bypass_period import BypassPeriod

import journal_lines
from unit.examples import make_settings

PERIOD = BypassPeriod("2026-11-22T11:53:00Z", "root", "the filter is broken")


def test_a_journal_that_stays_locked_is_named_and_the_others_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switch, "LOCK_TIMEOUT", 0.0)
    settings = make_settings(
        f"archive_store_directory = {tmp_path}\n"
        f"archive_fallback_directory = {tmp_path}/fallback\n"
    )
    names = ("a@example.com", "b@example.com")
    for name in names:
        (tmp_path / name).mkdir()
    with journal.Journal(str(tmp_path / names[0])):
        failures = switch._append_events(
            settings, journal.BYPASS_STARTED, PERIOD, names
        )
    assert list(failures) == [names[0]]
    assert f"{names[0]}/journal: locked for 0 s" in failures[names[0]]
    lines = journal_lines.segment(tmp_path / names[1]).read_text().splitlines()
    assert len(lines) == 2  # the first one begins the segment
