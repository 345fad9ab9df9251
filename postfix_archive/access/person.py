"""Which person runs this process, where two different people must decide.

Used by retention/erasure. A person is a user id that somebody logs in with: that of the
login as the kernel keeps it through su(1) and sudo(8) (/proc/PID/loginuid), or else the
one that sudo(8) names to root, or else that of the process. root and the archive's user
are accounts that several people can use, and so nobody. Two names of one user id are
one person. Who has logged in at the web page is a person by name: the account of that
name at the host, if there is one, is the same person. Raises PersonUnknown.
"""

from __future__ import annotations

import os
from collections.abc import Container
from typing import NamedTuple

from postfix_archive.access import access_entry
from postfix_archive.errors import PersonUnknown

NO_UID = -1  # of a user of the web page who has no account at the host


class Person(NamedTuple):
    """A person, by the name and number of a user id, or by a name alone."""

    name: str
    uid: int

    def is_same(self, other: Person) -> bool:
        """Tell whether two can be one person; in doubt they are."""
        is_same_uid = self.uid == other.uid != NO_UID
        return is_same_uid or self.name.casefold() == other.name.casefold()


def current(shared_uids: Container[int | None]) -> Person:
    """Return the person of this process.

    shared_uids are those that are nobody, besides root's.
    """
    uid = os.getuid()
    login_uid = access_entry.login_uid(os.getpid())
    return identify(uid, login_uid, os.environ.get("SUDO_UID", ""), shared_uids)


def identify(
    uid: int,
    login_uid: int | None,
    sudo_uid: str,
    shared_uids: Container[int | None],
) -> Person:
    """Return the person of a process with these user ids.

    sudo_uid is what the environment says, which only root's is believed.
    """
    candidate = uid
    if login_uid is not None:
        candidate = login_uid
    elif uid == 0 and sudo_uid.isascii() and sudo_uid.isdecimal():
        candidate = int(sudo_uid[:10])
    one = Person(access_entry.name_of(candidate), candidate)
    return _require_one(
        one, shared_uids, "log in with an account of your own, and use sudo"
    )


def of_web_user(name: str, shared_uids: Container[int | None]) -> Person:
    """Return the person who has logged in at the web page with this name."""
    uid = access_entry.uid_of(name)
    one = Person(name, NO_UID if uid is None else uid)
    return _require_one(one, shared_uids, "log in with a name of your own")


def _require_one(
    one: Person, shared_uids: Container[int | None], next_step: str
) -> Person:
    if one.uid == 0 or one.uid in shared_uids:
        raise PersonUnknown(
            f"two different people must decide this, and {one.name} can be anybody:"
            f" {next_step}"
        )
    return one
