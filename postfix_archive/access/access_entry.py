"""An entry of an access journal: who read what, when and why.

Used by access_journal, access_service and the command history. docs/store-format.md
specifies the fields.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from typing import NamedTuple

NO_LOGIN = 0xFFFFFFFF  # loginuid of a process that no login started
# Text of a client: bytes that are not UTF-8 are surrogates, as everywhere (PEP 383).
TEXT_LIMIT = 64 << 10  # characters of a query or a reason
WEB_USER_LIMIT = 255  # characters
# Of the web page, besides those of commands: somebody logs in, or may not see a page or
# message. They have no reason.
LOGIN, LOGIN_REFUSED, REFUSED = "login", "login-refused", "refused"
WITHOUT_REASON = (LOGIN, LOGIN_REFUSED, REFUSED)


class User(NamedTuple):
    """The user of a process, as the kernel knows it.

    ``name`` is that of the real user id, ``login`` that of the user who logged in
    (/proc/PID/loginuid, kept by su(1) and sudo(8); "" if unknown), ``sudo_user`` what
    sudo(8) says, of root's own processes only. ``web_user`` is who has logged in at the
    web page, as archive_web_user's process says.
    """

    name: str
    uid: int
    login: str = ""
    sudo_user: str = ""
    web_user: str = ""

    def to_fields(self) -> dict[str, str | int]:
        """Return the fields of a journal event; those that are empty are left out."""
        fields: dict[str, str | int] = {
            "user": self.name,
            "uid": self.uid,
            "login": self.login,
            "sudo_user": self.sudo_user,
            "web_user": self.web_user,
        }
        return {name: value for name, value in fields.items() if value != ""}

    def __str__(self) -> str:
        """Return who it is, and as whom."""
        if self.web_user:
            return f"{self.web_user} on the web page"
        person = self.sudo_user or self.login or self.name
        return person if person == self.name else f"{person} as {self.name}"


class Entry(NamedTuple):
    """One use of a command. ``ids`` are archive ids; ``action`` names the command."""

    user: User
    action: str
    query: str
    reason: str
    ids: tuple[str, ...]
    time: str = ""  # RFC 3339, of the journal line

    def is_of(self, user: str, archive_id: str) -> bool:
        """Tell whether a user, by any name, read a message, by a prefix of its id.

        "" for any user, or any message and none.
        """
        who = self.user
        names = ("", who.name, who.login, who.sudo_user, who.web_user)
        is_of_message = any(each.startswith(archive_id) for each in self.ids)
        return user in names and (is_of_message or not archive_id)

    def to_fields(self) -> dict[str, str | int]:
        """Return the fields of the journal event; those that are empty are left out."""
        texts = {
            "query": self.query,
            "reason": self.reason,
            "ids": " ".join(self.ids),
        }
        others = {name: value for name, value in texts.items() if value}
        return {"action": self.action, **self.user.to_fields(), **others}


def from_fields(fields: Mapping[str, object]) -> Entry:
    """Return the entry in a journal event. Raises ValueError for an invalid one."""
    action, query, reason, ids, time = _texts(
        fields, "action", "query", "reason", "ids", "time"
    )
    return Entry(user_in(fields), action, query, reason, tuple(ids.split()), time)


def user_in(fields: Mapping[str, object]) -> User:
    """Return the user in a journal event. Raises ValueError for an invalid one."""
    keys = ("user", "login", "sudo_user", "web_user")
    name, login, sudo_user, web_user = _texts(fields, *keys)
    uid = fields.get("uid")
    if type(uid) is not int:
        raise ValueError("no user id")
    return User(name, uid, login, sudo_user, web_user)


def _texts(fields: Mapping[str, object], *names: str) -> list[str]:
    """Return some fields, "" for what is missing. Raises ValueError for no text."""
    texts = [fields.get(name, "") for name in names]
    if not all(isinstance(each, str) for each in texts):
        raise ValueError("a field is not text")
    return [str(each) for each in texts]


def current_user() -> User:
    """Return the user of this process."""
    user = user_of(os.getuid(), os.getpid())
    sudo_user = "" if os.getuid() else os.environ.get("SUDO_USER", "")
    return user._replace(sudo_user=sudo_user)


def user_of(uid: int, process_id: int) -> User:
    """Return the user with this real user id, who runs a process."""
    login = login_uid(process_id)
    return User(name_of(uid), uid, "" if login is None else name_of(login))


def is_web_user(name: str) -> bool:
    """Tell whether a login name of the web page can be recorded."""
    return (
        0 < len(name) <= WEB_USER_LIMIT and name.isprintable() and name == name.strip()
    )


def login_uid(process_id: int) -> int | None:
    """Return the user id with which somebody logged in, None if it is unknown."""
    try:
        with open(f"/proc/{process_id}/loginuid", encoding="ascii") as file:
            uid = int(file.read())
    except (OSError, ValueError):
        return None
    return None if uid == NO_LOGIN else uid


def uid_of(name: str) -> int | None:
    """Return the user id of a name, None if no user has it."""
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, UnicodeError):
        return None


def name_of(uid: int) -> str:
    """Return the name of a user id, or a text if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
