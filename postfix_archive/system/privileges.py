"""Drops root's privileges: to a directory's owner, or to a user for one command.

Also locks and touches files in such a directory. Used by the commands bypass, queue
rescue, fallback import and outcomes. As root they never write into a directory of
another user, who could place symlinks in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import subprocess
from collections.abc import Iterator

from postfix_archive.errors import ArchiveError
from postfix_archive.system import files


@contextlib.contextmanager
def as_owner(directory: str) -> Iterator[None]:
    """Set effective user and group to those of the directory's owner, if root.

    Raises StoreFailed if the directory does not exist.
    """
    try:
        stat = os.stat(directory)
    except OSError as error:
        raise files.store_error(directory, error) from error
    if os.geteuid():
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(stat.st_gid)
    os.seteuid(stat.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def run_as(
    user: str, command: list[str], timeout: float, *, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command as user or user:group, as pipe(8) does; as ourselves if not root.

    The command reads text from its stdin. timeout is in seconds.

    Raises OSError, ValueError or KeyError if it cannot be started, and TimeoutExpired.
    """
    name, _, group = user.partition(":")
    is_root = not os.geteuid()
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


def try_lock(path: str) -> int:
    """Lock a file; return the descriptor, -1 if another process holds the lock.

    Raises StoreFailed. The kernel releases the lock when the process ends.
    """
    return _try_lock(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)


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
