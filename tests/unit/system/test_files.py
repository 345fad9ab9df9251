"""Claims about the one durable-write primitive."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from postfix_archive.errors import StoreFailed
from postfix_archive.system import files


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def draft_in(folder: Path, *pieces: bytes) -> files.Draft:
    draft = files.Draft(str(folder))
    for piece in pieces:
        draft.write(piece)
    draft.sync()
    return draft


def test_a_published_draft_has_its_bytes_and_its_name(tmp_path: Path) -> None:
    draft = draft_in(tmp_path, b"one ", b"", b"two")
    assert draft.size == 7
    draft.publish(f"{tmp_path}/kept")
    draft.discard()
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"one two"
    assert mode(tmp_path / "kept") == 0o600


def test_a_discarded_draft_leaves_nothing(tmp_path: Path) -> None:
    draft_in(tmp_path, b"x").discard()
    assert list(tmp_path.iterdir()) == []


def test_a_draft_may_be_discarded_when_its_folder_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "drafts"
    folder.mkdir()
    draft = draft_in(folder, b"x")
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()
    draft.discard()
    assert not folder.exists()


def test_an_existing_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"old")
    draft = draft_in(tmp_path, b"new")
    with pytest.raises(StoreFailed, match="kept"):
        draft.publish(f"{tmp_path}/kept")
    draft.discard()
    assert (tmp_path / "kept").read_bytes() == b"old"


def test_a_symlink_is_never_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").symlink_to(tmp_path / "elsewhere")
    draft = draft_in(tmp_path, b"new")
    with pytest.raises(StoreFailed):
        draft.publish(f"{tmp_path}/kept")
    draft.discard()
    assert not (tmp_path / "elsewhere").exists()


def test_two_drafts_have_two_names(tmp_path: Path) -> None:
    drafts = [draft_in(tmp_path, b"%d" % number) for number in range(20)]
    assert len(list(tmp_path.iterdir())) == 20
    for draft in drafts:
        draft.discard()


def test_a_draft_in_no_folder_is_a_failure_that_says_where_to_look(
    tmp_path: Path,
) -> None:
    with pytest.raises(StoreFailed, match="check its file system"):
        files.Draft(f"{tmp_path}/none")


def test_a_full_disk_is_a_failure_of_the_store() -> None:
    draft = files.Draft.__new__(files.Draft)
    draft._path = "/dev/full"
    draft._descriptor = os.open("/dev/full", os.O_WRONLY)
    draft.size = 0
    try:
        with pytest.raises(StoreFailed, match="No space left"):
            draft.write(b"x")
    finally:
        os.close(draft._descriptor)


def test_folders_are_made_with_all_above_for_their_owner_alone(tmp_path: Path) -> None:
    files.make_directory(f"{tmp_path}/a/b/c")
    assert mode(tmp_path / "a") == mode(tmp_path / "a/b/c") == 0o700
    files.make_directory(f"{tmp_path}/a/b/c")
    assert (tmp_path / "a/b/c").is_dir()


def test_a_file_in_the_way_of_a_folder_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StoreFailed, match="a/b"):
        files.make_directory(f"{tmp_path}/a/b")


def test_a_folder_that_is_not_there_cannot_be_synced(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="none"):
        files.sync_directory(f"{tmp_path}/none")


def test_new_folders_are_durable_with_all_above(
    tmp_path: Path, synced: list[str]
) -> None:
    (tmp_path / "other").mkdir()
    files.make_directory(f"{tmp_path}/a/b/c")
    assert set(synced) == {str(tmp_path), f"{tmp_path}/a", f"{tmp_path}/a/b"}


def test_folders_that_a_dead_run_has_made_are_durable_too(
    tmp_path: Path, synced: list[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "a/b/c").mkdir(parents=True)
    files.make_directory(f"{tmp_path}/a/b/c")
    assert synced == [f"{tmp_path}/a/b", f"{tmp_path}/a", str(tmp_path)]


def test_a_folder_in_use_is_not_synced_again(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").touch()
    files.make_directory(f"{tmp_path}/a")
    assert synced == []


# --- a file that is replaced ------------------------------------------------------


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "x.prom"
    before = os.umask(0o077)
    try:
        for content in (b"one", b"two"):
            files.replace(str(path), content, 0o644)
            assert (path.read_bytes(), mode(path)) == (content, 0o644)
    finally:
        os.umask(before)
    assert [each.name for each in tmp_path.iterdir()] == ["x.prom"]


def test_a_file_that_cannot_be_replaced_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.prom"
    files.replace(str(path), b"one", 0o644)

    def no_room(descriptor: int, content: bytes) -> None:
        os.write(descriptor, content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_all", no_room)
    with pytest.raises(StoreFailed, match="x.prom: No space left"):
        files.replace(str(path), b"two", 0o644)
    assert path.read_bytes() == b"one"
    assert [each.name for each in tmp_path.iterdir()] == ["x.prom"]


def test_who_reads_meanwhile_sees_a_whole_file_also_of_writers_that_are_killed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.prom"
    contents = {bytes([letter]) * 300_000 for letter in b"ab"}
    files.replace(str(path), min(contents), 0o644)
    for _ in range(10):
        writer = os.fork()
        if not writer:
            while True:
                for content in contents:
                    files.replace(str(path), content, 0o644)
        for _ in range(20):
            assert path.read_bytes() in contents
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        assert path.read_bytes() in contents


def test_a_draft_that_a_crash_has_left_goes_and_no_other(tmp_path: Path) -> None:
    names = (".x.prom.0123456789abcdef", ".y.prom.0123456789abcdef", ".x.prom.0")
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    long_ago = (tmp_path / names[0]).stat().st_mtime - files.STALE_DRAFT_AGE - 60
    for name in names[:2]:
        os.utime(tmp_path / name, (long_ago, long_ago))
    files.replace(f"{tmp_path}/x.prom", b"whole", 0o644)
    left = sorted(each.name for each in tmp_path.iterdir())
    assert left == sorted([*names[1:], "x.prom"])
