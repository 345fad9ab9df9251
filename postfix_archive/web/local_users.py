"""Users that the page keeps itself: name, password, roles, addresses.

Used by the command user and by the login page. Passwords are kept as argon2id hashes
(RFC 9106). Raises LoginFailed and WebDatabaseFailed.
"""

from __future__ import annotations

import json
import sqlite3

import argon2

from postfix_archive.errors import LoginFailed
from postfix_archive.web.sessions import parse_grant
from postfix_archive.web.user import Grant, User

SOURCE = "local"
WRONG = "the name or the password is wrong"
HASHER = argon2.PasswordHasher()


def add(db: sqlite3.Connection, user: User, password: str) -> None:
    """Add a user. Raises LoginFailed if the name is taken."""
    try:
        db.execute(
            "INSERT INTO local_user VALUES (?, ?, ?, ?, ?, 0)",
            (
                user.name,
                HASHER.hash(password),
                json.dumps(sorted(map(str, user.grants))),
                json.dumps(user.addresses),
                user.display_name,
            ),
        )
    except sqlite3.IntegrityError:
        raise LoginFailed(f"there is a user {user.name} already") from None


def check(db: sqlite3.Connection, name: str, password: str) -> User:
    """Return the user of a name and password. Raises LoginFailed."""
    row = db.execute(
        "SELECT * FROM local_user WHERE name = ? AND NOT is_disabled", (name,)
    ).fetchone()
    try:
        # Also for a name that is not there: the time that it takes tells nothing.
        HASHER.verify(row["password_hash"] if row else NO_PASSWORD, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        raise LoginFailed(WRONG) from None
    if row is None:
        raise LoginFailed(WRONG)
    return User(
        row["name"],
        SOURCE,
        frozenset[Grant](map(parse_grant, json.loads(row["grants"]))),
        tuple(json.loads(row["addresses"])),
        row["display_name"],
    )


NO_PASSWORD = HASHER.hash("")
