"""A set of texts in a temporary database: memory does not grow with it.

Used by export/run for what is exported and by mail_import/run for what the archive has.
SQLite keeps what is beyond its cache in an unnamed file of $SQLITE_TMPDIR or /var/tmp.
Keeps 16 bytes of the SHA-256 of each text. SQLite errors are StoreFailed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from postfix_archive.errors import StoreFailed
from postfix_archive.message import digest

KEY_SIZE = 16  # bytes: no two of 2**40 texts are taken for one


class KeySet:
    """A set of texts; close() deletes it."""

    def __init__(self) -> None:
        with translated_errors():
            self._database = sqlite3.connect("", isolation_level=None)
            self._database.execute("PRAGMA journal_mode = OFF")
            self._database.execute(
                "CREATE TABLE word (key BLOB PRIMARY KEY) WITHOUT ROWID"
            )
            self._database.execute("BEGIN")

    def add(self, text: str) -> bool:
        """Add a text; False if it is there already."""
        with translated_errors():
            statement = "INSERT OR IGNORE INTO word VALUES (?)"
            return self._database.execute(statement, (_key(text),)).rowcount == 1

    def discard(self, text: str) -> None:
        """Remove a text."""
        with translated_errors():
            self._database.execute("DELETE FROM word WHERE key = ?", (_key(text),))

    def __contains__(self, text: str) -> bool:
        with translated_errors():
            statement = "SELECT 1 FROM word WHERE key = ?"
            row = self._database.execute(statement, (_key(text),)).fetchone()
        return row is not None

    def close(self) -> None:
        """Delete the set."""
        self._database.close()


def _key(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    return digest.sha256(encoded).digest()[:KEY_SIZE]


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Raise errors of a temporary SQLite database as StoreFailed."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreFailed(
            f"temporary database: {error}; check the free space of /var/tmp and /tmp"
        ) from error
