"""What an engine for the index must be able to do, so that another can take its place.

Implemented on SQLite by archive_index, for indexer, and by index_reader, for search and
short_ids. Raises IndexFailed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from postfix_archive.message import dates
from postfix_archive.message.printable import safe_text
from postfix_archive.search.index_entry import ContentEntry, RecordEntry
from postfix_archive.search.query_nodes import Node
from postfix_archive.store.journal_reader import Line


class Query(NamedTuple):
    """A parsed query, its text, and the Unix time for which ``newer_than:`` asks."""

    node: Node
    text: str
    now: float


class NewMessage(NamedTuple):
    """A message for the index; offsets of its lines in the journal."""

    record: RecordEntry
    content: ContentEntry
    offsets: Sequence[int]


class Hit(NamedTuple):
    """One message that was found. Times are Unix times, ``sent`` that of Date:."""

    archive: str
    year: str
    number: int
    archive_id: str
    archived: int
    arrived: int
    sent: int | None
    size: int
    sha256: str
    sender: str
    recipient_count: int
    attachment_count: int
    subject: str
    offsets: Sequence[int]

    def to_json(self) -> dict[str, Any]:
        """Return as a JSON object what anybody may know who may see the message."""
        return {
            "id": self.archive_id,
            "archive": self.archive,
            "archived": dates.format_rfc3339(self.archived),
            "arrived": dates.format_rfc3339(self.arrived),
            "sent": None if self.sent is None else dates.format_rfc3339(self.sent),
            "sender": safe_text(self.sender),
            "subject": safe_text(self.subject),
            "attachments": self.attachment_count,
            "size": self.size,
            "sha256": self.sha256,
        }


class Place(NamedTuple):
    """The place of a hit among all hits; ``value`` is that of the order's column."""

    value: int
    archived: int
    year: str
    number: int
    archive: str


class Order(NamedTuple):
    """An order of hits; ``column`` is a field of Hit, or "" for that of the archive."""

    column: str
    is_descending: bool

    def place(self, hit: Hit) -> Place:
        """Return the place of a hit."""
        value = getattr(hit, self.column) if self.column else 0
        return Place(value, hit.archived, hit.year, hit.number, hit.archive)

    def key(self, hit: Hit) -> tuple[int, int, str]:
        """Return what hits of several archives are sorted by, up or down."""
        place = self.place(hit)
        return place.value, place.archived, place.archive


ORDERS = {
    "newest": Order("", True),
    "oldest": Order("", False),
    "date": Order("arrived", True),
    "date-oldest": Order("arrived", False),
    "largest": Order("size", True),
    "smallest": Order("size", False),
}
# The same hits the other way round.
REVERSED = {
    "newest": "oldest",
    "oldest": "newest",
    "date": "date-oldest",
    "date-oldest": "date",
    "largest": "smallest",
    "smallest": "largest",
}
# Day of arrival; domains of From, of recipients; extension of an attachment; outcome.
GROUP_FIELDS = ("date", "from", "rcpt", "type", "outcome")


class Limits(NamedTuple):
    """How many hits groups() may count in all, how many it may group, until when.

    ``deadline`` is a time of time.monotonic().
    """

    total: int
    grouped: int
    deadline: float

    def without(self, groups: Groups) -> Limits:
        """Return what remains after these groups."""
        return self._replace(
            total=max(0, self.total - groups.total),
            grouped=max(0, self.grouped - groups.grouped),
        )

    def shared(self, number: int) -> Limits:
        """Return the limits of each of so many archives."""
        number = max(1, number)
        return self._replace(
            total=-(-self.total // number), grouped=-(-self.grouped // number)
        )


class Groups(NamedTuple):
    """How many hits have the same value, for some of GROUP_FIELDS.

    ``total`` hits were counted, the newest; ``has_more`` if there are or may be others.
    ``grouped`` of them, the newest, are in ``numbers``: by field and value how many.
    """

    total: int
    has_more: bool
    grouped: int
    numbers: dict[str, dict[str, int]]


class IndexReader(Protocol):
    """The index of one archive, for a reader, who changes nothing.

    ``position`` is as in IndexWriter, None if there is no index that can be read.
    ``notices`` name the parts that could not be searched; it grows while hits are read.
    """

    archive: str
    position: int | None
    notices: list[str]

    def hits(
        self, query: Query, order: Order, after: Place | None, first: int
    ) -> Iterable[Iterator[Hit]]:
        """Return streams of hits, each in order, those after a place.

        For an order without a column one stream. first is how many the caller will read
        at least.
        """

    def count(self, query: Query) -> int:
        """Return the number of hits."""

    def groups(self, query: Query, fields: Sequence[str], limits: Limits) -> Groups:
        """Count the newest hits by the values of these fields, and by archive."""

    def neighbours(self, archive_id: str) -> Iterator[str]:
        """Yield the archive ids next to this one, in the order of their characters."""


class IndexWriter(Protocol):
    """The index of one archive, open for its one writer.

    Changes become durable, all of them or none, by commit().
    """

    @property
    def position(self) -> int:
        """The offset in the journal up to which all events are in the index."""

    def offsets(self, archive_id: str) -> Sequence[int] | None:
        """Return the offsets of the lines of a message, None if it is not in here."""

    def add(self, messages: Sequence[NewMessage]) -> None:
        """Add messages."""

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
