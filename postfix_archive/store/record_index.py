"""The offsets of the journal lines of each record, in a temporary database.

Used by record_reader, so that memory does not grow with the journal: SQLite keeps what
is beyond its cache in an unnamed file of $SQLITE_TMPDIR or /var/tmp. SQLite errors are
StoreFailed.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator

from postfix_archive.message import dates
from postfix_archive.system import key_set

# The first line of an id with a time begins its record.
RECORDS = """
SELECT id, begin FROM (
    SELECT id, min(offset) AS begin, time FROM line WHERE time != '' GROUP BY id
    HAVING time >= ? AND time < ? ORDER BY begin DESC LIMIT ?)
ORDER BY begin
"""
LINES = "SELECT offset FROM line WHERE id = ? AND offset >= ? ORDER BY offset"


class RecordIndex:
    """The index of one journal. A context manager."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # temporary: deleted when it is closed
        self._database.execute("CREATE TABLE line (id TEXT, offset INTEGER, time TEXT)")

    def __enter__(self) -> RecordIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, lines: Iterable[tuple[str, int, str]]) -> None:
        """Add (archive id, offset, time) of all lines; time is "" without envelope."""
        with key_set.translated_errors():
            self._database.executemany("INSERT INTO line VALUES (?, ?, ?)", lines)
            self._database.execute("CREATE INDEX by_id ON line (id, offset)")

    def offsets(
        self, since: float, until: float, last: int | None
    ) -> Iterator[list[int]]:
        """Yield the offsets of each record that begins at or after since, before until.

        In the order of their first captures; with last only that many, the last ones.
        """
        with key_set.translated_errors():
            values = (
                timestamp(since),
                timestamp(until),
                -1 if last is None else last,
            )
            for archive_id, begin in self._database.execute(RECORDS, values):
                rows = self._database.execute(LINES, (archive_id, begin))
                yield [offset for (offset,) in rows]


def timestamp(seconds: float) -> str:
    """Return a Unix time, rounded up, as the journal writes it."""
    if math.isinf(seconds):
        return "~"  # after every time
    return dates.format_rfc3339(max(0, math.ceil(seconds)))
