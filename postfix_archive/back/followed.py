"""What the follower of the log knows, kept so that it may die at any time.

Used by front/outcomes. A SQLite file in archive_fallback_directory: where the log was
read to, which queue files matter still, which captures are not settled, and how far
each journal was read. One commit for each piece of log. It can be deleted: it is made
anew from the log that is there and from the journals.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from postfix_archive.back import acting
from postfix_archive.core.errors import StoreFailed
from postfix_archive.core.queuefiles import QueueFiles

NAME = "outcomes.sqlite"
LOOKED = "followed"  # touched whenever the log was read to its end
SCHEMA = """
CREATE TABLE IF NOT EXISTS word (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS file (key TEXT PRIMARY KEY, words TEXT);
CREATE TABLE IF NOT EXISTS capture (
    archive TEXT, capsule TEXT, id TEXT, captured TEXT, queue_id TEXT, at REAL,
    recipients TEXT, PRIMARY KEY (archive, capsule));
CREATE TABLE IF NOT EXISTS said (
    archive TEXT, id TEXT, of TEXT, recipient TEXT, original TEXT, parent TEXT,
    waiting INTEGER,
    PRIMARY KEY (archive, id, of, recipient, original, parent, waiting));
"""


@dataclass(frozen=True)
class Capture:
    """An archived or supplement event whose recipients are not all settled."""

    archive: str
    capsule: str
    record_id: str
    archive_id: str  # of this very capture; the record may have that of an earlier one
    queue_id: str
    at: float  # when it arrived, or else when it was archived; seconds since 1970
    recipients: tuple[tuple[str, str], ...]  # final and original


def note(folder: str) -> None:
    """Note that the log was read to its end; failing is no failure."""
    acting.note(folder, LOOKED)


def age(folder: str, now: float) -> float | None:
    """Return how many seconds ago (or ahead) that was, None if never."""
    try:
        return abs(now - os.lstat(f"{folder}/{LOOKED}").st_mtime)
    except OSError:
        return None


# archive, id, of, recipient, original, parent, is waiting
Said = tuple[str, str, str, str, str, str, bool]


class Followed:
    """The state; everything is in one transaction until commit()."""

    def __init__(self, folder: str) -> None:
        """Open the state in a folder, or begin a new one. Raises StoreFailed."""
        self._path = f"{folder}/{NAME}"
        try:
            self._base = self._opened()
        except sqlite3.OperationalError as problem:  # the disk is full, or away
            raise StoreFailed(f"{self._path}: {problem}") from problem
        except sqlite3.DatabaseError:
            self._begin_anew()

    def _opened(self) -> sqlite3.Connection:
        if os.path.islink(self._path):
            raise StoreFailed(f"{self._path} is a symlink: take it away")
        base = sqlite3.connect(self._path)
        base.execute("PRAGMA quick_check").fetchone()
        base.executescript(SCHEMA)
        os.chmod(self._path, 0o600)
        return base

    def _begin_anew(self) -> None:
        """A file that is damaged is worth nothing: it goes."""
        try:
            os.unlink(self._path)
            self._base = self._opened()
        except (OSError, sqlite3.Error) as problem:
            raise StoreFailed(f"{self._path}: {problem}") from problem

    def close(self) -> None:
        """Let go of it; what was not committed did not happen."""
        self._base.close()

    def word(self, name: str) -> str:
        """Return a word that was noted, nothing if none was."""
        found = self._one("SELECT value FROM word WHERE name = ?", name)
        return str(found[0]) if found else ""

    def note(self, name: str, value: str) -> None:
        """Note a word."""
        self._do("INSERT OR REPLACE INTO word VALUES (?, ?)", name, value)

    def load(self, queue: QueueFiles) -> None:
        """Give back all queue files that matter still."""
        for row in self._do("SELECT words FROM file ORDER BY rowid"):
            queue.load(json.loads(row[0]))

    def save(self, queue: QueueFiles) -> None:
        """Write down what has changed since the last time."""
        for key in queue.changed:
            words = queue.words(key)
            if words is not None:
                self._do(
                    "INSERT INTO file VALUES (?, ?)"
                    " ON CONFLICT (key) DO UPDATE SET words = excluded.words",
                    key,
                    json.dumps(words),
                )
        for key in queue.dropped:
            self._do("DELETE FROM file WHERE key = ?", key)
        queue.changed.clear()
        queue.dropped.clear()

    def add(self, capture: Capture) -> None:
        """Take in a capture that a journal tells of."""
        self._do(
            "INSERT OR IGNORE INTO capture VALUES (?, ?, ?, ?, ?, ?, ?)",
            capture.archive,
            capture.capsule,
            capture.record_id,
            capture.archive_id,
            capture.queue_id,
            capture.at,
            json.dumps(capture.recipients),
        )

    def captures(self) -> Iterator[Capture]:
        """Give all captures whose recipients are not all settled."""
        for row in self._do("SELECT * FROM capture"):
            archive, capsule, record_id, archive_id, queue_id, at, people = row
            pairs = tuple((final, first) for final, first in json.loads(people))
            yield Capture(archive, capsule, record_id, archive_id, queue_id, at, pairs)

    def settle(self, capture: Capture) -> None:
        """Forget a capture of which all is said."""
        self._do(
            "DELETE FROM capture WHERE archive = ? AND capsule = ?",
            capture.archive,
            capture.capsule,
        )
        self._do(
            "DELETE FROM said WHERE archive = ? AND id = ? AND of = ?",
            capture.archive,
            capture.record_id,
            capture.queue_id,
        )

    def say(self, said: Said) -> None:
        """Note that a journal has this outcome."""
        self._do("INSERT OR IGNORE INTO said VALUES (?, ?, ?, ?, ?, ?, ?)", *said)

    def is_said(self, said: Said) -> bool:
        """Tell whether a journal has this outcome."""
        found = self._one(
            "SELECT 1 FROM said WHERE archive = ? AND id = ? AND of = ? AND"
            " recipient = ? AND original = ? AND parent = ? AND waiting = ?",
            *said,
        )
        return found is not None

    def commit(self) -> None:
        """Make all of it durable. Raises StoreFailed."""
        try:
            self._base.commit()
        except sqlite3.Error as problem:
            raise StoreFailed(f"{self._path}: {problem}") from problem

    def _one(self, query: str, *words: object) -> tuple[object, ...] | None:
        return next(iter(self._do(query, *words)), None)

    def _do(self, query: str, *words: object) -> list[tuple[Any, ...]]:
        try:
            return self._base.execute(query, words).fetchall()
        except sqlite3.Error as problem:
            raise StoreFailed(f"{self._path}: {problem}") from problem
