"""Claims about the one durable-write primitive."""

from __future__ import annotations

import os
import posix
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from postfix_archive.errors import InstallFailed, StoreFailed
from postfix_archive.system import files
from postfix_archive.system.draft import Draft


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def make_draft(directory: Path, *pieces: bytes) -> Draft:
    draft = Draft(str(directory))
    for piece in pieces:
        draft.write(piece)
    draft.sync()
    return draft


def test_a_published_draft_has_its_bytes_and_its_name(tmp_path: Path) -> None:
    draft = make_draft(tmp_path, b"one ", b"", b"two")
    assert draft.size == 7
    draft.publish(f"{tmp_path}/kept")
    draft.discard()
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"one two"
    assert mode_of(tmp_path / "kept") == 0o600


def test_a_discarded_draft_leaves_nothing(tmp_path: Path) -> None:
    make_draft(tmp_path, b"x").discard()
    assert list(tmp_path.iterdir()) == []


def test_a_draft_may_be_discarded_when_its_directory_is_gone(tmp_path: Path) -> None:
    directory = tmp_path / "drafts"
    directory.mkdir()
    draft = make_draft(directory, b"x")
    for each in directory.iterdir():
        each.unlink()
    directory.rmdir()
    draft.discard()
    assert not directory.exists()


def test_an_existing_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"old")
    draft = make_draft(tmp_path, b"new")
    with pytest.raises(StoreFailed, match="kept"):
        draft.publish(f"{tmp_path}/kept")
    draft.discard()
    assert (tmp_path / "kept").read_bytes() == b"old"


def test_a_symlink_is_never_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").symlink_to(tmp_path / "elsewhere")
    draft = make_draft(tmp_path, b"new")
    with pytest.raises(StoreFailed):
        draft.publish(f"{tmp_path}/kept")
    draft.discard()
    assert not (tmp_path / "elsewhere").exists()


def test_two_drafts_have_two_names(tmp_path: Path) -> None:
    drafts = [make_draft(tmp_path, b"%d" % number) for number in range(20)]
    assert len(list(tmp_path.iterdir())) == 20
    for draft in drafts:
        draft.discard()


def test_a_draft_in_a_missing_directory_fails_with_its_path(
    tmp_path: Path,
) -> None:
    with pytest.raises(StoreFailed, match="check its file system"):
        Draft(f"{tmp_path}/none")


def test_a_full_disk_is_a_failure_of_the_store() -> None:
    draft = Draft.__new__(Draft)
    draft.path = "/dev/full"
    draft._descriptor = os.open("/dev/full", os.O_WRONLY)
    draft.size = 0
    try:
        with pytest.raises(StoreFailed, match="No space left"):
            draft.write(b"x")
    finally:
        os.close(draft._descriptor)


def test_directories_are_made_with_their_parents_for_their_owner_alone(
    tmp_path: Path,
) -> None:
    files.make_directory(f"{tmp_path}/a/b/c")
    assert mode_of(tmp_path / "a") == mode_of(tmp_path / "a/b/c") == 0o700
    files.make_directory(f"{tmp_path}/a/b/c")
    assert (tmp_path / "a/b/c").is_dir()


def test_a_file_in_place_of_a_directory_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StoreFailed, match="a/b"):
        files.make_directory(f"{tmp_path}/a/b")


def test_a_missing_directory_cannot_be_synced(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="none"):
        files.sync_directory(f"{tmp_path}/none")


def test_new_directories_are_durable_with_their_parents(
    tmp_path: Path, synced_paths: list[str]
) -> None:
    (tmp_path / "other").mkdir()
    files.make_directory(f"{tmp_path}/a/b/c")
    assert set(synced_paths) == {str(tmp_path), f"{tmp_path}/a", f"{tmp_path}/a/b"}


def test_directories_that_a_dead_process_has_made_are_durable_too(
    tmp_path: Path, synced_paths: list[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "a/b/c").mkdir(parents=True)
    files.make_directory(f"{tmp_path}/a/b/c")
    assert synced_paths == [f"{tmp_path}/a/b", f"{tmp_path}/a", str(tmp_path)]


def test_a_directory_in_use_is_not_synced_again(
    tmp_path: Path, synced_paths: list[str]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").touch()
    files.make_directory(f"{tmp_path}/a")
    assert synced_paths == []


# --- a file that is replaced ------------------------------------------------------


def test_a_file_is_replaced_atomically_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "x.prom"
    before = os.umask(0o077)
    try:
        for content in (b"one", b"two"):
            files.replace(str(path), content, 0o644)
            assert (path.read_bytes(), mode_of(path)) == (content, 0o644)
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


def test_a_reader_sees_a_complete_file_even_of_writers_that_are_killed(
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


def test_a_draft_that_a_crash_has_left_is_removed_and_no_other(tmp_path: Path) -> None:
    names = (".x.prom.0123456789abcdef", ".y.prom.0123456789abcdef", ".x.prom.0")
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    long_ago = (tmp_path / names[0]).stat().st_mtime - files.STALE_DRAFT_AGE - 60
    for name in names[:2]:
        os.utime(tmp_path / name, (long_ago, long_ago))
    files.replace(f"{tmp_path}/x.prom", b"whole", 0o644)
    remaining_names = sorted(each.name for each in tmp_path.iterdir())
    assert remaining_names == sorted([*names[1:], "x.prom"])


# --- what every writer of a whole file relies on ------------------------------------

WRITERS: dict[str, Callable[[str], object]] = {
    "replace": lambda path: files.replace(path, b"new", 0o644),
    "create": lambda path: files.create(path, b"new"),
    "symlink": lambda path: files.replace_symlink(path, "new"),
}
CALLS = ("open", "write", "fchmod", "fsync", "link", "symlink", "rename", "unlink")


def content(path: Path) -> str | None:
    """What a file has, where a symlink leads; None if there is nothing."""
    if path.is_symlink():
        return os.readlink(path)
    return path.read_text() if path.exists() else None


def crash(writer: str, path: Path, call: str) -> bool:
    """Run a writer in a process that dies in place of a system call; is it called?"""
    child = os.fork()
    if not child:
        setattr(posix, call, lambda *_, **__: os._exit(9))
        WRITERS[writer](str(path))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_crash_at_any_step_leaves_the_old_file_or_the_new_and_at_most_a_draft(
    tmp_path: Path, writer: str, call: str
) -> None:
    path = tmp_path / "main.cf"
    if writer == "replace":
        path.write_bytes(b"old")
    before = content(path)
    has_crashed = crash(writer, path, call)
    assert content(path) in (before, "new")
    assert has_crashed or content(path) == "new"
    drafts = [each for each in tmp_path.iterdir() if each != path]
    assert len(drafts) <= has_crashed
    for draft in drafts:
        os.utime(draft, (1, 1), follow_symlinks=False)
    path.unlink(missing_ok=True)
    WRITERS[writer](str(path))
    assert [each.name for each in tmp_path.iterdir()] == ["main.cf"]
    assert content(path) == "new"


def test_only_names_of_drafts_are_removed(tmp_path: Path) -> None:
    others = {".main.cf.swp", ".main.cf.bak", ".main.cf.0123456789abcdeg", "main.cf~"}
    drafts = {".main.cf.0123456789abcdef", ".main.cf.0123456789abcdef.db"}
    for name in others | drafts:
        (tmp_path / name).touch()
    assert files.remove_drafts(str(tmp_path), float("inf"), "main.cf") == len(drafts)
    assert {each.name for each in tmp_path.iterdir()} == others


def test_the_caller_says_which_exception_a_failure_is(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    nowhere = f"{tmp_path}/none/x"
    for fail in (
        lambda: files.replace(f"{tmp_path}/x", b"", failure=InstallFailed),
        lambda: files.replace(nowhere, b"", failure=InstallFailed),
        lambda: files.create(nowhere, b"", failure=InstallFailed),
        lambda: files.replace_symlink(nowhere, "y", failure=InstallFailed),
        lambda: files.sync_directory(nowhere, InstallFailed),
    ):
        with pytest.raises(InstallFailed, match="/x: .*; check its file system"):
            fail()
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_a_file_is_created_once(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert files.create(str(path), b"one")
    assert not files.create(str(path), b"two")
    assert (path.read_bytes(), mode_of(path)) == (b"one", 0o600)
    path.unlink()
    path.symlink_to("elsewhere")
    assert not files.create(str(path), b"two")
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


def test_a_file_can_take_over_mode_and_attributes_of_another(tmp_path: Path) -> None:
    model, path = tmp_path / "model", tmp_path / "x"
    model.touch()
    model.chmod(0o640)
    try:
        os.setxattr(model, "user.colour", b"red")
    except OSError:
        pytest.skip("no extended attributes in this file system")
    files.replace(str(path), b"x", 0o600, like=str(model))
    assert (mode_of(path), os.getxattr(path, "user.colour")) == (0o640, b"red")
    files.replace(str(path), b"x", 0o600, like=f"{tmp_path}/none")
    assert (mode_of(path), os.listxattr(path)) == (0o600, [])


def test_a_whole_file_is_synced_before_its_name_and_a_note_is_not(
    tmp_path: Path, synced_paths: list[str]
) -> None:
    files.replace(f"{tmp_path}/x", b"x", is_durable=False)
    assert synced_paths == []
    files.replace(f"{tmp_path}/x", b"x")
    draft, directory = synced_paths
    assert (draft.rpartition(".")[0], directory) == (f"{tmp_path}/.x", str(tmp_path))


def test_a_touch_creates_a_file_or_sets_its_time_and_follows_nothing(
    tmp_path: Path,
) -> None:
    path, link, fifo = (tmp_path / name for name in ("x", "link", "fifo"))
    files.touch(str(path))
    assert mode_of(path) == 0o600
    os.utime(path, (1, 1))
    link.symlink_to(path)
    os.mkfifo(fifo)
    for name in (str(link), str(fifo), f"{tmp_path}/none/x"):
        files.touch(name)
    assert path.stat().st_mtime == 1
    files.touch(str(path))
    assert path.stat().st_mtime > 1
