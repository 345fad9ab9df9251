"""Claims about symlinks, hard links and pipes in our directories.

All of them need the rights of the archive's own user, whose directories are closed to
everybody else (mode 0700). What counts is that root's commands, which look into these
directories, cannot be led astray, and that no mail is taken for archived.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postfix_archive.config.settings import Settings
from postfix_archive.errors import JournalFailed, RecordDamaged, StoreFailed
from postfix_archive.rescue import queue_rescue
from postfix_archive.store import fallback, journal_format, record_reader
from postfix_archive.store.archive import Archive
from postfix_archive.system import files, spool

import journal_lines
from unit import examples
from unit.examples import KEYS, LEGAL, MESSAGE, make_envelope
from unit.message.test_capsule import make_preamble
from unit.store.test_archive import NAME, Capture, archived_files, kinds, record

CAPSULE = make_preamble(make_envelope(), KEYS) + MESSAGE
OUTSIDE_CONTENT = b"This is somebody else's.\n"


@pytest.fixture
def outside_directory(tmp_path: Path) -> Path:
    """A directory of somebody else's, with a file in it."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "file").write_bytes(OUTSIDE_CONTENT)
    return directory


@pytest.fixture
def archived_store(tmp_path: Path) -> Path:
    """A store with one message."""
    Capture().store_in(tmp_path / "store")
    return tmp_path / "store"


def untouched(outside: Path) -> bool:
    names = [each.name for each in outside.iterdir()]
    return names == ["file"] and (outside / "file").read_bytes() == OUTSIDE_CONTENT


def other_capture() -> Capture:
    """Another message of the same day."""
    return Capture(message=MESSAGE + b"more\r\n", archive_id="20261122-" + "b2" * 20)


# --- the store ----------------------------------------------------------------------


@pytest.mark.parametrize("below", ["drafts", "2026", "2026/11", "2026/11/22"])
def test_an_archive_directory_that_is_a_link_is_refused(
    archived_store: Path, outside_directory: Path, below: str
) -> None:
    directory = archived_store / LEGAL / below
    directory.rename(archived_store / "aside")
    directory.symlink_to(outside_directory)
    with pytest.raises(StoreFailed, match=f"{below}: not a directory"):
        other_capture().store_in(archived_store)
    assert untouched(outside_directory)
    assert kinds(archived_store) == ["archived"]


@pytest.mark.parametrize("target", ["outside/file", "nowhere", "copy"])
def test_a_file_of_the_store_that_is_a_link_is_refused(
    tmp_path: Path, outside_directory: Path, target: str
) -> None:
    """Also where it leads to a true copy: that lies outside."""
    Capture().store_in(tmp_path / "store")
    path = tmp_path / "store" / LEGAL / NAME
    path.rename(tmp_path / "copy")
    path.symlink_to(tmp_path / target)
    with pytest.raises(StoreFailed, match="not a regular file"):
        Capture(b"eve@example.com").store_in(tmp_path / "store")
    with pytest.raises(StoreFailed, match="not a regular file"):
        Archive(str(tmp_path / "store"), LEGAL).has_copy(NAME[11:-7])
    assert untouched(outside_directory)


def test_the_store_and_an_archive_directory_may_be_on_another_disk(
    tmp_path: Path,
) -> None:
    for name in ("disk", "second"):
        (tmp_path / name).mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / LEGAL).symlink_to(tmp_path / "second")
    Capture().store_in(tmp_path / "store")
    assert (tmp_path / "second" / NAME).is_file()


def test_an_archive_whose_disk_is_away_fails_as_the_store_does(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / LEGAL).symlink_to(tmp_path / "away")
    with pytest.raises(StoreFailed, match=f"{LEGAL}: No such file"):
        Capture().store_in(tmp_path / "store")


def test_a_fifo_in_place_of_a_copy_does_not_block(archived_store: Path) -> None:
    path = archived_store / LEGAL / NAME
    damaged_record = record(archived_store)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreFailed, match="not a regular file"):
        list(record_reader.archive_copy(str(archived_store), damaged_record))


def test_a_journal_that_names_a_file_outside_is_damaged(archived_store: Path) -> None:
    damaged_record = record(archived_store)
    damaged_record.files = ["../../outside/file"]
    with pytest.raises(RecordDamaged, match="no valid file name in the journal"):
        list(record_reader.archive_copy(str(archived_store), damaged_record))


# --- the journal --------------------------------------------------------------------


def test_a_journal_that_is_a_hard_link_is_not_written(
    archived_store: Path, outside_directory: Path
) -> None:
    path = journal_lines.segment(archived_store / LEGAL)
    path.unlink()
    os.link(outside_directory / "file", path)
    with pytest.raises(JournalFailed, match="link count is not 1"):
        other_capture().store_in(archived_store)
    assert untouched(outside_directory)


def test_a_journal_that_is_a_symlink_or_a_pipe_is_not_read(
    archived_store: Path, outside_directory: Path
) -> None:
    path = journal_lines.segment(archived_store / LEGAL)
    path.unlink()
    path.symlink_to(outside_directory / "file")
    with pytest.raises(JournalFailed):
        list(record_reader.records(str(archived_store), LEGAL))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(JournalFailed, match="not a regular file"):
        list(record_reader.records(str(archived_store), LEGAL))


@pytest.mark.parametrize("link", [os.symlink, os.link, lambda _, at: os.mkfifo(at)])
@pytest.mark.parametrize("name", ["journal.last", "journal.last.draft"])
def test_the_note_of_the_last_line_is_written_nowhere_else(
    archived_store: Path, outside_directory: Path, name: str, link: object
) -> None:
    assert callable(link)
    path = archived_store / LEGAL / name
    path.unlink(missing_ok=True)
    link(outside_directory / "file", path)
    other_capture().store_in(archived_store)
    assert untouched(outside_directory)
    assert journal_format.read_last_number(f"{archived_store / LEGAL}/journal") == 3
    assert not (archived_store / LEGAL / "journal.last").is_symlink()


def test_drafts_are_removed_in_their_directory_only(archived_store: Path) -> None:
    (archived_store / LEGAL / "drafts").rmdir()
    (archived_store / LEGAL / "drafts").symlink_to(
        archived_store / LEGAL / "2026/11/22"
    )
    assert files.remove_drafts(f"{archived_store}/{LEGAL}/drafts", cutoff=1e12) == 0
    assert archived_files(archived_store) == [NAME]


# --- the fallback directory ---------------------------------------------------------


def put_capsule(directory: Path) -> str:
    message = spool.Spool()
    message.add(CAPSULE, "")
    return fallback.put(str(directory), message, "the store is full")


def fallback_settings(directory: Path) -> Settings:
    return examples.make_settings(f"archive_fallback_directory = {directory}\n")


def test_the_same_capsule_twice_is_one_file(tmp_path: Path) -> None:
    assert put_capsule(tmp_path) == put_capsule(tmp_path)
    [(_, path)] = fallback.waiting_capsules(str(tmp_path))
    assert Path(path).read_bytes() == CAPSULE


@pytest.mark.parametrize(
    "content", [OUTSIDE_CONTENT, b"", CAPSULE[:-1], CAPSULE + b"x"]
)
def test_another_file_under_a_capsules_name_is_not_taken_for_it(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / put_capsule(tmp_path)
    path.write_bytes(content)
    with pytest.raises(
        StoreFailed, match="SHA-256 of the capsule differs from its file name"
    ):
        put_capsule(tmp_path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("target", ["outside/file", "nowhere", "capsule"])
def test_a_symlink_under_a_capsules_name_is_not_taken_for_it(
    tmp_path: Path, outside_directory: Path, target: str
) -> None:
    directory = tmp_path / "fallback"
    path = directory / put_capsule(directory)
    path.rename(tmp_path / "capsule")
    path.symlink_to(tmp_path / target)
    with pytest.raises(StoreFailed, match="not a regular file"):
        put_capsule(directory)
    with pytest.raises(StoreFailed):
        fallback.open_capsule(str(path))
    assert untouched(outside_directory)


def test_a_drafts_directory_that_is_a_link_is_refused(
    tmp_path: Path, outside_directory: Path
) -> None:
    directory = tmp_path / "fallback"
    directory.mkdir()
    (directory / "drafts").symlink_to(outside_directory)
    with pytest.raises(StoreFailed, match="drafts: not a directory"):
        put_capsule(directory)
    assert untouched(outside_directory)


def test_a_symlink_to_nowhere_hides_no_capsule(tmp_path: Path) -> None:
    put_capsule(tmp_path)
    (tmp_path / "x.capsule").symlink_to(tmp_path / "nowhere")
    assert len(fallback.waiting_capsules(str(tmp_path))) == 2


def test_a_fifo_in_place_of_a_capsule_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.capsule")
    with pytest.raises(StoreFailed, match="not a regular file"):
        fallback.open_capsule(str(tmp_path / "x.capsule"))


def test_the_reason_is_read_and_written_nowhere_else(
    tmp_path: Path, outside_directory: Path
) -> None:
    directory = tmp_path / "fallback"
    directory.mkdir()
    (directory / "why").symlink_to(outside_directory / "file")
    assert fallback.last_reason(str(directory)) == ""
    put_capsule(directory)
    assert fallback.last_reason(str(directory)) == "the store is full"
    assert untouched(outside_directory)
    (directory / "why").unlink()
    os.mkfifo(directory / "why")
    assert fallback.last_reason(str(directory)) == ""


def test_the_note_of_a_rescue_is_made_nowhere_else(
    tmp_path: Path, outside_directory: Path
) -> None:
    settings = fallback_settings(tmp_path)
    (tmp_path / "rescued").symlink_to(outside_directory / "file")
    os.utime(outside_directory / "file", (1, 1))
    os.utime(tmp_path / "rescued", (2, 2), follow_symlinks=False)
    assert queue_rescue.last_run_age(settings, now=12.0) == 10
    queue_rescue.record_run(settings)
    assert (outside_directory / "file").stat().st_mtime == 1
    (tmp_path / "rescued").unlink()
    os.mkfifo(tmp_path / "rescued")
    queue_rescue.record_run(settings)
