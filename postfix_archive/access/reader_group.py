"""Gives archive_reader_group read access to store and index, or takes it away.

Used by the command readers; the doctor asks whether the web page's user is in it. A
directory with the set-group-ID bit gives its group to what is made in it (mkdir(2),
open(2)); system/files makes it readable for that group. Raises StoreFailed.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat

from postfix_archive.config.settings import Settings
from postfix_archive.errors import SettingInvalid
from postfix_archive.store.archive import DRAFTS
from postfix_archive.system import files, privileges

SHARED_DIRECTORY, PRIVATE_DIRECTORY = 0o2750, 0o700  # modes
GROUP_READ, OTHERS = 0o040, 0o077  # mode bits
OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
COPY_SUFFIX, LOCK_SUFFIX = ".gz", ".lock"


def group_id(name: str) -> int:
    """Return the id of a group. Raises SettingInvalid if there is none."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise SettingInvalid(
            f"archive_reader_group = {name}: no such group; run groupadd --system"
            f" {name}"
        ) from None


def is_shared(directory: str, group: str) -> bool:
    """Tell whether a directory is as share() leaves it. Raises OSError."""
    status = os.stat(directory)
    mode = stat.S_IMODE(status.st_mode)
    if not group:
        return mode == PRIVATE_DIRECTORY
    return mode == SHARED_DIRECTORY and status.st_gid == group_id(group)


def web_user_problem(settings: Settings) -> str:
    """Return what is wrong with archive_web_user, "" if nothing is or there is none.

    Raises OSError for a store that is not there, and SettingInvalid.
    """
    name, group = settings.archive_web_user, settings.archive_reader_group
    if not name:
        return ""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        return "there is no such user, so the web page does not run"
    if user.pw_uid in (0, os.stat(settings.archive_store_directory).st_uid):
        return "it can write the store: who breaks into the web page can do so too"
    if not group:
        return "archive_reader_group is empty, so the web page can read nothing"
    if group_id(group) not in os.getgrouplist(name, user.pw_gid):
        return f"it is not in archive_reader_group ({group}): it can read nothing"
    return ""


def share(directory: str, group: str) -> int:
    """Let a group read a directory and all below; "" lets nobody but the owner.

    Returns the number of files and directories that were changed. Follows no symlink
    below the directory, and leaves alone what has another owner or another name.
    """
    try:
        descriptor = privileges.open_path(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            owner = pwd.getpwuid(os.fstat(descriptor).st_uid)
            gid = group_id(group) if group else owner.pw_gid
            sharing = Sharing(owner.pw_uid, gid, is_shared=bool(group))
            sharing.change_top(descriptor)
            return sharing.count
        finally:
            os.close(descriptor)
    except KeyError as error:
        raise files.store_error(directory, OSError(0, f"{error}")) from error
    except OSError as error:
        raise files.store_error(error.filename or directory, error) from error


class Sharing:
    """Changes group and mode of directories and files; counts them."""

    def __init__(self, uid: int, gid: int, *, is_shared: bool) -> None:
        self._uid = uid
        self._gid = gid
        self._is_shared = is_shared
        self._mode = SHARED_DIRECTORY if is_shared else PRIVATE_DIRECTORY
        self.count = 0

    def change_top(self, directory: int) -> None:
        """Change the directory that all is in, and what is in it.

        Until all is changed it has the sticky bit, which means nothing to its owner:
        if this is stopped, is_shared() returns False.
        """
        status = os.fstat(directory)
        if (stat.S_IMODE(status.st_mode), status.st_gid) != (self._mode, self._gid):
            self._change(directory, self._mode | stat.S_ISVTX)
        self._change_entries(directory, "")
        os.fchmod(directory, self._mode)

    def _change_entries(self, directory: int, name: str) -> None:
        """Change what is in a directory, given by descriptor and name.

        A directory before what is in it: what is made in it later inherits from it.
        """
        for entry in os.listdir(directory):
            try:
                descriptor = os.open(entry, OPEN_FLAGS, dir_fd=directory)
            except OSError:
                continue  # it has gone, or is a symlink
            try:
                status = os.fstat(descriptor)
                if stat.S_ISDIR(status.st_mode):
                    self._change(descriptor, self._mode)
                    self._change_entries(descriptor, entry)
                elif stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                    mode = stat.S_IMODE(status.st_mode) & ~OTHERS
                    if self._is_shared and not _is_private(name, entry, mode):
                        mode |= GROUP_READ
                    self._change(descriptor, mode)
            finally:
                os.close(descriptor)

    def _change(self, descriptor: int, mode: int) -> None:
        status = os.fstat(descriptor)
        if status.st_uid != self._uid:
            return
        if (stat.S_IMODE(status.st_mode), status.st_gid) != (mode, self._gid):
            os.fchown(descriptor, -1, self._gid)
            os.fchmod(descriptor, mode)
            self.count += 1


def _is_private(directory: str, name: str, mode: int) -> bool:
    """Tell whether a file is a draft, a copy not yet committed, or a lock."""
    is_committed = not mode & stat.S_IWUSR
    is_copy = name.endswith(COPY_SUFFIX)
    return (
        directory == DRAFTS
        or name.endswith(LOCK_SUFFIX)
        or (is_copy and not is_committed)
    )
