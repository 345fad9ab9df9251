"""Tells whether a user may reach and execute a path (path_resolution(7), access(2)).

Used by the doctor and by make install. Directories are checked by owner, group and
mode; one with an access control list, which may grant more, counts as accessible.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from collections.abc import Iterator

from postfix_archive.system import privileges

ACL_ATTRIBUTE = "system.posix_acl_access"  # acl(5), as an extended attribute


def first_blocked_directory(path: str, user: str) -> str:
    """Return the first directory of path that the user may not search, else "".

    Parts of the path that do not exist are skipped. A user who does not exist yet has
    the permissions of others.
    """
    uid, groups = _user_and_group_ids(user)
    paths = (path, os.path.realpath(path))
    for directory in (parent for each in paths for parent in _parents(each)):
        try:
            directory_stat = os.stat(directory)
        except OSError:
            continue
        if not _can_search(directory_stat, uid, groups) and not _has_acl(directory):
            return directory
    return ""


def _parents(path: str) -> Iterator[str]:
    """Yield the directories above an absolute path, the highest first."""
    names = path.split("/")
    for number in range(1, len(names)):
        yield "/".join(names[:number]) or "/"


def execute_obstacle(path: str, user: str) -> str:
    """Return why the user cannot execute a script, "" if nothing prevents it.

    user: a name, or user:group as for pipe(8); asked of the kernel if we are root.
    """
    if not os.path.exists(path):
        return "it does not exist"
    if is_mounted_noexec(path):
        return "its file system is mounted noexec"
    name, _, group = user.partition(":")
    try:
        account = pwd.getpwnam(name)
        gid = grp.getgrnam(group).gr_gid if group else account.pw_gid
    except KeyError:
        return ""  # the check of users reports it
    with privileges.as_ids(account.pw_uid, gid):
        is_allowed = os.access(path, os.R_OK | os.X_OK, effective_ids=True)
    return "" if is_allowed else f"{name} has no permission"


def is_mounted_noexec(path: str) -> bool:
    """Tell whether nothing can be executed there: mount(8), noexec."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)
    except OSError:
        return False


def is_mount_point(path: str) -> bool:
    """Tell whether something is mounted on path, also a file: mount --bind.

    rename(2) onto such a file fails with EBUSY. path has no symlinks.
    """
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            mounts = file.read().splitlines()
    except OSError:
        return False
    return os.fsencode(path) in (_unescape(line.split()[4]) for line in mounts)


def is_writable_directory(path: str) -> bool:
    """Tell whether a file can be created in a directory."""
    import tempfile  # takes 2 ms, which a command that shows mail saves

    try:
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


def _unescape(path: bytes) -> bytes:
    """Decode the octal escapes of proc_pid_mountinfo(5), such as \\040 for a space."""
    return re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), path)


def _user_and_group_ids(user: str) -> tuple[int, set[int]]:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return -1, set()
    return entry.pw_uid, set(os.getgrouplist(user, entry.pw_gid))


def _can_search(directory_stat: os.stat_result, uid: int, groups: set[int]) -> bool:
    if uid in (0, directory_stat.st_uid):
        return not uid or bool(directory_stat.st_mode & stat.S_IXUSR)
    if directory_stat.st_gid in groups:
        return bool(directory_stat.st_mode & stat.S_IXGRP)
    return bool(directory_stat.st_mode & stat.S_IXOTH)


def _has_acl(directory: str) -> bool:
    try:
        return ACL_ATTRIBUTE in os.listxattr(directory)
    except OSError:
        return False
