"""Tells whether a user may search all directories of a path (path_resolution(7)).

Used by the doctor and by make install. Checks owner, group and mode; a directory with
an access control list, which may grant more, counts as accessible.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

ACL_ATTRIBUTE = "system.posix_acl_access"  # acl(5), as an extended attribute


def first_blocked_directory(path: str, user: str) -> str:
    """Return the first directory of path that the user may not search, else "".

    Parts of the path that do not exist are skipped. A user who does not exist yet has
    the permissions of others.
    """
    uid, groups = _user_and_group_ids(user)
    paths = (Path(path), Path(os.path.realpath(path)))
    for directory in (parent for each in paths for parent in reversed(each.parents)):
        try:
            directory_stat = directory.stat()
        except OSError:
            continue
        if not _can_search(directory_stat, uid, groups) and not _has_acl(directory):
            return str(directory)
    return ""


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


def _has_acl(directory: Path) -> bool:
    try:
        return ACL_ATTRIBUTE in os.listxattr(directory)
    except OSError:
        return False
