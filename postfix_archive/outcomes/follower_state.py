"""The state of the log follower, saved so that it may be killed at any time.

Used by outcomes.follower and outcomes.report_queue; outcomes.wait_for_outcome reads it.
A SQLite database in archive_fallback_directory: the position in the log, the queue
files that may still matter, the captures that are not settled, how far each journal was
read, the offsets of the journal lines about those captures' records, and the outcome
reports that are due. One commit for each batch of log lines. The database can be
deleted: it is rebuilt from the log and the journals, as is one that another version of
this program has saved. All SQLite errors are StoreFailed.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from postfix_archive.errors import StoreFailed
from postfix_archive.maillog import queue_file
from postfix_archive.maillog.queue_file import QueueFiles
from postfix_archive.store.outcome import Outcome
from postfix_archive.system import files, privileges

DATABASE_NAME = "outcomes.sqlite"
# Increase it when SCHEMA, queue_file.QueueFile or log_reader.Position change.
STATE_VERSION = "3"
PAGE_ROWS = 1000  # rows of a table that are read at once
VERSION_KEY = "version"
LAST_READ_FILE = "followed"  # touched when the log was read to its end
SCHEMA = """
CREATE TABLE IF NOT EXISTS word (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS file (key TEXT PRIMARY KEY, words TEXT);
CREATE TABLE IF NOT EXISTS capture (
    archive TEXT, capsule TEXT, id TEXT, captured TEXT, queue_id TEXT, at REAL,
    recipients TEXT, archives INTEGER, PRIMARY KEY (archive, capsule));
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
class PendingCapture:
    """An archived or supplement event with recipients that are not settled.

    ``archive_id`` is that of this capture; the record may have that of an earlier one.
    ``at`` is the Unix time of arrival, or of archiving if that is unknown.
    ``recipients`` are pairs of final and original recipient. ``archive_count``: so many
    archives have a capture of the message, or will have.
    """

    archive: str
    capsule: str
    record_id: str
    archive_id: str
    queue_id: str
    at: float
    recipients: tuple[tuple[str, str], ...]
    archive_count: int = 1


def touch_last_read(directory: str) -> None:
    """Record that the log was read to its end; an error is ignored."""
    privileges.touch(directory, LAST_READ_FILE)


def last_read_age(directory: str, now: float) -> float | None:
    """Return how many seconds ago (or ahead) the log was read to its end, or None."""
    last = files.modified_time(f"{directory}/{LAST_READ_FILE}")
    return None if last is None else abs(now - last)


# archive, record id, capture queue id, recipient, original, parent, is waiting
OutcomeKey = tuple[str, str, str, str, str, str, bool]


class FollowerState:
    """The database; all changes are one transaction until commit()."""

    def __init__(self, directory: str) -> None:
        """Open the database in a directory, or create it. Raises StoreFailed."""
        self._path = f"{directory}/{DATABASE_NAME}"
        try:
            self._database = self._open()
        except sqlite3.OperationalError as error:  # disk full or not mounted
            raise StoreFailed(f"{self._path}: {error}") from error
        except sqlite3.DatabaseError:
            self._recreate()

    def _open(self) -> sqlite3.Connection:
        for suffix in ("", "-journal", "-wal"):  # SQLite would block on a FIFO
            files.is_file(self._path + suffix)
        database = sqlite3.connect(self._path)
        try:
            [answer] = database.execute("PRAGMA quick_check(1)").fetchone()
            if answer != "ok":
                raise sqlite3.DatabaseError(answer)
            database.execute("PRAGMA auto_vacuum = FULL")  # shrink after a backlog
            database.executescript(SCHEMA)
            os.chmod(self._path, 0o600)
            _check_version(database)
        except (OSError, sqlite3.Error):
            database.close()
            raise
        return database

    def _recreate(self) -> None:
        """Replace a damaged database, or one of another version, by an empty one."""
        try:
            os.unlink(self._path)
            self._database = self._open()
        except (OSError, sqlite3.Error) as error:
            raise StoreFailed(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Close the database; uncommitted changes are lost."""
        self._database.close()

    def get_value(self, name: str) -> str:
        """Return a saved value, "" if there is none."""
        row = self._fetch_one("SELECT value FROM word WHERE name = ?", name)
        return str(row[0]) if row else ""

    def set_value(self, name: str, value: str) -> None:
        """Save a value."""
        self._execute("INSERT OR REPLACE INTO word VALUES (?, ?)", name, value)

    def load_queue_files(self, queue_files: QueueFiles) -> None:
        """Restore the saved queue files into queue_files.

        If one is damaged, the whole state is replaced by an empty one.
        """
        rows = self._execute("SELECT words FROM file ORDER BY rowid")
        try:
            files = [queue_file.from_dict(json.loads(row[0])) for row in rows]
        except (ValueError, TypeError, AttributeError):
            self._database.close()
            self._recreate()
            return
        for file in files:
            queue_files.restore(file)

    def save_queue_files(self, queue_files: QueueFiles) -> None:
        """Save the queue files that have changed since the last call."""
        for key in queue_files.changed_keys:
            fields = queue_files.as_dict(key)
            if fields is not None:
                self._execute(
                    "INSERT INTO file VALUES (?, ?)"
                    " ON CONFLICT (key) DO UPDATE SET words = excluded.words",
                    key,
                    json.dumps(fields),
                )
        for key in queue_files.dropped_keys:
            self._execute("DELETE FROM file WHERE key = ?", key)
        queue_files.changed_keys.clear()
        queue_files.dropped_keys.clear()

    def add_capture(self, capture: PendingCapture) -> None:
        """Add a capture from a journal."""
        self._execute(
            "INSERT OR IGNORE INTO capture VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            capture.archive,
            capture.capsule,
            capture.record_id,
            capture.archive_id,
            capture.queue_id,
            capture.at,
            json.dumps(capture.recipients),
            capture.archive_count,
        )

    def captures(self) -> Iterator[PendingCapture]:
        """Yield all captures that are not settled; those yielded may be removed."""
        for row in self._pages("capture", "*"):
            yield _parse_capture(row)

    def find_captures(
        self, *, archive_ids: list[str], queue_ids: list[str], capsules: list[str]
    ) -> list[PendingCapture]:
        """Return the captures with one of these archive ids, queue ids or capsules."""
        found: dict[tuple[str, str], PendingCapture] = {}
        wanted_names = (("captured", archive_ids), ("queue_id", queue_ids))
        for column, names in (*wanted_names, ("capsule", capsules)):
            query = f"SELECT * FROM capture WHERE {column} = ?"
            for name in names:
                for capture in map(_parse_capture, self._execute(query, name)):
                    found[capture.archive, capture.capsule] = capture
        return list(found.values())

    def remove_capture(self, capture: PendingCapture, *, has_report: bool) -> bool:
        """Remove a capture; tell whether it was the last one of its queue file.

        If has_report, removing the last capture of a record makes its outcome report
        due.
        """
        self._execute(
            "DELETE FROM capture WHERE archive = ? AND capsule = ?",
            capture.archive,
            capture.capsule,
        )
        record = (capture.archive, capture.record_id)
        self._execute(
            "DELETE FROM said WHERE archive = ? AND id = ? AND of = ?",
            *record,
            capture.queue_id,
        )
        if self._fetch_one(
            "SELECT 1 FROM capture WHERE archive = ? AND id = ?", *record
        ):
            pass
        elif has_report:
            self._execute("INSERT OR IGNORE INTO due VALUES (?, ?)", *record)
        else:
            self.remove_due_report(*record)
        others_query = "SELECT 1 FROM capture WHERE captured = ?"
        return self._fetch_one(others_query, capture.archive_id) is None

    def has_capture(self, archive: str, record_id: str, queue_id: str) -> bool:
        """Tell whether a record has such a capture that is not settled."""
        query = "SELECT 1 FROM capture WHERE archive = ? AND id = ? AND queue_id = ?"
        return self._fetch_one(query, archive, record_id, queue_id) is not None

    def is_open(self, archive: str, record_id: str) -> bool:
        """Tell whether a record has a capture that is not settled, or a due report."""
        row = self._fetch_one(
            "SELECT 1 FROM capture WHERE archive = ? AND id = ? UNION ALL"
            " SELECT 1 FROM due WHERE archive = ? AND id = ?",
            *(archive, record_id) * 2,
        )
        return row is not None

    def save_early_outcomes(
        self, archive_id: str, at: float, outcomes: list[Outcome]
    ) -> None:
        """Save the outcomes of a message whose archive copy is not stored yet.

        outcomes.wait_for_outcome reads them; at is Unix time.
        """
        outcomes_json = json.dumps([each.event_fields() for each in outcomes])
        self._execute(
            "INSERT OR REPLACE INTO early VALUES (?, ?, ?)",
            archive_id,
            at,
            outcomes_json,
        )

    def delete_early_outcomes(self, before: float) -> None:
        """Delete early outcomes before a Unix time; no archive copy waits longer."""
        self._execute("DELETE FROM early WHERE at < ?", before)

    def add_journal_line(self, archive: str, record_id: str, offset: int) -> None:
        """Save the offset of a journal line about a record."""
        self._execute(
            "INSERT OR IGNORE INTO line VALUES (?, ?, ?)", archive, record_id, offset
        )

    def journal_offsets(self, archive: str, record_id: str) -> list[int]:
        """Return the offsets of a record's journal lines since its last report."""
        rows = self._execute(
            "SELECT at FROM line WHERE archive = ? AND id = ? ORDER BY at",
            archive,
            record_id,
        )
        return [at for (at,) in rows]

    def has_due_reports(self) -> bool:
        """Tell whether an outcome report is due."""
        return self._fetch_one("SELECT 1 FROM due") is not None

    def due_reports(self) -> Iterator[tuple[str, str]]:
        """Yield archive and record id of each outcome report that is due.

        Those yielded may be removed.
        """
        for archive, record_id in self._pages("due", "archive, id"):
            yield archive, record_id

    def _pages(self, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a table, PAGE_ROWS in memory at a time."""
        query = (
            f"SELECT rowid, {columns} FROM {table} WHERE rowid > ?"
            f" ORDER BY rowid LIMIT {PAGE_ROWS}"
        )
        last = -1
        while rows := self._execute(query, last):
            last = rows[-1][0]
            yield from (row[1:] for row in rows)

    def remove_due_report(self, archive: str, record_id: str) -> None:
        """Record that an outcome report is no longer due."""
        for table in ("due", "line"):
            self._execute(
                f"DELETE FROM {table} WHERE archive = ? AND id = ?", archive, record_id
            )

    def add_recorded_outcome(self, key: OutcomeKey) -> None:
        """Record that a journal has this outcome."""
        self._execute("INSERT OR IGNORE INTO said VALUES (?, ?, ?, ?, ?, ?, ?)", *key)

    def is_recorded(self, key: OutcomeKey) -> bool:
        """Tell whether a journal has this outcome."""
        row = self._fetch_one(
            "SELECT 1 FROM said WHERE archive = ? AND id = ? AND of = ? AND"
            " recipient = ? AND original = ? AND parent = ? AND waiting = ?",
            *key,
        )
        return row is not None

    def commit(self) -> None:
        """Make all changes durable. Raises StoreFailed."""
        try:
            self._database.commit()
        except sqlite3.Error as error:
            raise StoreFailed(f"{self._path}: {error}") from error

    def _fetch_one(self, query: str, *parameters: object) -> tuple[object, ...] | None:
        return next(iter(self._execute(query, *parameters)), None)

    def _execute(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise StoreFailed(f"{self._path}: {error}") from error


def _check_version(database: sqlite3.Connection) -> None:
    """Set the version of a new database. Raises DatabaseError if it has another one."""
    try:
        values = dict(database.execute("SELECT name, value FROM word"))
    except sqlite3.OperationalError:
        return  # foreign tables: the first query names them
    if not values:
        database.execute("INSERT INTO word VALUES (?, ?)", (VERSION_KEY, STATE_VERSION))
    elif values.get(VERSION_KEY) != STATE_VERSION:
        raise sqlite3.DatabaseError("saved by another version")


def _parse_capture(row: tuple[Any, ...]) -> PendingCapture:
    archive, capsule, record_id, archive_id, queue_id, at, addresses, count = row
    recipients = tuple((final, first) for final, first in json.loads(addresses))
    return PendingCapture(
        archive, capsule, record_id, archive_id, queue_id, at, recipients, count
    )
