"""Claims about what the archive has: of a journal only what matters is read."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from postfix_archive.config import settings
from postfix_archive.config.settings import Settings
from postfix_archive.errors import JournalFailed
from postfix_archive.message import capsule, dates
from postfix_archive.message.envelope import Envelope
from postfix_archive.reconcile import archive_lookup
from postfix_archive.status import collect
from postfix_archive.store import journal_reader
from postfix_archive.store.bypass_period import BypassPeriod
from postfix_archive.store.journal import Journal

from unit.examples import ARCHIVE_ID, KEYS, LEGAL, NOW, envelope_of
from unit.store.test_archive import NAME, Capture

OTHER_ID = "20261122-" + "b2" * 20
DAY = 86400


def having(folder: Path, *, delivery: str = "store") -> Settings:
    """The settings of an instance with store and fallback directory in a folder."""
    text = (
        f"archive_store_directory = {folder}\narchive_delivery = {delivery}\n"
        f"archive_fallback_directory = {folder}\n"
    )
    return settings.parse(text, path="x", config_directory="/", myhostname="m.x")


def kept(folder: Path, *ids: str, begin: float = NOW, end: float = NOW) -> set[str]:
    return archive_lookup.ids_in_journals(having(folder), ids, begin, end)


def test_what_was_archived_is_found_by_its_id(tmp_path: Path) -> None:
    Capture().kept_in(tmp_path)
    assert kept(tmp_path, ARCHIVE_ID, OTHER_ID) == {ARCHIVE_ID}
    assert kept(tmp_path, OTHER_ID) == set()
    assert kept(tmp_path) == set()


def test_a_store_that_is_empty_or_not_there_has_nothing(tmp_path: Path) -> None:
    assert kept(tmp_path, ARCHIVE_ID) == set()
    (tmp_path / LEGAL).mkdir()
    assert kept(tmp_path, ARCHIVE_ID) == set()


def test_without_a_store_no_journal_is_read(tmp_path: Path) -> None:
    Capture().kept_in(tmp_path)
    without = having(tmp_path, delivery="mail")
    assert archive_lookup.ids_in_journals(without, [ARCHIVE_ID], NOW, NOW) == set()


def test_what_was_added_to_a_record_is_found_by_the_id_of_its_capture(
    tmp_path: Path,
) -> None:
    """A capture that came back with our stamp is a supplement to the first one."""
    sealed = envelope_of(archive_id=OTHER_ID)
    add(tmp_path, NOW, event="supplement", sealed=sealed)
    assert kept(tmp_path, OTHER_ID) == {ARCHIVE_ID, OTHER_ID}


def add(
    folder: Path, at: float, *, event: str = "archived", sealed: Envelope | None = None
) -> None:
    """Write a line into the journal."""
    text = capsule.unseal(
        capsule.make_preamble(sealed or envelope_of(), KEYS, sender=b"a@b.c", now=NOW),
        KEYS,
    ).fields
    (folder / LEGAL).mkdir(exist_ok=True)
    with Journal(str(folder / LEGAL)) as journal:
        words: dict[str, str | int] = {
            "id": ARCHIVE_ID,
            "file": NAME,
            "sha256": "0" * 64,
            "size": 5,
            "stamp": "valid",
            "envelope": text.decode("ascii"),
        }
        journal.append(event, dates.format_rfc3339(at), **words)


@pytest.mark.parametrize("event", ["mailed", "outcome", "bypass-started"])
def test_other_events_archive_nothing(tmp_path: Path, event: str) -> None:
    add(tmp_path, NOW, event=event)
    assert kept(tmp_path, ARCHIVE_ID) == set()


def test_a_torn_line_archives_nothing(tmp_path: Path) -> None:
    Capture().kept_in(tmp_path)
    path = tmp_path / LEGAL / "journal"
    path.write_bytes(path.read_bytes()[:-40])
    assert kept(tmp_path, ARCHIVE_ID) == set()


def test_bypass_periods_are_those_of_journals_and_the_current_one(
    tmp_path: Path,
) -> None:
    start = BypassPeriod(dates.format_rfc3339(NOW), "root", "ticket 17")
    (tmp_path / LEGAL).mkdir()
    with Journal(str(tmp_path / LEGAL)) as journal:
        journal.append("bypass-started", start.started, **start.to_json())
        end = replace(start, ended=dates.format_rfc3339(NOW + 60), ended_by="root")
        journal.append("bypass-ended", end.ended, **end.to_json())
    [found] = archive_lookup.bypass_periods(str(tmp_path), having(tmp_path), NOW - DAY)
    assert found == end
    assert found.contains(NOW) and found.contains(NOW + 60)
    assert not found.contains(NOW - 1) and not found.contains(NOW + 61)
    later = replace(start, started=dates.format_rfc3339(NOW + 90))
    fields = {**later.to_json(), "unrecorded_start": []}
    (tmp_path / "archive.bypass").write_text(json.dumps(fields))
    found = archive_lookup.bypass_periods(str(tmp_path), having(tmp_path), NOW - DAY)[1]
    assert found == later and found.contains(NOW + DAY)


def test_the_note_of_a_run_is_what_status_reads(tmp_path: Path) -> None:
    words = {
        "time": dates.format_rfc3339(NOW),
        "since": "a",
        "until": "b",
        "accepted": 5,
    }
    kinds = ("archived", "waiting", "rescued", "not_requested", "missing")
    archive_lookup.save_summary(
        having(tmp_path), {**words, **dict.fromkeys(kinds, 1), "unclear": 0}
    )
    [name] = os.listdir(tmp_path)
    assert os.stat(tmp_path / name).st_mode & 0o777 == 0o600
    found = collect._reconcile_run(f"{tmp_path}/{name}")
    assert found is not None
    assert (found.time, found.counts["missing"]) == (NOW, 1)


# --- a time of a journal --------------------------------------------------------------


def long_journal(folder: Path, count: int) -> Path:
    """A journal with a line a minute, the first at NOW."""
    path = folder / "journal"
    with path.open("w") as journal:
        for number in range(count):
            time = dates.format_rfc3339(NOW + 60 * number)
            line = f'{{"seq":{number},"time":"{time}","event":"x","pad":"{"x" * 400}"}}'
            journal.write(f"{line}\n")
    return path


def numbers(path: Path, begin: float, end: float | None = None) -> list[int]:
    found = journal_reader.lines_between(str(path), begin, end)
    return [int(each.content[7:].partition(b",")[0]) for each in found]


def test_just_the_lines_of_a_time_are_read(tmp_path: Path) -> None:
    path = long_journal(tmp_path, 3000)
    slack = int(journal_reader.CLOCK_SLACK) // 60
    asked = numbers(path, NOW + 60 * 1000, NOW + 60 * 1010)
    assert asked == list(range(1000 - slack, 1010 + slack + 1))
    assert numbers(path, NOW + 60 * 2990) == list(range(2990 - slack, 3000))
    assert numbers(path, NOW - DAY) == list(range(3000))
    assert numbers(path, NOW + DAY * 9) == []


def test_lines_that_are_none_hide_none(tmp_path: Path) -> None:
    path = long_journal(tmp_path, 3000)
    lines = path.read_bytes().splitlines(keepends=True)
    for number in range(0, 3000, 7):
        lines[number] = b"\0" * len(lines[number][:-1]) + b"\n"
    path.write_bytes(b"".join(lines))
    expected = [number for number in range(1000, 3000) if number % 7]
    assert numbers(path, NOW + 60 * 1000 + journal_reader.CLOCK_SLACK) == expected


def test_a_journal_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "journal").symlink_to("/etc/passwd")
    with pytest.raises(JournalFailed, match="journal"):
        numbers(tmp_path / "journal", NOW)
