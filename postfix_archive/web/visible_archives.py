"""The archives as one user of the web page may see them.

The only module of this package that reads archived mail: what a user may not see
leaves it in no form, neither as a hit nor as a number. Every access is recorded before
anything is returned. A message that a user may not see is not found, in the same words
as one that is not there. Raises RecordNotFound, QueryInvalid, IndexMissing,
IndexFailed, StoreFailed, RecordDamaged, ReasonMissing and AccessNotRecorded.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from postfix_archive.access.access_recorder import AccessRecorder
from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    AccessRefused,
    QueryInvalid,
    RecordDamaged,
    RecordNotFound,
    StoreFailed,
)
from postfix_archive.export.redaction import Redaction
from postfix_archive.export.stored_message import StoredMessage, of_record
from postfix_archive.message import header
from postfix_archive.message.envelope import Recipient
from postfix_archive.search import extraction_header, look_up, search
from postfix_archive.search.index_engine import ORDERS, Hit
from postfix_archive.search.query_nodes import All, Any, Node, Word
from postfix_archive.search.search import Search
from postfix_archive.store import record_reader
from postfix_archive.store.record import Pass, Record
from postfix_archive.system.spool import Spool
from postfix_archive.web import own_mail
from postfix_archive.web.user import User


OPPOSITE_ORDERS = {
    name: opposite
    for name, one in ORDERS.items()
    for opposite, other in ORDERS.items()
    if one.column == other.column and one != other
}
THREAD_LIMIT = 100  # messages of a thread, and of those whose header is looked at


class VisiblePage(NamedTuple):
    """A page of hits; see search.Page. A hit of one's own mail counts no recipients."""

    hits: list[Hit]
    next: str
    notices: list[str]


class VisibleMessage:
    """One message as a user may see it.

    ``is_whole`` is true for who may see all of it: the envelope, the archive copy, the
    outcomes. Otherwise blind recipients are left out of everything, and the original is
    without the header fields that name them. ``record`` is for who may see all of it.
    """

    def __init__(
        self,
        settings: Settings,
        user: User,
        record: Record,
        offsets: Sequence[int] = (),
    ) -> None:
        """offsets are those of the record's lines in the journal."""
        self.settings = settings
        self.offsets = offsets
        self._user = user
        self._record = record
        self.size = int(record.events[0]["size"])  # bytes, as received
        self.archive = record.archive
        self.archive_id = record.archive_id
        self.is_whole = user.may_read_all(record.archive)

    @property
    def record(self) -> Record:
        """The record. Raises AccessRefused for who may not see all of it."""
        if not self.is_whole:
            raise AccessRefused("only auditors see the whole envelope")
        return self._record

    @cached_property
    def stored(self) -> StoredMessage:
        """The first copy of the message. Raises RecordDamaged if there is none."""
        for each in of_record(self._record):
            return each
        raise RecordDamaged(f"{self.archive_id}: the journal names no copy")

    @cached_property
    def original(self) -> bytes:
        """The original; see original_chunks()."""
        return b"".join(self.original_chunks())

    def original_chunks(self) -> Iterator[bytes]:
        """Yield the original as this user may see it.

        All of it is compared with its SHA-256 before. Raises RecordDamaged, StoreFailed
        and SpoolFailed.
        """
        with closing(self.stored.read_original(*self._directories)) as content:
            if self.is_whole:
                yield from content.chunks()
                return
            redaction = Redaction(content, self._hidden_from(self.stored.recipients))
            yield from redaction.content(content)

    def copy_chunks(self) -> Iterator[bytes]:
        """Yield the archive copy, compared likewise; for who may see all of it."""
        stored = StoredMessage(self.record, self.stored.event)
        with closing(stored.read_copy(*self._directories)) as content:
            yield from content.chunks()

    def report_chunks(self) -> Iterator[bytes]:
        """Yield the latest outcome report; for who may see all of it.

        Raises RecordNotFound if there is none.
        """
        yield from record_reader.outcome_report(
            self.settings.archive_store_directory, self.record
        )

    def named_recipients(self) -> set[tuple[bytes, bytes]]:
        """Return (final, original) of those recipients that To: or Cc: names.

        Raises RecordDamaged, also for a header that is too long to tell.
        """
        head = Spool()
        store, spool_directory = self._directories
        with closing(head):
            head.add(record_reader.original_head(store, self.record), spool_directory)
            return {*Redaction(head, self.stored.recipients).recipients}

    @property
    def _directories(self) -> tuple[str, str]:
        settings = self.settings
        return settings.archive_store_directory, settings.archive_spool_directory

    def _hidden_from(self, recipients: Sequence[Recipient]) -> list[Recipient]:
        """Return the recipients but the user's own addresses, which they may see."""
        own = {each.encode() for each in self._user.addresses}
        return [
            e for e in recipients if not {e.final.lower(), e.original.lower()} & own
        ]

    @property
    def passes(self) -> list[Pass]:
        """The passes of the message, for who may see all of it."""
        return self.record.passes


class VisibleArchives:
    """All archives of a store, for one user and one request of the page."""

    def __init__(self, settings: Settings, user: User, reason: str = "") -> None:
        """Read nothing yet; reason is why the user looks, for the access journal."""
        self._settings = settings
        self._user = user
        self._reason = reason

    @cached_property
    def names(self) -> list[str]:
        """The archives of which this user may read something."""
        store = self._settings.archive_store_directory
        return [e for e in record_reader.archives(store) if self._user.may_read(e)]

    def select(self, archives: Sequence[str]) -> list[str]:
        """Return those of these archives that the user may read; all for none.

        Raises RecordNotFound for any other, whether it is there or not.
        """
        for each in archives:
            if each not in self.names:
                raise RecordNotFound(f"there is no archive {each} that you may read")
        return list(archives) or self.names

    def search(
        self,
        query: str,
        *,
        sort: str = "newest",
        archives: Sequence[str] = (),
        after: str = "",
        limit: int = search.PAGE_SIZE,
    ) -> VisiblePage:
        """Return a page of hits; see search.search()."""
        selected = self.select(archives)
        searches = self._searches(query, sort, selected)
        recorder = self.recorder("search", query)
        order = ORDERS[sort]
        found = heapq.merge(
            *(each.hits(after, limit + 1) for each in searches),
            key=lambda hit: (*order.key(hit), hit.archive),
        )
        some = list(islice(found, limit + 1))
        has_more = len(some) > limit
        del some[limit:]
        hits = [self._visible(each) for each in recorder.before(some, selected)]
        return VisiblePage(
            hits,
            search.place_of(some[-1], order) if has_more else "",
            [notice for each in searches for notice in each.notices],
        )

    def count(self, query: str, *, archives: Sequence[str] = ()) -> int:
        """Return the number of hits. It is not recorded: a page of hits is."""
        selected = self.select(archives)
        return sum(e.count() for e in self._searches(query, "newest", selected))

    def message(
        self, archive: str, archive_id: str, *, action: str = "show"
    ) -> VisibleMessage:
        """Return a message by its whole archive id; action is what is recorded."""
        # The same words whether it is there or not.
        not_found = RecordNotFound(f"there is no message {archive_id} for you to read")
        if archive not in self.names:
            raise not_found
        if self._user.may_read_all(archive):
            place: look_up.Place | Hit = look_up.find(
                self._settings, archive_id, archive
            )
        else:
            hit = next(self._own_hits(archive, Word("id", archive_id, 0)), None)
            if hit is None:
                raise not_found
            place = hit
        if place.archive_id != archive_id:
            raise not_found
        self.recorder(action, archive_id).record({archive: [archive_id]})
        record = look_up.record_of(self._settings, place)
        return VisibleMessage(self._settings, self._user, record, place.offsets)

    def neighbour(
        self, message: VisibleMessage, query: str, sort: str, *, is_previous: bool
    ) -> Hit | None:
        """Return the hit of a query after or before a message, None if there is none.

        It is recorded as a search.
        """
        sort_back = OPPOSITE_ORDERS[sort] if is_previous else sort
        node = Word("id", message.archive_id, 0)
        own = next(self._hits(node, sort, [message.archive], 1), None)
        if own is None:
            return None
        place = search.place_of(own, ORDERS[sort])
        page = self.search(query, sort=sort_back, after=place, limit=1)
        return next(iter(page.hits), None)

    def thread(self, message_ids: Sequence[str], subject: str) -> list[Hit]:
        """Return the messages of a thread, oldest first; recorded as a search.

        Those with one of these ids (as in Message-ID, without brackets), and of the
        newest with this subject those that refer to one.
        """
        ids = {*message_ids}
        named = Any(tuple(Word("msgid", each, 0) for each in message_ids))
        found = list(self._hits(named, "newest", self.names, THREAD_LIMIT))
        with suppress(QueryInvalid):  # a subject without letters
            node = Word("subject", subject, 0)
            found += [
                each
                for each in self._hits(node, "newest", self.names, THREAD_LIMIT)
                if not ids.isdisjoint(self._references(each))
            ]
        hits = {(each.archive, each.archive_id): each for each in found}
        recorder = self.recorder("search", "thread " + " ".join(message_ids))
        some = sorted(hits.values(), key=lambda each: each.arrived)
        return [self._visible(e) for e in recorder.before(some, self.names)]

    def _references(self, hit: Hit) -> tuple[str, ...]:
        """Return the ids in References: and In-Reply-To:, () of a damaged copy."""
        with suppress(RecordNotFound, RecordDamaged, StoreFailed):
            record = look_up.record_of(self._settings, hit)
            store = self._settings.archive_store_directory
            head = record_reader.original_head(store, record)
            fields = ((e.name.decode("ascii"), e.value) for e in header.fields(head))
            return extraction_header.read(fields).references
        return ()

    def _hits(
        self, node: Node, sort: str, archives: Sequence[str], first: int
    ) -> Iterator[Hit]:
        """Yield the first hits of a node; what is shown of them must be recorded."""
        streams = [
            each.hits(first=first) for each in self._searches(node, sort, archives)
        ]
        order = ORDERS[sort]
        merged = heapq.merge(*streams, key=lambda hit: (*order.key(hit), hit.archive))
        return islice(merged, first)

    def recorder(self, action: str, query: str = "") -> AccessRecorder:
        """Return what records accesses of this user. Raises ReasonMissing."""
        return AccessRecorder(
            self._settings, action, query=query, reason=self._reason, warn=_ignore
        )

    def _searches(
        self, query: str | Node, sort: str, archives: Sequence[str]
    ) -> list[Search]:
        """Return one search for what is read whole, and one for the user's own mail."""
        node = search.parse(query) if isinstance(query, str) else query
        query = query if isinstance(query, str) else ""
        whole = [each for each in archives if self._user.may_read_all(each)]
        own = [each for each in archives if each not in whole]
        searches = []
        for names, restricted in ((whole, node), (own, None)):
            if names:
                restricted = restricted or own_mail.restrict(
                    node, query, self._user.addresses
                )
                searches.append(
                    Search(
                        self._settings,
                        restricted,
                        text=query,
                        sort=sort,
                        archives=names,
                    )
                )
        return searches

    def _own_hits(self, archive: str, node: Node) -> Iterator[Hit]:
        restricted = own_mail.restrict(All((node,)), "", self._user.addresses)
        return Search(self._settings, restricted, archives=[archive]).hits(first=2)

    def _visible(self, hit: Hit) -> Hit:
        """Return a hit without the number of recipients, unless all may be seen."""
        if self._user.may_read_all(hit.archive):
            return hit
        return hit._replace(recipient_count=0)


def _ignore(_: str) -> None:
    """A store that takes no record is named on the status page."""
