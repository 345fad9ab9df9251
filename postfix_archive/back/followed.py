"""The state of the log follower, saved so that it may be killed at any time.

Used by outcomes.follower and outcomes.report_queue; outcomes.wait_for_outcome reads it.
A SQLite database in archive_fallback_directory: the position in the log, the queue
files that may still matter, the captures that are not settled, how far each journal was
read, the offsets of the journal lines about those captures' records, and the outcome
reports that are due. One commit for each batch of log lines. The database can be
deleted: it is rebuilt from the log and the journals. All SQLite errors are StoreFailed.
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
LOOKED = "followed"  # touched when the log was read to its end
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
    """An archived or supplement event with recipients that are not settled.

    ``archive_id`` is that of this capture; the record may have that of an earlier one.
    ``at`` is the Unix time of arrival, or of archiving if that is unknown.
    ``recipients`` are pairs of final and original recipient.
    """

    archive: str
    capsule: str
    record_id: str
    archive_id: str
    queue_id: str
    at: float
    recipients: tuple[tuple[str, str], ...]


def note(folder: str) -> None:
    """Record that the log was read to its end; an error is ignored."""
    acting.note(folder, LOOKED)


def age(folder: str, now: float) -> float | None:
    """Return how many seconds ago (or ahead) the log was read to its end, or None."""
    try:
        return abs(now - os.lstat(f"{folder}/{LOOKED}").st_mtime)
    except OSError:
        return None


# archive, record id, capture queue id, recipient, original, parent, is waiting
Said = tuple[str, str, str, str, str, str, bool]


class Followed:
    """The database; all changes are one transaction until commit()."""

    def __init__(self, folder: str) -> None:
        """Open the database in a directory, or create it. Raises StoreFailed."""
        self._path = f"{folder}/{NAME}"
        try:
            self._base = self._opened()
        except sqlite3.OperationalError as problem:  # disk full or not mounted
            raise StoreFailed(f"{self._path}: {problem}") from problem
        except sqlite3.DatabaseError:
            self._begin_anew()

    def _opened(self) -> sqlite3.Connection:
        if os.path.islink(self._path):
            raise StoreFailed(f"{self._path} is a symlink; remove it")
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
        """Replace a damaged database by an empty one."""
        try:
            os.unlink(self._path)
            self._base = self._opened()
        except (OSError, sqlite3.Error) as problem:
            raise StoreFailed(f"{self._path}: {problem}") from problem

    def close(self) -> None:
        """Close the database; uncommitted changes are lost."""
        self._base.close()

    def word(self, name: str) -> str:
        """Return a saved value, "" if there is none."""
        found = self._one("SELECT value FROM word WHERE name = ?", name)
        return str(found[0]) if found else ""

    def note(self, name: str, value: str) -> None:
        """Save a value."""
        self._do("INSERT OR REPLACE INTO word VALUES (?, ?)", name, value)

    def load(self, queue: QueueFiles) -> None:
        """Restore the saved queue files into queue_files."""
        for row in self._do("SELECT words FROM file ORDER BY rowid"):
            queue.load(json.loads(row[0]))

    def save(self, queue: QueueFiles) -> None:
        """Save the queue files that have changed since the last call."""
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
        """Add a capture from a journal."""
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
        """Yield all captures that are not settled."""
        try:
            yield from map(_capture, self._base.execute("SELECT * FROM capture"))
        except sqlite3.Error as problem:
            raise StoreFailed(f"{self._path}: {problem}") from problem

    def captures_of(
        self, *, archive_ids: list[str], queue_ids: list[str], capsules: list[str]
    ) -> list[Capture]:
        """Return the captures with one of these archive ids, queue ids or capsules."""
        found: dict[tuple[str, str], Capture] = {}
        wanted = (("captured", archive_ids), ("queue_id", queue_ids))
        for column, names in (*wanted, ("capsule", capsules)):
            query = f"SELECT * FROM capture WHERE {column} = ?"
            for name in names:
                for capture in map(_capture, self._do(query, name)):
                    found[capture.archive, capture.capsule] = capture
        return list(found.values())

    def settle(self, capture: Capture, *, has_report: bool) -> bool:
        """Remove a capture; tell whether it was the last one of its queue file.

        If has_report, removing the last capture of a record makes its outcome report
        due.
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
        """Save the outcomes of a message whose archive copy is not stored yet.

        outcomes.wait_for_outcome reads them; at is Unix time.
        """
        words = json.dumps([each.words() for each in told])
        self._do("INSERT OR REPLACE INTO early VALUES (?, ?, ?)", archive_id, at, words)

    def forget_early(self, before: float) -> None:
        """Delete early outcomes before a Unix time; no archive copy waits longer."""
        self._do("DELETE FROM early WHERE at < ?", before)

    def note_line(self, archive: str, record_id: str, at: int) -> None:
        """Save the offset of a journal line about a record."""
        self._do("INSERT OR IGNORE INTO line VALUES (?, ?, ?)", archive, record_id, at)

    def lines_of(self, archive: str, record_id: str) -> list[int]:
        """Return the offsets of a record's journal lines since its last report."""
        found = self._base.execute(
            "SELECT at FROM line WHERE archive = ? AND id = ? ORDER BY at",
            (archive, record_id),
        )
        return [at for (at,) in found]

    def due(self) -> list[tuple[str, str]]:
        """Return archive and record id of each outcome report that is due."""
        return self._base.execute("SELECT archive, id FROM due").fetchall()

    def reported(self, archive: str, record_id: str) -> None:
        """Record that an outcome report is no longer due."""
        for table in ("due", "line"):
            self._do(
                f"DELETE FROM {table} WHERE archive = ? AND id = ?", archive, record_id
            )

    def say(self, said: Said) -> None:
        """Record that a journal has this outcome."""
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
        """Make all changes durable. Raises StoreFailed."""
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
