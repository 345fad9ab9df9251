"""Tells whether a user may search all directories of a path (path_resolution(7)).

Used by the doctor and by make install. Checks owner, group and mode; a directory with
an access control list, which may grant more, counts as accessible.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

ACL = "system.posix_acl_access"  # acl(5), as an extended attribute


def closed(path: str, user: str) -> str:
    """Return the first directory of path that the user may not search, else "".

    Parts of the path that do not exist are skipped. A user who does not exist yet has
    the permissions of others.
    """
    uid, groups = _ids(user)
    ways = (Path(path), Path(os.path.realpath(path)))
    for folder in (parent for each in ways for parent in reversed(each.parents)):
        try:
            told = folder.stat()
        except OSError:
            continue
        if not _is_open(told, uid, groups) and not _has_list(folder):
            return str(folder)
    return ""


def _ids(user: str) -> tuple[int, set[int]]:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return -1, set()
    return entry.pw_uid, set(os.getgrouplist(user, entry.pw_gid))


def _is_open(told: os.stat_result, uid: int, groups: set[int]) -> bool:
    if uid in (0, told.st_uid):
        return not uid or bool(told.st_mode & stat.S_IXUSR)
    if told.st_gid in groups:
        return bool(told.st_mode & stat.S_IXGRP)
    return bool(told.st_mode & stat.S_IXOTH)


def _has_list(folder: Path) -> bool:
    try:
        return ACL in os.listxattr(folder)
    except OSError:
        return False
