"""Claims about writers of one archive that are at work at the same time.

A writer holds the lock of the journal neither while its copy gets its name nor while
the disk takes its line. What others do in these moments is done here from within.
"""

from __future__ import annotations

import errno
import os
import posix
from collections.abc import Callable
from pathlib import Path

import pytest

from postfix_archive.errors import JournalFailed
from postfix_archive.store import copy_file, journal, journal_format, verifier

import journal_lines
from unit.examples import ARCHIVE_ID, LEGAL
from unit.store.test_archive import (
    BOB,
    EVE,
    NAME,
    TIME,
    Capture,
    assert_committed,
    drafts,
    events,
    finals,
    journal_path,
    kinds,
    record,
)

OTHER_ID = "20261122-" + "b2" * 20
Action = Callable[[], object]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A store with one message."""
    Capture(archive_id="20261122-" + "c3" * 20).store_in(tmp_path)
    return tmp_path


def before_the_line_is_durable(
    monkeypatch: pytest.MonkeyPatch, directory: Path, action: Action
) -> None:
    """Do something once, before the next fsync of the journal."""
    fsync, pending = os.fsync, [action]

    def act_and_fsync(descriptor: int) -> None:
        is_line = os.readlink(f"/proc/self/fd/{descriptor}") == f"{path}"
        if is_line and pending:
            pending.pop()()
        fsync(descriptor)

    path = journal_path(directory)
    monkeypatch.setattr(posix, "fsync", act_and_fsync)


def before_the_lock(monkeypatch: pytest.MonkeyPatch, action: Action) -> None:
    """Do something once, before the next writer locks the journal."""
    lock, pending = journal.Journal.lock, [action]

    def act_and_lock(journal_file: journal.Journal) -> None:
        if pending:
            pending.pop()()
        lock(journal_file)

    monkeypatch.setattr(journal.Journal, "lock", act_and_lock)


def append_event(directory: Path, event: str, archive_id: str) -> None:
    """Append an event, without waiting for a lock."""
    path = str(directory / LEGAL)
    with journal.Journal(path, lock_timeout=0) as journal_file:
        journal_file.append(event, TIME, id=archive_id)


def fail() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def assert_verified(directory: Path) -> None:
    assert verifier.verify_archive(str(directory / LEGAL)).findings == []


def test_others_append_while_a_writer_waits_for_the_disk(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Capture(archive_id=OTHER_ID)
    before_the_line_is_durable(
        monkeypatch, directory, lambda: other.store_in(directory)
    )
    assert Capture().store_in(directory) == {"archived"}
    assert [each["id"] for each in events(directory)][1:] == [ARCHIVE_ID, OTHER_ID]
    assert_committed(directory)
    assert_verified(directory)
    last_number = journal_format.read_last_number(f"{directory}/{LEGAL}/journal")
    assert last_number == events(directory)[-1]["seq"]  # that of the other one


def test_a_failed_fsync_leaves_a_line_that_the_retry_makes_durable(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may have followed it, so it is not truncated."""

    def lose() -> None:
        Capture(archive_id=OTHER_ID).store_in(directory)
        journal_lines.strike_out(path, 2)  # what must not come back
        struck_out.append(path.read_bytes())
        fail()

    path, struck_out = journal_path(directory), [b""]
    before_the_line_is_durable(monkeypatch, directory, lose)
    written_again: list[bytes] = []
    pwrite = os.pwrite

    def record_pwrite(descriptor: int, content: bytes, offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}") == f"{path}":
            written_again.append(content)
        return pwrite(descriptor, content, offset)

    monkeypatch.setattr(posix, "pwrite", record_pwrite)
    capture = Capture()
    with pytest.raises(JournalFailed, match="Input/output error"):
        capture.store_in(directory)
    assert path.read_bytes() == struck_out[1]
    assert written_again == [struck_out[1].splitlines(keepends=True)[2]]
    assert (directory / LEGAL / NAME).stat().st_mode & 0o200
    assert not drafts(directory)
    assert capture.store_in(directory) == {"archived"}
    assert not (directory / LEGAL / NAME).stat().st_mode & 0o200
    assert kinds(directory)[1:] == ["archived", "archived"]  # no second line


def test_a_removal_meanwhile_stays_marked(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that looks committed would be taken for one that has its record."""

    def remove() -> None:
        copy_file.mark_removable([f"{directory}/{LEGAL}/{NAME}"])
        append_event(directory, journal.PURGED, ARCHIVE_ID)

    before_the_line_is_durable(monkeypatch, directory, remove)
    assert Capture().store_in(directory) == {"archived"}
    assert (directory / LEGAL / NAME).stat().st_mode & 0o200
    assert Capture(EVE).store_in(directory) == {"archived"}  # anew
    assert kinds(directory)[1:] == ["archived", "purged", "archived"]


def test_the_removal_of_another_message_meanwhile_is_none(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_line_is_durable(
        monkeypatch,
        directory,
        lambda: append_event(directory, journal.PURGED, OTHER_ID),
    )
    Capture().store_in(directory)
    assert_committed(directory)


def test_a_file_that_a_removal_took_along_is_published_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had no line yet, as one that a crash has left."""
    before_the_lock(monkeypatch, (directory / LEGAL / NAME).unlink)
    assert Capture().store_in(directory) == {"archived"}
    assert_committed(directory)
    assert_verified(directory)


@pytest.mark.parametrize("address", [BOB, EVE])
def test_whoever_comes_first_commits_the_copy_of_the_other(
    directory: Path, monkeypatch: pytest.MonkeyPatch, address: bytes
) -> None:
    """The same capsule twice is one event, another piece is a supplement."""
    other = Capture(address)
    before_the_lock(monkeypatch, lambda: other.store_in(directory))
    assert Capture(BOB).store_in(directory) == {"archived"}
    assert kinds(directory)[1:] == ["archived", "supplement"][: 1 + (address == EVE)]
    assert_committed(directory)
    assert finals(record(directory)) == {BOB, address}
    assert_verified(directory)


def test_a_copy_published_before_the_lock_is_not_taken_for_the_own(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First a removal takes the own file away, then another one has its place."""

    def replace() -> None:
        (directory / LEGAL / NAME).unlink()
        Capture(EVE).store_in(directory)

    before_the_lock(monkeypatch, replace)
    assert Capture(BOB).store_in(directory) == {"supplement"}
    assert kinds(directory)[1:] == ["archived", "supplement"]
    assert_committed(directory)
    assert_verified(directory)
