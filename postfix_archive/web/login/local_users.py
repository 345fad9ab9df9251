"""Users that the page keeps itself: name, password, roles, addresses.

Used by the command user, by the login page and by the admin's page. Passwords are kept
as argon2id hashes (RFC 9106). Each change names who made it, is listed for the admins,
and ends the sessions of that user. Raises LoginFailed, PasswordWrong, UserInvalid and
WebDatabaseFailed.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

import argon2

from postfix_archive.access import access_entry
from postfix_archive.errors import (
    LoginFailed,
    PasswordWrong,
    RequestInvalid,
    UserInvalid,
)
from postfix_archive.message import request
from postfix_archive.web.language import gettext as _
from postfix_archive.web.user import EVERY_ARCHIVE, Grant, Role, User

SOURCE = "local"
# The least that OWASP's Password Storage Cheat Sheet names: with argon2's own default,
# 64 MiB, some logins at once would take more memory than the page has.
HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19 << 10, parallelism=1)
PASSWORD_SIZE = 12  # characters at least (NIST SP 800-63B: 8; this is mail of others)
PASSWORD_LIMIT = 1000  # characters: hashing a megabyte takes time
ONE_TIME_SIZE = 12  # bytes of a one-time password


class LocalUser(NamedTuple):
    """A user as the page keeps it."""

    user: User
    is_disabled: bool
    must_change_password: bool
    has_totp: bool


class Change(NamedTuple):
    """A change of a user; ``time`` is a Unix time."""

    time: float
    changed_by: str
    name: str
    text: str


def parse_name(text: str) -> str:
    """Return a login name as it is kept: in one spelling, so that it is one person.

    Raises UserInvalid.
    """
    name = unicodedata.normalize("NFKC", text).strip().casefold()
    if not access_entry.is_web_user(name):
        raise UserInvalid(_("a name has 1 to 255 printable characters"))
    return name


def parse_grant(text: str) -> Grant:
    """Return the grant in ``ROLE[:ARCHIVE]``. Raises UserInvalid."""
    role, separator, archive = text.strip().partition(":")
    try:
        if separator and archive != EVERY_ARCHIVE:
            archive = request.parse_archive(archive)
        return Grant(Role(role), archive if separator else EVERY_ARCHIVE)
    except (ValueError, RequestInvalid):
        raise UserInvalid(
            _(
                "%(text)s is not a role: write own, auditor, officer or admin, and an"
                " archive after a colon if it is for that one alone, as in"
                " auditor:legal@example.com"
            )
            % {"text": text}
        ) from None


def parse_addresses(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses in texts, in lower case. Raises UserInvalid."""
    addresses = tuple(dict.fromkeys(each.strip().lower() for each in texts))
    for each in addresses:
        local, at, domain = each.rpartition("@")
        if not (at and local and domain and each.isprintable() and " " not in each):
            raise UserInvalid(_("%(text)s is not a mail address") % {"text": each})
    return addresses


def check_password(name: str, password: str) -> None:
    """Raise UserInvalid for a password that is too short, or the name."""
    if not PASSWORD_SIZE <= len(password) <= PASSWORD_LIMIT:
        raise UserInvalid(
            _("a password has %(size)d characters or more") % {"size": PASSWORD_SIZE}
        )
    if password.casefold().strip() == name:
        raise UserInvalid(_("the password must not be the name"))


def add(
    db: sqlite3.Connection,
    user: User,
    password: str,
    *,
    changed_by: str = "",
    must_change_password: bool = False,
) -> None:
    """Add a user. Raises UserInvalid if the name is taken or the password weak."""
    check_password(user.name, password)
    try:
        db.execute(
            "INSERT INTO local_user (name, password_hash, grants, addresses,"
            " display_name, must_change_password) VALUES (?, ?, ?, ?, ?, ?)",
            (
                user.name,
                HASHER.hash(password),
                json.dumps(sorted(map(str, user.grants))),
                json.dumps(user.addresses),
                user.display_name,
                must_change_password,
            ),
        )
    except sqlite3.IntegrityError:
        raise UserInvalid(
            _("there is a user %(name)s already") % {"name": user.name}
        ) from None
    note(db, user.name, changed_by, f"added: {rights(user)}")


def change_rights(db: sqlite3.Connection, user: User, *, changed_by: str) -> None:
    """Set roles, addresses and display name. Raises UserInvalid."""
    before = find(db, user.name).user
    db.execute(
        "UPDATE local_user SET grants = ?, addresses = ?, display_name = ?"
        " WHERE name = ?",
        (
            json.dumps(sorted(map(str, user.grants))),
            json.dumps(user.addresses),
            user.display_name,
            user.name,
        ),
    )
    text = f"changed: {rights(user)}; before: {rights(before)}"
    note(db, user.name, changed_by, text)


def set_password(
    db: sqlite3.Connection,
    name: str,
    password: str,
    *,
    changed_by: str,
    must_change_password: bool = False,
) -> None:
    """Set a password. Raises UserInvalid."""
    check_password(name, password)
    find(db, name)
    db.execute(
        "UPDATE local_user SET password_hash = ?, must_change_password = ?"
        " WHERE name = ?",
        (HASHER.hash(password), must_change_password, name),
    )
    note(db, name, changed_by, "password changed")


def set_disabled(
    db: sqlite3.Connection, name: str, is_disabled: bool, *, changed_by: str
) -> None:
    """Let nobody log in with a name any more, or again. Raises UserInvalid."""
    find(db, name)
    db.execute(
        "UPDATE local_user SET is_disabled = ? WHERE name = ?", (is_disabled, name)
    )
    note(db, name, changed_by, "disabled" if is_disabled else "enabled")


def one_time_password() -> str:
    """Return a password to be changed at the first login."""
    return secrets.token_urlsafe(ONE_TIME_SIZE)


def find(db: sqlite3.Connection, name: str) -> LocalUser:
    """Return a user. Raises UserInvalid if there is none."""
    user = find_or_none(db, name)
    if user is None:
        raise UserInvalid(_("there is no user %(name)s") % {"name": name})
    return user


def find_or_none(db: sqlite3.Connection, name: str) -> LocalUser | None:
    """Return a user, None if there is none."""
    row = db.execute("SELECT * FROM local_user WHERE name = ?", (name,)).fetchone()
    return None if row is None else _local_user(row)


def read(db: sqlite3.Connection) -> list[LocalUser]:
    """Return all users, by name."""
    rows = db.execute("SELECT * FROM local_user ORDER BY name")
    return list(map(_local_user, rows))


def changes(db: sqlite3.Connection, limit: int) -> list[Change]:
    """Return the last changes, newest first."""
    rows = db.execute("SELECT * FROM user_change ORDER BY rowid DESC LIMIT ?", (limit,))
    return [Change(*each) for each in rows]


def check(db: sqlite3.Connection, name: str, password: str) -> User:
    """Return the user of a name and password.

    Raises LoginFailed for a name that is not there or disabled, PasswordWrong.
    """
    row = db.execute(
        "SELECT * FROM local_user WHERE name = ? AND NOT is_disabled", (name,)
    ).fetchone()
    wrong = _("the name or the password is wrong")
    try:
        # Also for a name that is not there: the time that it takes tells nothing.
        HASHER.verify(
            row["password_hash"] if row else NO_PASSWORD, password[:PASSWORD_LIMIT]
        )
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        raise (PasswordWrong if row else LoginFailed)(wrong) from None
    if row is None:
        raise LoginFailed(wrong)
    return _local_user(row).user


def _local_user(row: sqlite3.Row) -> LocalUser:
    user = User(
        row["name"],
        SOURCE,
        frozenset(map(Grant.parse, json.loads(row["grants"]))),
        tuple(json.loads(row["addresses"])),
        row["display_name"],
    )
    return LocalUser(
        user,
        bool(row["is_disabled"]),
        bool(row["must_change_password"]),
        bool(row["totp_secret"]),
    )


def rights(user: User) -> str:
    """Return roles and addresses as the list of changes shows them."""
    grants = " ".join(sorted(map(str, user.grants)))
    return f"roles {grants or 'none'}, addresses {' '.join(user.addresses) or 'none'}"


def note(db: sqlite3.Connection, name: str, changed_by: str, text: str) -> None:
    """Note a change, and end the sessions of the user: they have the former rights."""
    log_change(db, name, changed_by, text)
    db.execute("DELETE FROM session WHERE user = ?", (name,))


def log_change(db: sqlite3.Connection, name: str, changed_by: str, text: str) -> None:
    """Add to the list of changes."""
    db.execute(
        "INSERT INTO user_change VALUES (?, ?, ?, ?)",
        (time.time(), changed_by, name, text),
    )


NO_PASSWORD = HASHER.hash(secrets.token_urlsafe())
