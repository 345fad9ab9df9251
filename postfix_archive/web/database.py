"""The database of the web page: users, sessions, saved searches, export jobs.

One SQLite file in web_directory, which belongs to archive_web_user. Nothing of the
archive is in it. Raises WebDatabaseFailed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator

from postfix_archive.errors import WebDatabaseFailed

VERSION = 1
BUSY_TIME = 10.0  # seconds that a writer waits for another
# Times are Unix times. data: JSON, of the user and what the pages keep.
TABLES = """
CREATE TABLE session (
    token_sha256 TEXT PRIMARY KEY, user TEXT NOT NULL, started REAL NOT NULL,
    used REAL NOT NULL, client TEXT NOT NULL, data TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX session_user ON session (user);
CREATE TABLE local_user (
    name TEXT PRIMARY KEY, password_hash TEXT NOT NULL, grants TEXT NOT NULL,
    addresses TEXT NOT NULL, display_name TEXT NOT NULL,
    is_disabled INTEGER NOT NULL DEFAULT 0,
    must_change_password INTEGER NOT NULL DEFAULT 0,
    totp_secret TEXT NOT NULL DEFAULT '', totp_step INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE saved_search (
    user TEXT NOT NULL, name TEXT NOT NULL, query TEXT NOT NULL, sort TEXT NOT NULL,
    archives TEXT NOT NULL, PRIMARY KEY (user, name)
) WITHOUT ROWID;
CREATE TABLE export_job (
    job_id TEXT PRIMARY KEY, user TEXT NOT NULL, created REAL NOT NULL,
    state TEXT NOT NULL, total INTEGER NOT NULL, done INTEGER NOT NULL,
    data TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX export_job_user ON export_job (user);
CREATE TABLE recovery_code (
    name TEXT NOT NULL, code_sha256 TEXT NOT NULL, PRIMARY KEY (name, code_sha256)
) WITHOUT ROWID;
CREATE TABLE login_failure (
    subject TEXT PRIMARY KEY, count INTEGER NOT NULL, until REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE login_address (
    name_sha256 TEXT NOT NULL, network TEXT NOT NULL, time REAL NOT NULL,
    PRIMARY KEY (name_sha256, network)
) WITHOUT ROWID;
CREATE TABLE api_token (
    name TEXT PRIMARY KEY, user TEXT NOT NULL, token_sha256 TEXT NOT NULL UNIQUE,
    created REAL NOT NULL, expires REAL NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE user_change (
    time REAL NOT NULL, changed_by TEXT NOT NULL, name TEXT NOT NULL, text TEXT NOT NULL
);
CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
KEY_SIZE = 32  # bytes


@contextlib.contextmanager
def open_database(path: str) -> Iterator[sqlite3.Connection]:
    """Open the database, made if there is none, and commit at the end."""
    try:
        with contextlib.closing(connect(path)) as db:
            with db:
                yield db
    except sqlite3.Error as error:
        raise WebDatabaseFailed(
            f"{path}: {error}; archive_web_user must be able to write it and its"
            " directory"
        ) from error


def secret_key(path: str) -> bytes:
    """Return the key that signs what forms carry, made at the first call."""
    with open_database(path) as db:
        db.execute(
            "INSERT OR IGNORE INTO secret VALUES ('forms', ?)",
            (secrets.token_bytes(KEY_SIZE),),
        )
        [key] = db.execute("SELECT value FROM secret WHERE name = 'forms'").fetchone()
    found: bytes = key
    return found


def connect(path: str) -> sqlite3.Connection:
    """Return a connection; see open_database().

    The server keeps one open that it does not use: closing the last connection removes
    the files of the WAL, and opening the next one makes them again, for each request.
    """
    umask = os.umask(0o077)
    try:
        db = sqlite3.connect(path, timeout=BUSY_TIME)
    finally:
        os.umask(umask)
    try:
        db.row_factory = sqlite3.Row
        [version] = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            db.executescript(
                f"PRAGMA journal_mode = WAL; BEGIN IMMEDIATE; {TABLES}"
                f"PRAGMA user_version = {VERSION}; COMMIT"
            )
        elif version != VERSION:
            raise WebDatabaseFailed(
                f"{path} is of version {version} of this program, which has {VERSION}:"
                " install that version, or move the file away and add the users again"
            )
    except BaseException:
        db.close()
        raise
    return db
