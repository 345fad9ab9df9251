"""Sessions: kept in the database of the page, named by a cookie.

The cookie is random, and the database has only its SHA-256: who reads the database can
use no session. A session ends web_session_time after its last request and
web_session_limit after the login, when its user logs out, and when the password, the
roles or the state of that user change; logging in always begins a new one, so nobody
can be given a session that somebody else knows. What has ended is known for a day: a
form that was sent too late is kept for its user (kept_form).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import sqlite3
import time
from typing import Any, NamedTuple

from flask import Flask, Request, Response, g, request, session
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.datastructures import CallbackDict

from postfix_archive.errors import WebDatabaseFailed
from postfix_archive.web import database, site
from postfix_archive.web.user import Grant, User
from postfix_archive.web.web_settings import WebSettings

USER = "user"  # key of the session
PENDING = "pending"  # key of the session: whose password was right, and now a code
NOBODY = ""  # whose session it is before the login
KEPT = ("language",)  # keys that outlive a login
TOKEN_SIZE = 32  # bytes
COOKIE_LIMIT = 100  # characters
USED_PRECISION = 60.0  # seconds: not every request writes
FORMER_TIME = 86400.0  # seconds


class ServerSession(CallbackDict[str, Any], SessionMixin):
    """The data of one session; its ``token`` is "" until it has been saved.

    ``former`` is what the session had that has ended, for kept_form alone.
    """

    def __init__(self, data: dict[str, Any], token: str) -> None:
        super().__init__(data, lambda _: setattr(self, "modified", True))
        self.token = token
        self.former: dict[str, Any] = {}
        self.modified = False
        self.is_renewed = False


class OpenSession(NamedTuple):
    """A session of a user; ``id`` names it and cannot be used as its cookie."""

    id: str
    started: float  # Unix time
    used: float  # Unix time, to a minute
    client: str  # address


class DatabaseSessions(SessionInterface):
    """Opens and saves the sessions of an application."""

    def open_session(self, app: Flask, request: Request) -> ServerSession:
        """Return the session that the cookie names, else an empty one."""
        web = app.extensions[site.NAME].web
        token = request.cookies.get(self.get_cookie_name(app), "")[:COOKIE_LIMIT]
        if not token:
            return ServerSession({}, "")
        now = time.time()
        with database.open_database(web.database_path) as db:
            row = db.execute(
                "SELECT used, started, data FROM session WHERE token_sha256 = ?",
                (digest(token),),
            ).fetchone()
            if row is None:
                return ServerSession({}, "")
            if not _is_open(row, web, now):
                session = ServerSession({}, "")
                session.former = json.loads(row["data"])
                return session
        if row["used"] < now - USED_PRECISION:
            _set_used(web, token, now)
        return ServerSession(json.loads(row["data"]), token)

    def save_session(
        self, app: Flask, session: SessionMixin, response: Response
    ) -> None:
        """Write what has changed, and give the cookie of a new session."""
        assert isinstance(session, ServerSession)
        if not session.modified:
            return
        response.vary.add("Cookie")
        web = app.extensions[site.NAME].web
        old = session.token
        with database.open_database(web.database_path) as db:
            if old and (session.is_renewed or not session):
                db.execute("DELETE FROM session WHERE token_sha256 = ?", (digest(old),))
                session.token = ""
            if session:
                self._write(db, session, web.web_session_time)
        self._set_cookie(app, session, response, old)

    def _write(
        self, db: sqlite3.Connection, session: ServerSession, session_time: int
    ) -> None:
        data = json.dumps(dict(session))
        if session.token:
            # Nothing is written if it has been ended meanwhile.
            db.execute(
                "UPDATE session SET data = ? WHERE token_sha256 = ?",
                (data, digest(session.token)),
            )
            return
        now = time.time()
        db.execute(
            "DELETE FROM session WHERE used <= ? OR (user = ? AND used <= ?)",
            (now - session_time - FORMER_TIME, NOBODY, now - session_time),
        )
        session.token = secrets.token_urlsafe(TOKEN_SIZE)
        fields = session.get(USER) or session.get(PENDING) or {"name": NOBODY}
        user = fields["name"]
        client = request.remote_addr or ""
        db.execute(
            "INSERT INTO session VALUES (?, ?, ?, ?, ?, ?)",
            (digest(session.token), user, now, now, client, data),
        )

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


def digest(token: str) -> str:
    """Return what the database keeps of a secret that is random."""
    return hashlib.sha256(token.encode()).hexdigest()


def _set_used(web: WebSettings, token: str, now: float) -> None:
    """Write when a session was last used; a full disk stops no reading."""
    with (
        contextlib.suppress(WebDatabaseFailed),
        database.open_database(web.database_path) as db,
    ):
        db.execute(
            "UPDATE session SET used = ? WHERE token_sha256 = ?", (now, digest(token))
        )


def _is_open(row: sqlite3.Row, web: WebSettings, now: float) -> bool:
    is_used = bool(row["used"] > now - web.web_session_time)
    return is_used and bool(row["started"] > now - web.web_session_limit)


def of_user(db: sqlite3.Connection, web: WebSettings, name: str) -> list[OpenSession]:
    """Return the open sessions of a user, the last one used first."""
    now = time.time()
    rows = db.execute(
        "SELECT * FROM session WHERE user = ? ORDER BY used DESC", (name,)
    )
    return [
        OpenSession(each["token_sha256"], each["started"], each["used"], each["client"])
        for each in rows
        if _is_open(each, web, now)
    ]


def current_id() -> str:
    """Return OpenSession.id of this request's session."""
    found: Any = session
    return digest(found._get_current_object().token)


def end(db: sqlite3.Connection, name: str, session_id: str) -> None:
    """End a session of a user; of nobody else."""
    db.execute(
        "DELETE FROM session WHERE user = ? AND token_sha256 = ?", (name, session_id)
    )


def log_in(user: User) -> None:
    """Begin the session of a user, with a new cookie; what it had before is gone."""
    assert isinstance(session, SessionMixin)
    kept = {name: session[name] for name in KEPT if name in session}
    session.clear()
    session.update(kept)
    session[USER] = to_fields(user)
    renew()


def log_out() -> None:
    """End the session."""
    session.clear()
    renew()


def renew() -> None:
    """Give the session a new cookie."""
    found: Any = session
    found._get_current_object().is_renewed = True


def to_fields(user: User) -> dict[str, Any]:
    """Return a user as the session keeps it."""
    return {
        "name": user.name,
        "source": user.source,
        "grants": sorted(map(str, user.grants)),
        "addresses": list(user.addresses),
        "display_name": user.display_name,
    }


def user_of(fields: dict[str, Any]) -> User:
    """Return the user of to_fields()."""
    return User(
        fields["name"],
        fields["source"],
        frozenset(map(Grant.parse, fields["grants"])),
        tuple(fields["addresses"]),
        fields["display_name"],
    )


def install(app: Flask) -> None:
    """Let an application use these sessions, and know its user as ``g.user``."""
    app.session_interface = DatabaseSessions()

    def load_user() -> None:
        g.user = user_of(session[USER]) if USER in session else None

    app.before_request(load_user)
