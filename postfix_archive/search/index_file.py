"""The file of one index database: open it, tell damage from other errors, delete it.

Used by index_database, archive_index and search. Raises IndexFailed, and
IndexDamaged for a file that must be built again.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from collections.abc import Iterator

from postfix_archive.errors import IndexDamaged, IndexFailed, StoreFailed
from postfix_archive.search import index_schema
from postfix_archive.store import journal_reader
from postfix_archive.system import files, privileges

SUFFIX = ".db"
FILE_MODE = 0o640  # the group may read where the directory lets it
BUSY_SECONDS = 10.0
CACHE_SIZE = -16000  # PRAGMA cache_size: KiB
HEADER = struct.Struct(">16sH10xI")  # sqlite.org/fileformat.html: size of a page, pages
HEADER_SIZE = 32  # bytes that are read
# Parameters of sqlite.org/uri.html: no locks; no locks and no log.
UNLOCKED, IMMUTABLE = "&vfs=unix-none", "&immutable=1"
URI_ESCAPES = {ord(each): f"%{ord(each):02x}" for each in "%?#"}  # ibid.
DAMAGED = "-damaged"  # a file that a search makes: what it has read must be built again
SIDE_FILES = ("-wal", "-shm", "-journal", DAMAGED)
# They read the schema, the structure of each FTS5 index, and some pages of each.
CHECKS = (
    "SELECT * FROM message ORDER BY number DESC LIMIT 1",
    "SELECT rowid FROM message_text WHERE message_text MATCH 'a' LIMIT 1",
    "SELECT rowid FROM address_text WHERE address_text MATCH 'a' LIMIT 1",
)
# Primary result codes of SQLite that say: the content of the file is wrong.
DAMAGE_CODES = (
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
)


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Raise errors of SQLite and of the operating system as IndexFailed."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in DAMAGE_CODES:
            raise IndexDamaged(path, str(error)) from error
        raise IndexFailed(f"{path}: {error}; check its file system") from error
    except OSError as error:
        raise IndexFailed(f"{path}: {journal_reader.reason(error)}") from error


def open_for_writing(path: str) -> sqlite3.Connection:
    """Open a database for its one writer, or create it.

    A power cut can take the last commits (synchronous = NORMAL), never a part of one.
    """
    with translated(path):
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(path, flags, FILE_MODE))
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA cache_size = {CACHE_SIZE}")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            _check_length(path)
            _create_tables(connection)
            check_version(connection, path)
            for query in CHECKS:
                connection.execute(query).fetchone()
        except BaseException:
            connection.close()
            raise
        return connection


def open_for_reading(path: str) -> sqlite3.Connection:
    """Open a database for a reader, which changes nothing.

    In WAL mode a reader shares a file with the writer, ``-shm``. Where it is missing
    and this user cannot create it, no writer is there: the database is then read
    without it and without locks, with the log (``-wal``) of a killed writer, if any.
    """
    # Not as root, who would make -shm in a directory of another user.
    with translated(path), privileges.as_owner(os.path.dirname(path)):
        os.close(files.open_regular(path))  # no link, no FIFO
        try:
            return _open_for_reading(path, "")
        except sqlite3.OperationalError:
            if not os.access(path, os.R_OK):
                raise
            has_log = os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal")
            return _open_for_reading(path, UNLOCKED if has_log else IMMUTABLE)


def _open_for_reading(path: str, option: str) -> sqlite3.Connection:
    uri = f"file:{path.translate(URI_ESCAPES)}?mode=ro{option}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, cached_statements=0
    )
    try:
        if option == UNLOCKED:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA query_only = 1")
        check_version(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def check_version(connection: sqlite3.Connection, path: str) -> None:
    """Raise IndexDamaged for a database of another version or program."""
    [version] = connection.execute("PRAGMA user_version").fetchone()
    [application] = connection.execute("PRAGMA application_id").fetchone()
    if (version, application) != (index_schema.VERSION, index_schema.APPLICATION_ID):
        raise IndexDamaged(path, "made by another version of this program")


def _create_tables(connection: sqlite3.Connection) -> None:
    [count] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if count:
        return
    connection.execute("BEGIN IMMEDIATE")
    for statement in index_schema.TABLES.split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {index_schema.APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {index_schema.VERSION}")
    connection.execute("COMMIT")


def _check_length(path: str) -> None:
    """Raise IndexDamaged if the file is shorter than its header says."""
    with open(path, "rb") as file:
        header = file.read(HEADER_SIZE)
    if len(header) < HEADER_SIZE:
        return
    _, page_size, pages = HEADER.unpack_from(header)
    if os.stat(path).st_size < pages * (1 << 16 if page_size == 1 else page_size):
        raise IndexDamaged(path, "its end is missing")


def mark_damaged(path: str) -> bool:
    """Mark a database for the indexer, which builds it again; tell whether it is.

    Only root and the archive's user can.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError, StoreFailed):
        with privileges.as_owner(os.path.dirname(path)):
            os.close(os.open(path + DAMAGED, flags, FILE_MODE))
    return is_marked(path)


def is_marked(path: str) -> bool:
    """Tell whether a search has found a database damaged."""
    return os.path.exists(path + DAMAGED)


def remove(path: str) -> None:
    """Delete a database with its side files; a missing one is no error."""
    with translated(path):
        for each in (path, *(path + suffix for suffix in SIDE_FILES)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(each)
