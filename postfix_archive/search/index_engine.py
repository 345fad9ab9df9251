"""What an engine for the index must be able to do, so that another can take its place.

Implemented by archive_index on SQLite; used by indexer. Raises IndexFailed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from postfix_archive.search.index_entry import ContentEntry, RecordEntry
from postfix_archive.store.journal_reader import Line


class IndexWriter(Protocol):
    """The index of one archive, open for its one writer.

    Changes become durable, all of them or none, by commit().
    """

    @property
    def position(self) -> int:
        """The offset in the journal up to which all events are in the index."""

    def offsets(self, archive_id: str) -> Sequence[int] | None:
        """Return the offsets of the lines of a message, None if it is not in here."""

    def add(
        self, record: RecordEntry, content: ContentEntry, offsets: Sequence[int]
    ) -> None:
        """Add a message."""

    def update(self, record: RecordEntry, offsets: Sequence[int]) -> None:
        """Replace what a record says about a message that is in here."""

    def remove(
        self, archive_ids: Sequence[str], content_of: Callable[[str], ContentEntry]
    ) -> None:
        """Remove messages; content_of returns what was added for an archive id."""

    def tidy(self) -> None:
        """Leave no word of removed messages in the files; after a commit()."""

    def add_decision(self, offset: int) -> None:
        """Add the offset of a line of one of journal.DECISION_EVENTS."""

    def commit(self, last_line: Line) -> None:
        """Make all changes durable, and the position: the end of this line."""
