"""Drops root's privileges: to a directory's owner, or to a user for one command.

Also opens paths, locks and touches files in directories of other users. Used by the
commands doctor, install, bypass, queue rescue, fallback import and outcomes. As root
they never write into a directory of another user, who could place symlinks in it, and
change owner and mode by descriptor only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from postfix_archive.errors import ArchiveError
from postfix_archive.system import files

if TYPE_CHECKING:
    import subprocess

LINK_LIMIT = 40  # symlinks in one path, as the kernel allows (path_resolution(7))
DIRECTORY_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def as_owner(directory: str) -> Iterator[None]:
    """Set effective user and group to those of the directory's owner, if root.

    Raises StoreFailed if the directory does not exist, or if another user can put
    something else in its place, for which root would then stay root.
    """
    try:
        if os.geteuid():
            descriptor, is_fixed = os.open(directory, DIRECTORY_FLAGS), True
        else:
            descriptor, is_fixed = _walk(directory, DIRECTORY_FLAGS)
    except OSError as error:
        raise files.store_error(directory, error) from error
    status = os.fstat(descriptor)
    os.close(descriptor)
    if not (os.geteuid() or status.st_uid or is_fixed):
        reason = OSError(0, "a directory of root's in a directory of another user")
        raise files.store_error(directory, reason)
    with as_ids(status.st_uid, status.st_gid):
        yield


@contextlib.contextmanager
def as_ids(uid: int, gid: int) -> Iterator[None]:
    """Set the effective user and group, without further groups, if root."""
    if os.geteuid():
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def become_owner(directory: str) -> None:
    """Give up root for good: take user and group of the directory's owner.

    Raises StoreFailed as as_owner() does.
    """
    with as_owner(directory):
        uid, gid = os.geteuid(), os.getegid()
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)


def open_path(path: str, flags: int = os.O_RDONLY) -> int:
    """Open a path; return the descriptor. Never blocks on a FIFO.

    A symlink is followed only in a directory in which nobody but root and this user can
    create one. Raises OSError, with ELOOP for any other symlink.
    """
    return _walk(path, flags)[0]


def read_file(path: str) -> bytes:
    """Return the content of a regular file, opened by open_path(). Raises OSError."""
    descriptor = open_path(path)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a regular file", path)
    with open(descriptor, "rb") as file:
        return file.read()


def can_others_write(directory: str) -> bool:
    """Tell whether another user can create a file in a directory, or replace it.

    Members of the group of a directory of root's do not count. Raises OSError.
    """
    descriptor, is_fixed = _walk(directory, DIRECTORY_FLAGS)
    status = os.fstat(descriptor)
    os.close(descriptor)
    return not is_fixed or not _is_ours(status, stat.S_IWOTH)


def has_foreign_link(path: str) -> bool:
    """Tell whether a path leads through a symlink that another user can have made."""
    try:
        os.close(open_path(path, os.O_PATH))
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def change_owner(path: str, user: str) -> None:
    """Make user the owner of a directory or file. Raises OSError and KeyError."""
    with _open_for_change(path) as descriptor:
        os.fchown(descriptor, pwd.getpwnam(user).pw_uid, -1)


def change_mode(path: str, mode: int) -> None:
    """Set the permissions of a directory or file. Raises OSError."""
    with _open_for_change(path) as descriptor:
        os.fchmod(descriptor, mode)


@contextlib.contextmanager
def _open_for_change(path: str) -> Iterator[int]:
    """Open a directory, or a regular file that has no other name."""
    descriptor = open_path(path)
    try:
        status = os.fstat(descriptor)
        is_file = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        if not is_file and not stat.S_ISDIR(status.st_mode):
            raise OSError(0, "not a directory, and not a file with one name", path)
        yield descriptor
    finally:
        os.close(descriptor)


def _walk(path: str, flags: int) -> tuple[int, bool]:
    """Open a path, one directory after the other.

    Returns the descriptor, and whether it is _is_fixed_directory() for all directories
    above.
    """
    names = os.path.join(os.getcwd(), path).split("/")[::-1]
    directory, is_fixed, links = os.open("/", DIRECTORY_FLAGS), True, 0
    try:
        while names:
            name = names.pop() or "."
            if name == "." and names:
                continue
            status = os.fstat(directory)
            target = _link_target(name, directory)
            if target and not _is_ours(status, stat.S_IWGRP | stat.S_IWOTH):
                text = "a symlink in a directory of another user is not followed"
                raise OSError(errno.ELOOP, text, path)
            if not target:
                is_fixed &= _is_fixed_directory(status)
                step = DIRECTORY_FLAGS if names else flags
                step |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                parent = directory
                directory = os.open(name, step, dir_fd=parent)
                os.close(parent)
                continue
            links += 1
            if links > LINK_LIMIT:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            names += target.split("/")[::-1]
            if target.startswith("/"):
                parent = directory
                directory = os.open("/", DIRECTORY_FLAGS)
                os.close(parent)
    except OSError:
        os.close(directory)
        raise
    return directory, is_fixed


def _is_ours(status: os.stat_result, mode: int) -> bool:
    """Tell whether a directory is root's or this user's, without these permissions."""
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & mode


def _is_fixed_directory(status: os.stat_result) -> bool:
    """Tell whether only root and this user, or root's group, can replace its entries.

    In a sticky directory others can create entries only.
    """
    return _is_ours(status, 0 if status.st_mode & stat.S_ISVTX else stat.S_IWOTH)


def _link_target(name: str, directory: int) -> str:
    """Return where a symlink leads, "" if it is none."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno != errno.EINVAL:  # not a symlink
            raise
        return ""


def run_as(
    user: str, command: list[str], timeout: float, *, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command as user or user:group, as pipe(8) does; as ourselves if not root.

    The command reads text from its stdin. timeout is in seconds.

    Raises OSError, ValueError or KeyError if it cannot be started, TimeoutError.
    """
    import subprocess  # takes 3 ms, which most commands do not need

    name, _, group = user.partition(":")
    is_root = not os.geteuid()
    try:
        return subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            user=name if is_root else None,
            group=(group or pwd.getpwnam(name).pw_gid) if is_root else None,
            extra_groups=[] if is_root else None,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"not done within {timeout:g} s") from error


def try_lock(path: str) -> int:
    """Lock a file; return the descriptor, -1 if another process holds the lock.

    Raises StoreFailed. The kernel releases the lock when the process ends.
    """
    return _try_lock(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK)


def try_lock_directory(path: str) -> int:
    """Lock a directory as try_lock() locks a file."""
    return _try_lock(path, os.O_RDONLY | os.O_DIRECTORY)


def _try_lock(path: str, flags: int) -> int:
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC, files.DRAFT_MODE)
    except OSError as error:
        raise files.store_error(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def touch(directory: str, name: str) -> None:
    """Set the mtime of a file to now, as the directory's owner; errors are ignored."""
    with contextlib.suppress(ArchiveError, OSError), as_owner(directory):
        files.touch(f"{directory}/{name}")
