"""Durable files: drafts that are published, atomic replacement, safe opening.

Used by every package that writes. A file is a draft until it is published; then its
content, its name and all directories above it are on disk. OSError is translated to
StoreFailed, except in write_all() and open_regular(), whose callers name the file.
"""

from __future__ import annotations

import posix as os  # importing os costs a transport 1.2 ms
import time
from _stat import S_ISDIR, S_ISREG

from postfix_archive.core.errors import StoreFailed

FOLDER_MODE = 0o700
DRAFT_MODE = 0o600
KEPT_MODE = 0o400
_durable: set[str] = set()  # directories that this process knows to be on disk
LEFT = 3600  # seconds after which a draft of replace() is left over from a crash


class Draft:
    """A file being written, under a name of its own until it is published."""

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
        """Link the synced file to name, durably; never replaces an existing file."""
        try:
            os.link(self._name, name, follow_symlinks=False)
            sync_folder(above(name))
        except OSError as problem:
            raise failed(name, problem) from problem

    def discard(self) -> None:
        """Close the file and remove the draft's own name; a published name stays."""
        try:
            os.close(self._descriptor)
            os.unlink(self._name)
        except OSError:
            pass  # remove_drafts() removes it later


def opened(path: str) -> int:
    """Open a regular file for reading; return the descriptor.

    Raises OSError, also for a symlink, a FIFO or another special file.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags)
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a regular file")
    return descriptor


def is_file(path: str) -> bool:
    """Tell whether a regular file exists; raises StoreFailed for any other type."""
    mode = _mode(path)
    if mode and not S_ISREG(mode):
        raise failed(path, OSError(0, "not a regular file"))
    return bool(mode)


def is_folder(path: str) -> bool:
    """Tell whether a directory exists; raises StoreFailed for any other type."""
    mode = _mode(path)
    if mode and not S_ISDIR(mode):
        raise failed(path, OSError(0, "not a directory"))
    return bool(mode)


def is_there(path: str) -> bool:
    """Tell whether path exists, also as a dangling symlink."""
    try:
        return bool(os.lstat(path))
    except OSError:
        return False


def above(path: str) -> str:
    """Return the parent directory of an absolute path."""
    return path.rpartition("/")[0] or "/"


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of content, with as many write(2) calls as needed. Raises OSError."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def make_folder(path: str) -> None:
    """Make a directory and its missing parents, mode 0700, durably."""
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
    """Make the name of path durable, and those of parents that may be new as well.

    A process may have made them and crashed before it could sync them.
    """
    parent = above(path)
    sync_folder(parent)
    if _is_new(parent, 1):
        sync_above(parent)


def sync_folder(path: str) -> None:
    """Make the names in a directory durable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise failed(path, problem) from problem


def _is_new(folder: str, most: int) -> bool:
    """Tell whether a directory has at most so many entries."""
    try:
        with os.scandir(folder) as names:
            return sum(1 for _ in zip(names, range(most + 1))) <= most
    except OSError as problem:
        raise failed(folder, problem) from problem


def replace(path: str, content: bytes, mode: int) -> None:
    """Replace or create a file atomically and durably. Raises StoreFailed.

    The draft is in the same directory, under an unpredictable name.
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
    """Remove drafts of replace() that are left over from a crash."""
    try:
        for each in list(os.scandir(folder)):
            if each.name.startswith(beginning):
                if each.stat(follow_symlinks=False).st_mtime < time.time() - LEFT:
                    os.unlink(each.path)
    except OSError:
        pass  # the next call tries again


def sweep(folder: str, before: float) -> int:
    """Remove drafts last written before a Unix time; return how many.

    Published files are not affected: they have names of their own.
    """
    removed = 0
    try:
        if is_folder(folder):
            for each in list(os.scandir(folder)):
                if each.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(each.path)
                    removed += 1
    except (OSError, StoreFailed):
        pass  # no such directory, or the next call tries again
    return removed


def _mode(path: str) -> int:
    """Return st_mode of path, without following a symlink; 0 if nothing exists."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0
    except OSError as problem:
        raise failed(path, problem) from problem


def failed(path: str, problem: OSError) -> StoreFailed:
    """Return the StoreFailed for an OSError: path, reason, what to check."""
    return StoreFailed(
        f"{path}: {problem.strerror}; check its file system and its owner"
    )
