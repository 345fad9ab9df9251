"""The one durable-write primitive, and the opening of files that must be ours.

Used by all of back that writes. A file is a draft until it is published: then its
bytes, its name and every folder above it are on the disk. Foreign errors leave as
StoreFailed, but for write_all() and opened(), whose callers name the file.
"""

from __future__ import annotations

import posix as os  # os itself costs a door 1.2 ms
import time
from _stat import S_ISDIR, S_ISREG

from postfix_archive.core.errors import StoreFailed

FOLDER_MODE = 0o700
DRAFT_MODE = 0o600
KEPT_MODE = 0o400
_durable: set[str] = set()  # folders that this process has found to be there to stay
LEFT = 3600  # seconds after which nobody writes a draft any more that takes a moment


class Draft:
    """A file being written that counts for nothing until it is published."""

    __slots__ = ("_descriptor", "_name", "size")

    def __init__(self, folder: str) -> None:
        self._name = f"{folder}/{os.getpid()}-{os.urandom(8).hex()}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(self._name, flags, DRAFT_MODE)
        except OSError as problem:
            raise failed(self._name, problem) from problem
        self.size = 0

    def write(self, content: bytes) -> None:
        """Append content."""
        try:
            write_all(self._descriptor, content)
        except OSError as problem:
            raise failed(self._name, problem) from problem
        self.size += len(content)

    def sync(self) -> None:
        """Make the bytes durable."""
        try:
            os.fsync(self._descriptor)
        except OSError as problem:
            raise failed(self._name, problem) from problem

    def publish(self, name: str) -> None:
        """Give the synced file its name, durably; an existing one is never replaced."""
        try:
            os.link(self._name, name, follow_symlinks=False)
            sync_folder(above(name))
        except OSError as problem:
            raise failed(name, problem) from problem

    def discard(self) -> None:
        """Take the draft's own name away; a published file keeps its bytes."""
        try:
            os.close(self._descriptor)
            os.unlink(self._name)
        except OSError:
            pass  # an old draft counts for nothing


def opened(path: str) -> int:
    """Open a file to be read; return the descriptor. Raises OSError.

    Only a regular file, which no symlink and no pipe can stand for.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags)
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no regular file")
    return descriptor


def is_file(path: str) -> bool:
    """Tell whether there is a regular file; raises StoreFailed for anything else."""
    mode = _mode(path)
    if mode and not S_ISREG(mode):
        raise failed(path, OSError(0, "it is no regular file"))
    return bool(mode)


def is_folder(path: str) -> bool:
    """Tell whether there is a folder; raises StoreFailed for anything else."""
    mode = _mode(path)
    if mode and not S_ISDIR(mode):
        raise failed(path, OSError(0, "it is no folder"))
    return bool(mode)


def is_there(path: str) -> bool:
    """Tell whether anything stands there, be it a link that leads nowhere."""
    try:
        return bool(os.lstat(path))
    except OSError:
        return False


def above(path: str) -> str:
    """Return the folder that a name is in."""
    return path.rpartition("/")[0] or "/"


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte of content, however little the system takes at a time."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def make_folder(path: str) -> None:
    """Make a folder and what is missing above it, durably, for its owner alone."""
    try:
        os.mkdir(path, FOLDER_MODE)
    except FileExistsError:
        if path in _durable or not _is_new(path, 0):
            _durable.add(path)
            return
    except FileNotFoundError:
        make_folder(above(path))
        make_folder(path)
        return
    except OSError as problem:
        raise failed(path, problem) from problem
    sync_above(path)


def sync_above(path: str) -> None:
    """Make a name durable, and those of the folders above it that may be as new.

    Whoever made them may have died before that.
    """
    parent = above(path)
    sync_folder(parent)
    if _is_new(parent, 1):
        sync_above(parent)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise failed(path, problem) from problem


def _is_new(folder: str, most: int) -> bool:
    """Tell whether a folder holds at most so many names."""
    try:
        with os.scandir(folder) as names:
            return sum(1 for _ in zip(names, range(most + 1))) <= most
    except OSError as problem:
        raise failed(folder, problem) from problem


def replace(path: str, content: bytes, mode: int) -> None:
    """Write a file whole, durably, or not at all; there is never half of one.

    The draft is in the same folder, under a name that nobody can foresee. Raises
    StoreFailed.
    """
    folder, _, name = path.rpartition("/")
    draft = f"{folder}/.{name}.{os.urandom(8).hex()}"
    _sweep_drafts(folder, f".{name}.")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(draft, flags, DRAFT_MODE)
        try:
            write_all(descriptor, content)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
            os.rename(draft, path)
        except OSError:
            os.unlink(draft)
            raise
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise failed(path, problem) from problem
    sync_folder(folder)


def _sweep_drafts(folder: str, beginning: str) -> None:
    """Remove the drafts of a file that a crash has left."""
    try:
        for each in list(os.scandir(folder)):
            if each.name.startswith(beginning):
                if each.stat(follow_symlinks=False).st_mtime < time.time() - LEFT:
                    os.unlink(each.path)
    except OSError:
        pass  # tried again next time


def sweep(folder: str, before: float) -> int:
    """Remove drafts last written before a time (Unix); return how many.

    A draft never counts: what was published from it has a name of its own.
    """
    removed = 0
    try:
        if is_folder(folder):
            for each in list(os.scandir(folder)):
                if each.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(each.path)
                    removed += 1
    except (OSError, StoreFailed):
        pass  # there is none, or it is tried again next time
    return removed


def _mode(path: str) -> int:
    """Return what stands there, itself and not what it leads to; 0 for nothing."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0
    except OSError as problem:
        raise failed(path, problem) from problem


def failed(path: str, problem: OSError) -> StoreFailed:
    """Return our error for a foreign one: what, where, and whom to look at."""
    return StoreFailed(
        f"{path}: {problem.strerror}; look at its file system and its owner"
    )
