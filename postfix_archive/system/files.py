"""Durable files: directories, atomic replacement, safe opening.

Used by every package that writes; system/draft has the files of the store. An OSError
becomes StoreFailed or the exception that the caller gives as ``failure``, except in
write_all(), open_regular() and write_draft(), whose callers name the file.
"""

from __future__ import annotations

import posix as os  # importing os costs a transport 1.2 ms
import time
from _stat import S_ISDIR, S_ISREG

from postfix_archive.errors import StoreFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from postfix_archive.errors import ArchiveError

DIRECTORY_MODE = 0o700
DRAFT_MODE = 0o600
STORED_FILE_MODE = 0o400
SET_GROUP_ID, GROUP_BITS = 0o2000, 0o050  # mode bits
_durable_directories: set[str] = set()  # that this process knows to be on disk
STALE_DRAFT_AGE = 3600  # seconds after which write_draft() removes one of a crash
DRAFT_ID_SIZE = 8  # random bytes in the name of a draft
NEW_FILE_FLAGS = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW


def open_regular(path: str) -> int:
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
    return _is_of_type(path, S_ISREG, "not a regular file")


def is_directory(path: str) -> bool:
    """Tell whether a directory exists; raises StoreFailed for any other type."""
    return _is_of_type(path, S_ISDIR, "not a directory")


def _is_of_type(path: str, is_type: Callable[[int], bool], otherwise: str) -> bool:
    try:
        mode = os.lstat(path).st_mode  # a symlink is another type
    except FileNotFoundError:
        return False
    except OSError as error:
        raise store_error(path, error) from error
    if not is_type(mode):
        raise store_error(path, OSError(0, otherwise))
    return True


def exists(path: str) -> bool:
    """Tell whether path exists, also as a dangling symlink."""
    try:
        return bool(os.lstat(path))
    except OSError:
        return False


def modified_time(path: str) -> float | None:
    """Return when path was modified (Unix time), None if it is not there."""
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return None


def parent_directory(path: str) -> str:
    """Return the parent directory of an absolute path."""
    return path.rpartition("/")[0] or "/"


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of content, with as many write(2) calls as needed. Raises OSError."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def shared_mode(directory: int | str, mode: int) -> int:
    """Return the mode of something new in a directory, given that without a group.

    A directory with the set-group-ID bit gives its group to what is made in it: that
    may be read by the group if the directory may. Raises OSError.
    """
    directory_mode = os.stat(directory).st_mode
    if directory_mode & SET_GROUP_ID:
        mode |= directory_mode & (mode >> 3) & GROUP_BITS
    return mode


def make_one_directory(path: str) -> None:
    """Make a directory, not durably. Raises OSError."""
    mode = shared_mode(parent_directory(path), DIRECTORY_MODE)
    # Not chmod(2), which takes the set-group-ID bit from who is not in the group.
    umask = os.umask(0)
    try:
        os.mkdir(path, mode)
    finally:
        os.umask(umask)


def is_durable(directory: str) -> bool:
    """Tell whether this process knows that make_directory() has nothing to do."""
    return directory in _durable_directories


def make_directory(path: str) -> None:
    """Make a directory and its missing parents durably.

    Its mode is 0700, or 0750 in a directory that is shared: see shared_mode().
    """
    try:
        make_one_directory(path)
    except FileExistsError:
        if path in _durable_directories or not _has_at_most(path, 0):
            _durable_directories.add(path)
            return
    except FileNotFoundError:
        make_directory(parent_directory(path))
        make_directory(path)
        return
    except OSError as error:
        raise store_error(path, error) from error
    sync_parents(path)


def sync_parents(path: str) -> None:
    """Make the name of path durable, and those of parents that may be new as well.

    A process may have made them and crashed before it could sync them.
    """
    parent = parent_directory(path)
    sync_directory(parent)
    if _has_at_most(parent, 1):
        sync_parents(parent)


def sync_directory(path: str, failure: type[ArchiveError] = StoreFailed) -> None:
    """Make the names in a directory durable. Raises ``failure``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise store_error(path, error, failure) from error


def _has_at_most(directory: str, count: int) -> bool:
    """Tell whether a directory has at most so many entries."""
    try:
        with os.scandir(directory) as entries:
            return sum(1 for _ in zip(entries, range(count + 1))) <= count
    except OSError as error:
        raise store_error(directory, error) from error


def replace(
    path: str,
    content: bytes,
    mode: int = DRAFT_MODE,
    *,
    like: str = "",
    is_durable: bool = True,
    failure: type[ArchiveError] = StoreFailed,
) -> None:
    """Replace or create a file atomically and durably. Raises ``failure``.

    A symlink at path is replaced, not followed. For ``like`` see write_draft(). Without
    is_durable a power failure can leave the file empty.
    """
    try:
        draft = write_draft(path, content, mode, like=like, is_durable=is_durable)
        try:
            os.rename(draft, path)
        except OSError:
            os.unlink(draft)
            raise
    except OSError as error:
        raise store_error(path, error, failure) from error
    if is_durable:
        sync_directory(parent_directory(path), failure)


def create(
    path: str,
    content: bytes,
    *,
    owner: tuple[int, int] | None = None,
    failure: type[ArchiveError] = StoreFailed,
) -> bool:
    """Create a file, mode 0600, atomically and durably; False if it exists already.

    owner: user id and group id. Raises ``failure``.
    """
    try:
        draft = write_draft(path, content, owner=owner)
        try:
            os.link(draft, path, follow_symlinks=False)
        finally:
            os.unlink(draft)
    except FileExistsError:
        return False
    except OSError as error:
        raise store_error(path, error, failure) from error
    sync_directory(parent_directory(path), failure)
    return True


def replace_symlink(
    path: str, target: str, *, failure: type[ArchiveError] = StoreFailed
) -> None:
    """Replace or create a symlink to target atomically and durably."""
    draft = draft_path(path)
    try:
        os.symlink(target, draft)
        os.rename(draft, path)
    except OSError as error:
        raise store_error(path, error, failure) from error
    sync_directory(parent_directory(path), failure)


def write_draft(
    path: str,
    content: bytes,
    mode: int = DRAFT_MODE,
    *,
    like: str = "",
    owner: tuple[int, int] | None = None,
    is_durable: bool = True,
) -> str:
    """Write a draft of path, in the same directory; return its unpredictable path.

    ``like`` is a file whose owner, mode and extended attributes the draft gets; if it
    does not exist, the draft gets ``mode``. Raises OSError: then there is no draft.
    """
    draft = draft_path(path)
    descriptor = os.open(draft, NEW_FILE_FLAGS, DRAFT_MODE)
    try:
        write_all(descriptor, content)
        if owner:
            os.fchown(descriptor, *owner)
        if not (like and copy_attributes(like, descriptor)):
            os.fchmod(descriptor, mode)
        if is_durable:
            os.fsync(descriptor)
    except OSError:
        os.unlink(draft)
        raise
    finally:
        os.close(descriptor)
    return draft


def draft_path(path: str) -> str:
    """Return a path for a draft of path; remove the drafts that a crash has left."""
    directory, _, name = path.rpartition("/")
    remove_drafts(directory, time.time() - STALE_DRAFT_AGE, name)
    return f"{directory}/.{name}.{os.urandom(DRAFT_ID_SIZE).hex()}"


def copy_attributes(source: str, descriptor: int) -> bool:
    """Give a file owner, mode and extended attributes of source; False without one.

    Extended attributes that cannot be read or set here are left out. Raises OSError.
    """
    try:
        stat = os.stat(source)
    except FileNotFoundError:
        return False
    os.fchown(descriptor, stat.st_uid, stat.st_gid)
    try:
        names = os.listxattr(source)
    except OSError:
        names = []
    for name in names:
        try:
            os.setxattr(descriptor, name, os.getxattr(source, name))
        except OSError:
            pass
    os.fchmod(descriptor, stat.st_mode & 0o7777)
    return True


def remove_drafts(directory: str, cutoff: float, name: str = "") -> int:
    """Remove drafts last written before a Unix time; return how many.

    name is the file of which they are drafts; in a directory of drafts every file is
    one. Published files are not affected: they have names of their own.
    """
    removed = 0
    try:
        if is_directory(directory):
            for entry in list(os.scandir(directory)):
                if name and not _is_draft(entry.name, name):
                    continue
                if entry.stat(follow_symlinks=False).st_mtime < cutoff:
                    os.unlink(entry.path)
                    removed += 1
    except (OSError, StoreFailed):
        pass  # no such directory, or the next call tries again
    return removed


def _is_draft(name: str, file_name: str) -> bool:
    """Tell whether this is the name of a draft of a file, or of its database."""
    draft_id = name.removeprefix(f".{file_name}.").partition(".")[0]
    return (
        name.startswith(f".{file_name}.")
        and len(draft_id) == 2 * DRAFT_ID_SIZE
        and not draft_id.strip("0123456789abcdef")
    )


def touch(path: str) -> None:
    """Set the mtime of a file to now, or create it; ignore errors and symlinks."""
    flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, DRAFT_MODE)
        try:
            os.utime(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        pass


def store_error(
    path: str, error: OSError, failure: type[ArchiveError] = StoreFailed
) -> ArchiveError:
    """Return the exception for an OSError: path, reason, what to check."""
    return failure(f"{path}: {error.strerror}; check its file system and its owner")
