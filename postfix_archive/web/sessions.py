"""Sessions: kept in the database of the page, named by a cookie.

The cookie is random, and the database has only its SHA-256: who reads the database can
use no session. A session ends web_session_time after its last request, when its user
logs out, and when a user is disabled; logging in always begins a new one, so nobody can
be given a session that somebody else knows.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from typing import Any

from flask import Flask, Request, Response, g, session
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.datastructures import CallbackDict

from postfix_archive.web import database, site
from postfix_archive.web.user import Grant, Role, User

USER = "user"  # key of the session
TOKEN_SIZE = 32  # bytes
COOKIE_LIMIT = 100  # characters


class ServerSession(CallbackDict[str, Any], SessionMixin):
    """The data of one session; its ``token`` is "" until it has been saved."""

    def __init__(self, data: dict[str, Any], token: str) -> None:
        super().__init__(data, lambda _: setattr(self, "modified", True))
        self.token = token
        self.modified = False
        self.is_renewed = False


class DatabaseSessions(SessionInterface):
    """Opens and saves the sessions of an application."""

    def open_session(self, app: Flask, request: Request) -> ServerSession:
        """Return the session that the cookie names, else an empty one."""
        found = app.extensions[site.NAME]
        token = request.cookies.get(self.get_cookie_name(app), "")[:COOKIE_LIMIT]
        if not token:
            return ServerSession({}, "")
        oldest = time.time() - found.web.web_session_time
        with database.open_database(found.web.database_path) as db:
            row = db.execute(
                "UPDATE session SET used = ? WHERE token_sha256 = ? AND used > ?"
                " RETURNING data",
                (time.time(), _digest(token), oldest),
            ).fetchone()
        return (
            ServerSession(json.loads(row[0]), token) if row else ServerSession({}, "")
        )

    def save_session(
        self, app: Flask, session: SessionMixin, response: Response
    ) -> None:
        """Write what has changed, and give the cookie of a new session."""
        assert isinstance(session, ServerSession)
        if not session.modified:
            return
        response.vary.add("Cookie")
        found = app.extensions[site.NAME]
        now = time.time()
        with database.open_database(found.web.database_path) as db:
            old = session.token
            if session.is_renewed or not session:
                db.execute(
                    "DELETE FROM session WHERE token_sha256 = ?", (_digest(old),)
                )
                session.token = ""
            db.execute(
                "DELETE FROM session WHERE used <= ?",
                (now - found.web.web_session_time,),
            )
            if session:
                session.token = session.token or secrets.token_urlsafe(TOKEN_SIZE)
                db.execute(
                    "INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?)",
                    (
                        _digest(session.token),
                        session.get(USER, {}).get("name", ""),
                        now,
                        json.dumps(dict(session)),
                    ),
                )
        self._set_cookie(app, session, response, old)

    def _set_cookie(
        self, app: Flask, session: ServerSession, response: Response, old: str
    ) -> None:
        name = self.get_cookie_name(app)
        options: dict[str, Any] = {
            "path": "/",
            "secure": self.get_cookie_secure(app),
            "httponly": True,
            "samesite": self.get_cookie_samesite(app),
        }
        if not session:
            response.delete_cookie(name, **options)
        elif session.token != old:
            response.set_cookie(name, session.token, **options)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def log_in(user: User) -> None:
    """Begin the session of a user, with a new cookie; what it had before is gone."""
    assert isinstance(session, SessionMixin)
    session.clear()
    session[USER] = fields_of(user)
    _renew()


def log_out() -> None:
    """End the session."""
    session.clear()
    _renew()


def _renew() -> None:
    found: Any = session
    found._get_current_object().is_renewed = True


def fields_of(user: User) -> dict[str, Any]:
    """Return a user as JSON."""
    return {
        "name": user.name,
        "source": user.source,
        "grants": sorted(map(str, user.grants)),
        "addresses": list(user.addresses),
        "display_name": user.display_name,
    }


def user_of(fields: dict[str, Any]) -> User:
    """Return the user that fields_of() has written."""
    return User(
        fields["name"],
        fields["source"],
        frozenset(map(parse_grant, fields["grants"])),
        tuple(fields["addresses"]),
        fields["display_name"],
    )


def parse_grant(text: str) -> Grant:
    """Return the grant in ``role:archive``. Raises ValueError."""
    role, _, archive = text.partition(":")
    return Grant(Role(role), archive)


def install(app: Flask) -> None:
    """Let an application use these sessions, and know its user as ``g.user``."""
    app.session_interface = DatabaseSessions()

    def load_user() -> None:
        g.user = user_of(session[USER]) if USER in session else None

    app.before_request(load_user)
