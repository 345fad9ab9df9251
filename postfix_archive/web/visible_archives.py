"""The archives as one user of the web page may see them.

The only module of this package that reads archived mail: what a user may not see
leaves it in no form, neither as a hit nor as a number. Every access is recorded before
anything is returned. A message that a user may not see is not found, in the same words
as one that is not there. Raises RecordNotFound, QueryInvalid, IndexMissing,
IndexFailed, StoreFailed, RecordDamaged, ReasonMissing and AccessNotRecorded.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from postfix_archive.access.access_recorder import AccessRecorder
from postfix_archive.config.settings import Settings
from postfix_archive.errors import AccessRefused, RecordDamaged, RecordNotFound
from postfix_archive.export import redaction, selection
from postfix_archive.export.redaction import Redaction
from postfix_archive.export.stored_message import StoredMessage, of_record
from postfix_archive.search import look_up, search
from postfix_archive.search.index_engine import ORDERS, Hit
from postfix_archive.search.query_nodes import All, Node, Word
from postfix_archive.search.search import Search
from postfix_archive.store import record_reader
from postfix_archive.store.record import Pass, Record
from postfix_archive.web import own_mail
from postfix_archive.web.user import User


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

    def __init__(self, settings: Settings, user: User, record: Record) -> None:
        self._settings = settings
        self._user = user
        self._record = record
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
        """The original, compared with its SHA-256, as this user may see it."""
        settings = self._settings
        with closing(
            self.stored.read_original(
                settings.archive_store_directory, settings.archive_spool_directory
            )
        ) as content:
            if self.is_whole:
                return b"".join(content.chunks())
            hidden = redaction.others(self.stored.recipients, self._user.addresses)
            return b"".join(Redaction(content, hidden).content(content))

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

    def check(self, action: str, query: str, archives: Sequence[str]) -> None:
        """Raise what an action with a query would: QueryInvalid, ReasonMissing, …"""
        self.recorder(action)
        if query:
            self._searches(query, "newest", archives)

    def message(
        self, archive: str, archive_id: str, *, action: str = "show"
    ) -> VisibleMessage:
        """Return a message by its whole archive id; action is what is recorded."""
        place = self._place(archive, archive_id)
        self.recorder(action, archive_id).record({archive: [archive_id]})
        record = look_up.record_of(self._settings, place)
        return VisibleMessage(self._settings, self._user, record)

    def records(
        self,
        query: str,
        ids: Sequence[str],
        archives: Sequence[str],
        notice: Callable[[str], None],
    ) -> Iterator[Record]:
        """Return whole records for an export, which redacts them: see is_whole().

        Those with these ids (``archive/archive id``), or those that a query finds,
        oldest first. notice is called with a line about each part that cannot be read.
        """
        selected = self.select(archives)
        recorder = self.recorder("export", query or " ".join(ids))
        if ids:
            places = [self._place(*each.rsplit("/", 1)) for each in ids]
            of_ids = (look_up.record_of(self._settings, each) for each in places)
            return recorder.before(of_ids, ())
        searches = self._searches(query, "oldest", selected)
        key = ORDERS["oldest"].key
        hits = heapq.merge(*(each.hits() for each in searches), key=key)
        found = selection.of_hits(self._settings, hits, notice)
        return recorder.before(_with_notices(found, searches, notice), selected)

    def is_whole(self, archives: Sequence[str]) -> bool:
        """Tell whether this user may see all of the mail of these archives."""
        return all(map(self._user.may_read_all, archives))

    def _place(self, archive: str, archive_id: str) -> look_up.Place | Hit:
        """Return where a message is that the user may see; else RecordNotFound.

        In the same words whether it is there or not.
        """
        not_found = RecordNotFound(f"there is no message {archive_id} for you to read")
        if archive not in self.names:
            raise not_found
        place: look_up.Place | Hit | None
        if self._user.may_read_all(archive):
            place = look_up.find(self._settings, archive_id, archive)
        else:
            place = next(self._own_hits(archive, Word("id", archive_id, 0)), None)
        if place is None or place.archive_id != archive_id:
            raise not_found
        return place

    def recorder(self, action: str, query: str = "") -> AccessRecorder:
        """Return what records accesses of this user. Raises ReasonMissing."""
        return AccessRecorder(
            self._settings,
            action,
            query=query,
            reason=self._reason,
            web_user=self._user.name,
            warn=_ignore,
        )

    def _searches(self, query: str, sort: str, archives: Sequence[str]) -> list[Search]:
        """Return one search for what is read whole, and one for the user's own mail."""
        node = search.parse(query)
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


def _with_notices(
    records: Iterator[Record], searches: list[Search], notice: Callable[[str], None]
) -> Iterator[Record]:
    yield from records
    for each in searches:
        for text in each.notices:
            notice(text)


def _ignore(_: str) -> None:
    """A store that takes no record is named on the status page."""
