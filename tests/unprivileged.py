"""Calls a function as another user, in a child process; for tests that run as root."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable


def as_member(user: str, group: str, function: Callable[[], object]) -> str:
    """Call a function as a user who is in a group; return the error, "" if none."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        os.setgroups([grp.getgrnam(group).gr_gid])
        account = pwd.getpwnam(user)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        try:
            function()
        except (Exception, SystemExit) as error:
            os.write(write_end, (str(error) or type(error).__name__).encode()[:4000])
        os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as file:
        text = file.read().decode()
    os.waitpid(child, 0)
    return text
