"""Recognises mail that comes back without a stamp, by what was captured before.

Used where mail gets no stamp (native mode): stamp_filter looks up what comes,
archive_transport/transport adds what it has stored in full, retention/removal lets it
forget what is removed. A SQLite database beside
the spool has size and SHA-256 of the messages that the archives have stored in full in
the last PERIOD. When one of them comes back unaltered, below the Received: fields of
other hosts, it is found among them. An entry is a hint: the transport compares the
message with the copy, so a wrong one can hide nothing.

The database is derived: it is not durable, and where it is missing or damaged it is
made from the journals' ends. Any failure means that nothing is known, and the message
is stored in full; the failure log says why.
"""

from __future__ import annotations

import posix as os

from postfix_archive.errors import DeadlineExceeded
from postfix_archive.message import dates, digest, received_header
from postfix_archive.store import journal
from postfix_archive.store.archive import of_settings
from postfix_archive.system import files, spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _sqlite3 import Connection
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import TypeVar

    from postfix_archive.config.settings import Settings
    from postfix_archive.store.copy_file import Capture
    from postfix_archive.system.spool import Spool

    Row = tuple[str, int, bytes, str, str]
    Result = TypeVar("Result")

PERIOD = 30 * dates.DAY_SECONDS
# Bytes of a journal from which the database is made: some 90,000 messages, three
# seconds of CPU. One message waits for it, in the queue.
JOURNAL_SIZE = 256 << 20
DELETION_INTERVAL = 3600  # seconds in which a worker deletes old entries once
BATCH_SIZE = 1000  # rows a transaction: other workers wait for its end
LOCK_TIMEOUT = 0.5  # seconds
REMOVAL_LOCK_TIMEOUT = 10_000  # milliseconds; a removal waits, mail does not
FAILURE_PAUSE = 60  # seconds after a failure until the database is opened again
VERSION = 1  # of the table; a database of another is made anew
STORE_DIGITS = 16  # of the SHA-256 of the store's path: instances may share a directory
# Result codes of SQLite (https://www.sqlite.org/rescode.html).
BUSY, CORRUPT, NOT_A_DATABASE = 5, 11, 26
PRIMARY_CODE = 0xFF  # the bits of a result code that are not its extension

TABLE = """
    CREATE TABLE captures (
        archive TEXT, size INTEGER, sha256 BLOB, id TEXT, time TEXT,
        PRIMARY KEY (archive, size, sha256)
    ) WITHOUT ROWID
"""
# The time is written as in the journal: RFC 3339, UTC.
TIME_INDEX = "CREATE INDEX captures_by_time ON captures (time)"
KNOWN_SIZES = """
    WITH candidates (size) AS (VALUES {})
    SELECT size FROM candidates WHERE EXISTS (
        SELECT 1 FROM captures WHERE archive = ? AND captures.size = candidates.size
    )
"""
SELECT = "SELECT id FROM captures WHERE archive = ? AND size = ? AND sha256 = ?"
REPLACE = "INSERT OR REPLACE INTO captures VALUES (?, ?, ?, ?, ?)"
INSERT = "INSERT OR IGNORE INTO captures VALUES (?, ?, ?, ?, ?)"
DELETE = "DELETE FROM captures WHERE archive = ? AND id IN ({})"
DELETE_OLD = "DELETE FROM captures WHERE time < ?"


class RecentCaptures:
    """The captures of the last PERIOD, for one message or for those of a worker."""

    __slots__ = ("_connection", "_directory", "_failure", "_name", "_settings") + (
        "_next_deletion",
    )

    def __init__(self, settings: Settings) -> None:
        """Open nothing yet."""
        store_digest = digest.sha256_hex(settings.archive_store_directory.encode())
        self._settings = settings
        self._directory = settings.archive_spool_directory
        self._name = f".postfix-archive-{store_digest[:STORE_DIGITS]}.captures"
        self._failure = spool.FailureMarker(
            self._directory, f"{self._name}-failed", FAILURE_PAUSE
        )
        self._connection: Connection | None = None
        self._next_deletion = 0  # Unix time

    @property
    def path(self) -> str:
        """The path of the database, which may not exist. Raises OSError."""
        return spool.own_path(self._directory, self._name)

    def close(self) -> None:
        """Close the database."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def find(
        self, message: Spool, head: bytes, archives: Iterable[str], now: int
    ) -> dict[str, tuple[str, int]]:
        """Return of which message each archive may have the content of this one.

        By archive: the archive id, and the offset at which that message begins in this
        one. head is the first bytes of the message, now is Unix time.
        """
        offsets = received_header.content_offsets(head)
        if not offsets:
            return {}

        def look_up(connection: Connection) -> dict[str, tuple[str, int]]:
            found = {}
            for archive in archives:
                hit = self._find_in(connection, message, offsets, archive)
                if hit is not None:
                    found[archive] = hit
            return found

        return self._attempt(look_up, now) or {}

    def _find_in(
        self, connection: Connection, message: Spool, offsets: list[int], archive: str
    ) -> tuple[str, int] | None:
        sizes = [message.size - each for each in offsets]
        query = KNOWN_SIZES.format(", ".join(["(?)"] * len(sizes)))
        known_sizes = {size for (size,) in connection.execute(query, (*sizes, archive))}
        offsets = [each for each in offsets if message.size - each in known_sizes]
        for offset, sha256 in message.digests(offsets).items() if offsets else ():
            key = (archive, message.size - offset, sha256)
            for (record_id,) in connection.execute(SELECT, key):
                if received_header.is_archive_id(str(record_id)) and of_settings(
                    self._settings, archive
                ).has_copy(record_id):
                    return record_id, offset
        return None

    def add(self, archive: str, capture: Capture, now: int) -> None:
        """Add a message that was stored in full; now is Unix time."""
        time = dates.format_rfc3339(now)
        sha256 = bytes.fromhex(capture.sha256)
        row = (archive, capture.size, sha256, capture.record_id, time)

        def replace(connection: Connection) -> None:
            connection.execute(REPLACE, row)  # a transaction by itself
            if now >= self._next_deletion:
                oldest = dates.format_rfc3339(now - PERIOD)
                connection.execute(DELETE_OLD, (oldest,))
                self._next_deletion = now + DELETION_INTERVAL

        self._attempt(replace, now)

    def forget(self, archive: str, record_ids: Collection[str], now: int) -> None:
        """Delete the entries of messages that were removed; now is Unix time.

        Without a database nothing is made. One that cannot be changed is removed: the
        journals, from which it is made anew, do not have them any more.
        """
        if not files.exists(self.path):
            return

        def delete(connection: Connection) -> bool:
            connection.execute(f"PRAGMA busy_timeout = {REMOVAL_LOCK_TIMEOUT}")
            query = DELETE.format(", ".join("?" * len(record_ids)))
            connection.execute(query, (archive, *record_ids))
            return True

        if not self._attempt(delete, now):
            self.remove()
        self.close()

    def remove(self) -> None:
        """Remove the database; ignore errors."""
        self.close()
        try:
            os.unlink(self.path)
        except OSError:
            pass

    def _attempt(
        self, action: Callable[[Connection], Result], now: int
    ) -> Result | None:
        """Return the result of an action on the database, None if that fails."""
        if self._connection is None and self._failure.is_recent(now):
            return None
        try:
            if self._connection is None:
                self._connection = self._open(now)
            return action(self._connection)
        except DeadlineExceeded:
            raise
        except Exception as error:  # of a file that mail does not need
            self._note(error)
            return None

    def _note(self, error: Exception) -> None:
        """Log a failure; give up the database unless it was only locked."""
        from postfix_archive.system import failure_log  # rarely needed

        code = _result_code(error)
        if code != BUSY:
            self.close()
            self._failure.touch()
        if code in (CORRUPT, NOT_A_DATABASE):
            self.remove()
        reason = f"{self._directory}/{self._name}: {error}; mail that comes back is"
        failure_log.record(
            {"reason": f"{reason} stored in full meanwhile"},
            config_directory=self._settings.config_directory,
            spool_directory=self._directory,
        )

    def _open(self, now: int) -> Connection:
        """Open the database, or make it. Raises sqlite3.Error and OSError."""
        # Not sqlite3, which imports datetime. Imported here: only native mode needs it.
        from _sqlite3 import DatabaseError

        try:
            return self._connect(now)
        except DatabaseError as error:
            if _result_code(error) not in (CORRUPT, NOT_A_DATABASE):
                raise
            self.remove()
            return self._connect(now)

    def _connect(self, now: int) -> Connection:
        from _sqlite3 import connect

        path = self.path
        if not files.exists(path):
            files.touch(path)  # by this user, and for nobody else to read
        connection = connect(path, timeout=LOCK_TIMEOUT, isolation_level=None)
        try:
            # No fsync, no file beside it: what a crash damages is made anew.
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("PRAGMA secure_delete = ON")  # what is erased is gone
            if _make_table(connection):
                self._add_from_journals(connection, now)
        except BaseException:
            connection.close()
            raise
        return connection

    def _add_from_journals(self, connection: Connection, now: int) -> None:
        """Add what the journals' ends say, the newest first."""
        rows = _recent_rows(self._settings.archive_store_directory, now)
        batch: list[Row] = []
        for row in rows:
            batch.append(row)
            if len(batch) == BATCH_SIZE:
                _insert(connection, batch)
                batch = []
        _insert(connection, batch)


def _make_table(connection: Connection) -> bool:
    """Make the table if there is none of this VERSION; return whether it is new.

    Whoever makes it fills it: others use it at once, and know less until then.
    """
    if _version(connection) == VERSION:
        return False
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if _version(connection) == VERSION:
            return False  # another worker has made it meanwhile
        connection.execute("DROP TABLE IF EXISTS captures")
        connection.execute(TABLE)
        connection.execute(TIME_INDEX)
        connection.execute(f"PRAGMA user_version = {VERSION}")
    return True


def _version(connection: Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _insert(connection: Connection, rows: list[Row]) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, rows)


def _recent_rows(store_directory: str, now: int) -> Iterator[Row]:
    """Yield a row for each message that was stored in full, the newest first.

    Raises StoreFailed and JournalFailed.
    """
    from postfix_archive.store import journal_reader, record_reader  # slow

    first_time = dates.format_rfc3339(now - PERIOD)
    for archive in record_reader.archives(store_directory):
        path = journal_reader.path_of(store_directory, archive)
        start = max(0, journal_reader.end_offset(path) - JOURNAL_SIZE)
        for line in journal_reader.lines_backwards(path):
            if line.offset < start or "" < line.time < first_time:
                break
            if line.kind != journal.ARCHIVED:
                continue
            event = journal_reader.valid_event(line)
            if event is not None:
                sha256 = bytes.fromhex(event["sha256"])
                yield archive, event["size"], sha256, event["id"], event["time"]


def _result_code(error: Exception) -> int:
    """Return SQLite's primary result code, 0 for an error of something else."""
    return getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE
