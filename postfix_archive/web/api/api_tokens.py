"""Tokens with which programs use the REST API as a local user.

A token is random, and the database has only its SHA-256. It gives what its user may do
now: it ends with the user's disabling, with its own time, and when it is revoked. Used
by the command token and by the API. Raises UserInvalid and WebDatabaseFailed.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
import time
from typing import NamedTuple

from postfix_archive.errors import UserInvalid
from postfix_archive.web import sessions
from postfix_archive.web.login import local_users
from postfix_archive.web.user import User

PREFIX = "pfa_"  # so that programs which look for secrets in texts know one
TOKEN_SIZE = 32  # bytes
TOKEN_LIMIT = 100  # characters
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
SCHEME = "bearer"  # RFC 6750


class Token(NamedTuple):
    """A token as the page keeps it; times are Unix times, 0 for never."""

    name: str
    user: str
    created: float
    expires: float
    used: float  # to a minute


def add(
    db: sqlite3.Connection, name: str, user: str, *, expires: float, changed_by: str
) -> str:
    """Add a token of a user; return it, which is possible only now.

    expires: Unix time, 0 for never. Raises UserInvalid.
    """
    if not NAME.fullmatch(name):
        raise UserInvalid(
            f"{name}: the name of a token has 1 to 64 letters, digits, '.', '_' or '-'"
        )
    user = local_users.find(db, local_users.parse_name(user)).user.name
    token = PREFIX + secrets.token_urlsafe(TOKEN_SIZE)
    try:
        db.execute(
            "INSERT INTO api_token VALUES (?, ?, ?, ?, ?, 0)",
            (name, user, sessions.digest(token), time.time(), expires),
        )
    except sqlite3.IntegrityError:
        raise UserInvalid(f"there is a token {name} already") from None
    local_users.log_change(db, user, changed_by, f"token {name} added")
    return token


def revoke(db: sqlite3.Connection, name: str, *, changed_by: str) -> None:
    """Remove a token. Raises UserInvalid if there is none."""
    row = db.execute(
        "DELETE FROM api_token WHERE name = ? RETURNING user", (name,)
    ).fetchone()
    if row is None:
        raise UserInvalid(f"there is no token {name}: postfix-archive token list")
    local_users.log_change(db, row["user"], changed_by, f"token {name} revoked")


def read(db: sqlite3.Connection) -> list[Token]:
    """Return all tokens, by name."""
    rows = db.execute(
        "SELECT name, user, created, expires, used FROM api_token ORDER BY name"
    )
    return [Token(*each) for each in rows]


def user_of_token(db: sqlite3.Connection, token: str) -> User | None:
    """Return whose token it is, None if it is none that counts now."""
    now = time.time()
    row = db.execute(
        "SELECT name, user, expires, used FROM api_token WHERE token_sha256 = ?",
        (sessions.digest(token[:TOKEN_LIMIT]),),
    ).fetchone()
    if row is None or 0 < row["expires"] <= now:
        return None
    found = local_users.find_or_none(db, row["user"])
    if found is None or found.is_disabled:
        return None
    if row["used"] < now - sessions.USED_PRECISION:
        db.execute(
            "UPDATE api_token SET used = ? WHERE name = ?",
            (now, row["name"]),
        )
    return found.user


def token_in(authorization: str) -> str:
    """Return the token in an Authorization header, "" if there is none (RFC 6750)."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == SCHEME else ""
