"""Claims about what the archive has: of a journal only what matters is read."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from postfix_archive.config import settings
from postfix_archive.config.settings import Settings
from postfix_archive.errors import JournalFailed, StoreFailed
from postfix_archive.message import capsule, dates
from postfix_archive.message.envelope import Envelope
from postfix_archive.postfix import mail_queue
from postfix_archive.reconcile import archive_lookup
from postfix_archive.status import collect
from postfix_archive.store import fallback, journal_reader
from postfix_archive.store.bypass_period import BypassPeriod
from postfix_archive.store.journal import Journal

import journal_lines
from unit.examples import ARCHIVE_ID, KEYS, LEGAL, NOW, make_envelope
from unit.store.test_archive import NAME, Capture

OTHER_ID = "20261122-" + "b2" * 20
DAY = 86400


def make_settings(directory: Path, *, delivery: str = "store") -> Settings:
    """The settings of an instance with store and fallback directory in a directory."""
    text = (
        f"archive_store_directory = {directory}\narchive_delivery = {delivery}\n"
        f"archive_fallback_directory = {directory}\n"
    )
    return settings.parse(text, path="x", config_directory="/", myhostname="m.x")


def archived_ids(
    directory: Path, *ids: str, start: float = NOW, end: float = NOW
) -> set[str]:
    return archive_lookup.ids_in_journals(make_settings(directory), ids, start, end)


def test_what_was_archived_is_found_by_its_id(tmp_path: Path) -> None:
    Capture().store_in(tmp_path)
    assert archived_ids(tmp_path, ARCHIVE_ID, OTHER_ID) == {ARCHIVE_ID}
    assert archived_ids(tmp_path, OTHER_ID) == set()
    assert archived_ids(tmp_path) == set()


def test_a_store_that_is_empty_or_not_there_has_nothing(tmp_path: Path) -> None:
    assert archived_ids(tmp_path, ARCHIVE_ID) == set()
    (tmp_path / LEGAL).mkdir()
    assert archived_ids(tmp_path, ARCHIVE_ID) == set()


def test_a_capsule_that_is_imported_after_the_listing_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a file that the archive's user has planted."""
    names = ("gone", "symlink", "pipe", "capsule")
    paths = {each: tmp_path / f"{each}.capsule" for each in names}
    paths["symlink"].symlink_to("/etc/passwd")
    os.mkfifo(paths["pipe"])
    paths["capsule"].write_bytes(b"Message-Id: <%s.capsule@x>\r\n" % b"")
    waiting = [(1.0, str(each)) for each in paths.values()]
    monkeypatch.setattr(fallback, "waiting_capsules", lambda directory: waiting)
    monkeypatch.setattr(mail_queue, "list_messages", lambda directory, limit: [])
    pending = archive_lookup.pending("/", make_settings(tmp_path))
    assert set(pending.fallback) == {str(paths[each]) for each in names[1:]}


def test_a_capsule_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Else its message would be reported as missing."""
    with pytest.raises(StoreFailed, match="Not a directory"):
        archive_lookup._capsule_id("/etc/hostname/x.capsule")


def test_without_a_store_no_journal_is_read(tmp_path: Path) -> None:
    Capture().store_in(tmp_path)
    without = make_settings(tmp_path, delivery="mail")
    assert archive_lookup.ids_in_journals(without, [ARCHIVE_ID], NOW, NOW) == set()


def test_what_was_added_to_a_record_is_found_by_the_id_of_its_capture(
    tmp_path: Path,
) -> None:
    """A capture that came back with our stamp is a supplement to the first one."""
    envelope = make_envelope(archive_id=OTHER_ID)
    add_event(tmp_path, NOW, event="supplement", envelope=envelope)
    assert archived_ids(tmp_path, OTHER_ID) == {ARCHIVE_ID, OTHER_ID}


def add_event(
    directory: Path,
    time: float,
    *,
    event: str = "archived",
    envelope: Envelope | None = None,
) -> None:
    """Write a line into the journal."""
    text = capsule.unseal(
        capsule.make_preamble(
            envelope or make_envelope(), KEYS, sender=b"a@b.c", now=NOW
        ),
        KEYS,
    ).fields
    (directory / LEGAL).mkdir(exist_ok=True)
    with Journal(str(directory / LEGAL)) as journal:
        fields: dict[str, str | int] = {
            "id": ARCHIVE_ID,
            "file": NAME,
            "sha256": "0" * 64,
            "size": 5,
            "stamp": "valid",
            "envelope": text.decode("ascii"),
        }
        journal.append(event, dates.format_rfc3339(time), **fields)


@pytest.mark.parametrize("event", ["mailed", "outcome", "bypass-started"])
def test_other_events_archive_nothing(tmp_path: Path, event: str) -> None:
    add_event(tmp_path, NOW, event=event)
    assert archived_ids(tmp_path, ARCHIVE_ID) == set()


def test_a_torn_line_archives_nothing(tmp_path: Path) -> None:
    Capture().store_in(tmp_path)
    path = journal_lines.segment(tmp_path / LEGAL)
    path.write_bytes(path.read_bytes()[:-40])
    assert archived_ids(tmp_path, ARCHIVE_ID) == set()


def test_bypass_periods_are_those_of_journals_and_the_current_one(
    tmp_path: Path,
) -> None:
    start = BypassPeriod(dates.format_rfc3339(NOW), "root", "ticket 17")
    (tmp_path / LEGAL).mkdir()
    with Journal(str(tmp_path / LEGAL)) as journal:
        journal.append("bypass-started", start.started, **start.to_json())
        end = replace(start, ended=dates.format_rfc3339(NOW + 60), ended_by="root")
        journal.append("bypass-ended", end.ended, **end.to_json())
    [periods] = archive_lookup.bypass_periods(
        str(tmp_path), make_settings(tmp_path), NOW - DAY
    )
    assert periods == end
    assert periods.contains(NOW) and periods.contains(NOW + 60)
    assert not periods.contains(NOW - 1) and not periods.contains(NOW + 61)
    later = replace(start, started=dates.format_rfc3339(NOW + 90))
    fields = {**later.to_json(), "unrecorded_start": []}
    (tmp_path / "archive.bypass").write_text(json.dumps(fields))
    periods = archive_lookup.bypass_periods(
        str(tmp_path), make_settings(tmp_path), NOW - DAY
    )[1]
    assert periods == later and periods.contains(NOW + DAY)


def test_the_note_of_a_run_is_what_status_reads(tmp_path: Path) -> None:
    fields = {
        "time": dates.format_rfc3339(NOW),
        "since": "a",
        "until": "b",
        "accepted": 5,
    }
    kinds = ("archived", "waiting", "rescued", "not_requested", "missing")
    archive_lookup.save_summary(
        make_settings(tmp_path), {**fields, **dict.fromkeys(kinds, 1), "unclear": 0}
    )
    [name] = os.listdir(tmp_path)
    assert os.stat(tmp_path / name).st_mode & 0o777 == 0o600
    run = collect._reconcile_run(f"{tmp_path}/{name}")
    assert run is not None
    assert (run.time, run.counts["missing"]) == (NOW, 1)


# --- a time of a journal --------------------------------------------------------------


def long_journal(directory: Path, count: int) -> Path:
    """A journal with a line a minute, the first at NOW."""
    path = journal_lines.segment(directory)
    path.parent.mkdir()
    with path.open("w") as journal:
        for number in range(count):
            time = dates.format_rfc3339(NOW + 60 * number)
            line = f'{{"seq":{number},"time":"{time}","event":"x","pad":"{"x" * 400}"}}'
            journal.write(f"{line}\n")
    return path


def numbers_between(path: Path, start: float, end: float | None = None) -> list[int]:
    lines = journal_reader.lines_between(str(path.parent), start, end)
    return [int(each.content[7:].partition(b",")[0]) for each in lines]


def test_just_the_lines_of_a_time_are_read(tmp_path: Path) -> None:
    path = long_journal(tmp_path, 3000)
    slack_minutes = int(journal_reader.CLOCK_SLACK) // 60
    selected = numbers_between(path, NOW + 60 * 1000, NOW + 60 * 1010)
    assert selected == list(range(1000 - slack_minutes, 1010 + slack_minutes + 1))
    assert numbers_between(path, NOW + 60 * 2990) == list(
        range(2990 - slack_minutes, 3000)
    )
    assert numbers_between(path, NOW - DAY) == list(range(3000))
    assert numbers_between(path, NOW + DAY * 9) == []


def test_lines_that_are_none_hide_none(tmp_path: Path) -> None:
    path = long_journal(tmp_path, 3000)
    lines = path.read_bytes().splitlines(keepends=True)
    for number in range(0, 3000, 7):
        lines[number] = b"\0" * len(lines[number][:-1]) + b"\n"
    path.write_bytes(b"".join(lines))
    expected = [number for number in range(1000, 3000) if number % 7]
    assert (
        numbers_between(path, NOW + 60 * 1000 + journal_reader.CLOCK_SLACK) == expected
    )


def test_a_journal_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "journal").symlink_to("/etc/passwd")
    with pytest.raises(JournalFailed, match="journal"):
        numbers_between(tmp_path / "journal/2026-11", NOW)


def test_the_archive_knows_since_when_it_archives(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    text = f"archive_store_directory = {tmp_path}\narchive_key_file = {key_file}\n"
    known = settings.parse(text, path="x", config_directory="/", myhostname="m.x")
    assert archive_lookup.archive_begin(known) == 0.0
    Capture().store_in(tmp_path)
    Capture(message=b"Subject: x\r\n\r\n", arrival=NOW + 9).store_in(tmp_path)
    assert archive_lookup.archive_begin(known) == NOW
    key_file.touch()
    for key_time, begin in ((NOW - 60, NOW - 60), (NOW + 60, NOW)):  # made, rotated
        os.utime(key_file, (key_time, key_time))
        assert archive_lookup.archive_begin(known) == begin
