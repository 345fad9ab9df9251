"""What the follower of the log knows, kept so that it may die at any time.

Used by front/outcomes. A SQLite file in archive_fallback_directory: where the log was
read to, which queue files matter still, which captures are not settled, how far each
journal was read, where in it the lines of those captures' records are, and which
outcome reports are due. One commit for each piece of log. It can be deleted: it is made
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
from postfix_archive.core.outcome import Outcome
from postfix_archive.core.queuefiles import QueueFiles

NAME = "outcomes.sqlite"
LOOKED = "followed"  # touched whenever the log was read to its end
SCHEMA = """
CREATE TABLE IF NOT EXISTS word (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS file (key TEXT PRIMARY KEY, words TEXT);
CREATE TABLE IF NOT EXISTS capture (
    archive TEXT, capsule TEXT, id TEXT, captured TEXT, queue_id TEXT, at REAL,
    recipients TEXT, PRIMARY KEY (archive, capsule));
CREATE INDEX IF NOT EXISTS by_archive_id ON capture (captured);
CREATE INDEX IF NOT EXISTS by_queue_id ON capture (queue_id);
CREATE INDEX IF NOT EXISTS by_capsule ON capture (capsule);
CREATE INDEX IF NOT EXISTS by_record ON capture (archive, id);
CREATE TABLE IF NOT EXISTS said (
    archive TEXT, id TEXT, of TEXT, recipient TEXT, original TEXT, parent TEXT,
    waiting INTEGER,
    PRIMARY KEY (archive, id, of, recipient, original, parent, waiting));
CREATE TABLE IF NOT EXISTS line (
    archive TEXT, id TEXT, at INTEGER, PRIMARY KEY (archive, id, at)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS early (id TEXT PRIMARY KEY, at REAL, outcomes TEXT);
CREATE TABLE IF NOT EXISTS due (archive TEXT, id TEXT, PRIMARY KEY (archive, id));
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
        try:
            base.execute("PRAGMA quick_check").fetchone()
            base.executescript(SCHEMA)
            os.chmod(self._path, 0o600)
        except (OSError, sqlite3.Error):
            base.close()
            raise
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
        try:
            yield from map(_capture, self._base.execute("SELECT * FROM capture"))
        except sqlite3.Error as problem:
            raise StoreFailed(f"{self._path}: {problem}") from problem

    def captures_of(
        self, *, archive_ids: list[str], queue_ids: list[str], capsules: list[str]
    ) -> list[Capture]:
        """Return those of them with one of these names."""
        found: dict[tuple[str, str], Capture] = {}
        wanted = (("captured", archive_ids), ("queue_id", queue_ids))
        for column, names in (*wanted, ("capsule", capsules)):
            query = f"SELECT * FROM capture WHERE {column} = ?"
            for name in names:
                for each in map(_capture, self._do(query, name)):
                    found[each.archive, each.capsule] = each
        return list(found.values())

    def settle(self, capture: Capture, *, has_report: bool) -> bool:
        """Forget a capture; tell whether it was the last one of its queue file.

        The last one of its record has the report due, if it has_report.
        """
        self._do(
            "DELETE FROM capture WHERE archive = ? AND capsule = ?",
            capture.archive,
            capture.capsule,
        )
        record = (capture.archive, capture.record_id)
        self._do(
            "DELETE FROM said WHERE archive = ? AND id = ? AND of = ?",
            *record,
            capture.queue_id,
        )
        if self._one("SELECT 1 FROM capture WHERE archive = ? AND id = ?", *record):
            pass
        elif has_report:
            self._do("INSERT OR IGNORE INTO due VALUES (?, ?)", *record)
        else:
            self.reported(*record)
        left = "SELECT 1 FROM capture WHERE captured = ?"
        return self._one(left, capture.archive_id) is None

    def tell_early(self, archive_id: str, at: float, told: list[Outcome]) -> None:
        """Note what became of a message whose copy is not kept yet; see early()."""
        words = json.dumps([each.words() for each in told])
        self._do("INSERT OR REPLACE INTO early VALUES (?, ?, ?)", archive_id, at, words)

    def forget_early(self, before: float) -> None:
        """Drop what was noted for copies of messages that old; no copy waits longer."""
        self._do("DELETE FROM early WHERE at < ?", before)

    def note_line(self, archive: str, record_id: str, at: int) -> None:
        """Note that a journal has a line about a record at this offset."""
        self._do("INSERT OR IGNORE INTO line VALUES (?, ?, ?)", archive, record_id, at)

    def lines_of(self, archive: str, record_id: str) -> list[int]:
        """Return the offsets of the lines about a record since its last report."""
        found = self._base.execute(
            "SELECT at FROM line WHERE archive = ? AND id = ? ORDER BY at",
            (archive, record_id),
        )
        return [at for (at,) in found]

    def due(self) -> list[tuple[str, str]]:
        """Return archive and id of the records whose outcome reports are due."""
        return self._base.execute("SELECT archive, id FROM due").fetchall()

    def reported(self, archive: str, record_id: str) -> None:
        """Note that a report is due no longer."""
        for table in ("due", "line"):
            self._do(
                f"DELETE FROM {table} WHERE archive = ? AND id = ?", archive, record_id
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


def _capture(row: tuple[Any, ...]) -> Capture:
    archive, capsule, record_id, archive_id, queue_id, at, people = row
    pairs = tuple((final, first) for final, first in json.loads(people))
    return Capture(archive, capsule, record_id, archive_id, queue_id, at, pairs)
