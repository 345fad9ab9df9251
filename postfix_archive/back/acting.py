"""What root's commands do in the archive's name: as its user, and aloud in the log.

Used by the bypass, by rescue, return and outcomes. Root never writes into a folder that
belongs to somebody else: what it finds there could lead anywhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from postfix_archive.back import files, postconf
from postfix_archive.core.errors import ALARM, ArchiveError


@contextlib.contextmanager
def as_owner(folder: str) -> Iterator[None]:
    """Act as the owner of a folder, so that what is made there is the owner's.

    Raises StoreFailed where there is no such folder.
    """
    try:
        owner = os.stat(folder)
    except OSError as problem:
        raise files.failed(folder, problem) from problem
    if os.geteuid():
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def lock(path: str) -> int:
    """Return the descriptor of a lock, -1 if another process has it.

    Raises StoreFailed. The kernel lets go of it when the process ends.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, files.DRAFT_MODE)
    except OSError as problem:
        raise files.failed(path, problem) from problem
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def note(folder: str, name: str) -> None:
    """Touch a file of the folder's owner: now it was done. Failing is no failure."""
    with contextlib.suppress(ArchiveError, OSError), as_owner(folder):
        flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        os.close(os.open(f"{folder}/{name}", flags, files.DRAFT_MODE))
        os.utime(f"{folder}/{name}", follow_symlinks=False)


def log(directory: str, tag: str, text: str) -> None:
    """Say it in Postfix's own log; that it cannot is no reason to stop."""
    with contextlib.suppress(ArchiveError):
        words = ("-t", tag, "-p", "warn", f"{ALARM} {text}")
        postconf.run(directory, "postlog", *words)
