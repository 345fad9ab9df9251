"""Which person runs this process, where two different people must decide.

Used by retention/erasure. A person is a user id that somebody logs in with: that of the
login as the kernel keeps it through su(1) and sudo(8) (/proc/PID/loginuid), or else the
one that sudo(8) names to root, or else that of the process. root and the archive's user
are accounts that several people can use, and so nobody. Two names of one user id are
one person. Raises PersonUnknown.
"""

from __future__ import annotations

import os
from collections.abc import Container
from typing import NamedTuple

from postfix_archive.access import access_entry
from postfix_archive.errors import PersonUnknown


class Person(NamedTuple):
    """A person, by the name and number of a user id."""

    name: str
    uid: int


def current(shared_uids: Container[int]) -> Person:
    """Return the person of this process.

    shared_uids are those that are nobody, besides root's.
    """
    uid = os.getuid()
    login_uid = access_entry.login_uid(os.getpid())
    return identify(uid, login_uid, os.environ.get("SUDO_UID", ""), shared_uids)


def identify(
    uid: int, login_uid: int | None, sudo_uid: str, shared_uids: Container[int]
) -> Person:
    """Return the person of a process with these user ids.

    sudo_uid is what the environment says, which only root's is believed.
    """
    candidate = uid
    if login_uid is not None:
        candidate = login_uid
    elif uid == 0 and sudo_uid.isascii() and sudo_uid.isdecimal():
        candidate = int(sudo_uid[:10])
    name = access_entry.name_of(candidate)
    if candidate == 0 or candidate in shared_uids:
        raise PersonUnknown(
            f"two different people must decide this, and {name} can be anybody: log in"
            " with an account of your own, and use sudo"
        )
    return Person(name, candidate)
