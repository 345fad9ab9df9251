"""The archives as one user of the web page may see them.

The only module of the page that finds archived mail: what a user may not see
leaves it in no form, neither as a hit nor as a number. Every access is recorded before
anything is returned. A message that a user may not see is not found, in the same words
as one that is not there. Raises RecordNotFound, QueryInvalid, IndexMissing,
IndexFailed, StoreFailed, RecordDamaged, ReasonMissing and AccessNotRecorded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from postfix_archive.access.access_recorder import AccessRecorder
from postfix_archive.config.settings import Settings
from postfix_archive.errors import RecordNotFound
from postfix_archive.export import selection
from postfix_archive.retention.hold_names import HoldNames, Names
from postfix_archive.search import index_groups, index_lag, look_up, search
from postfix_archive.search.index_engine import (
    GROUP_FIELDS,
    ORDERS,
    REVERSED,
    Groups,
    Hit,
    Limits,
    Order,
)
from postfix_archive.search.query_nodes import All, Node, Word
from postfix_archive.search.search import Search
from postfix_archive.store import record_reader
from postfix_archive.store.record import Record
from postfix_archive.web.user import Role, User
from postfix_archive.web.visible import own_mail
from postfix_archive.web.visible.message import VisibleMessage

NO_REASON = "(none given)"  # of what was refused, where a reason is demanded
SIZE_STEP = 1024  # bytes, to which sizes of one's own mail are rounded up
COUNT_LIMIT = 10_000  # hits that are counted
# Hits that groups() looks at. 2,000 take 12 ms at 10,000 messages.
GROUP_LIMIT = 2000
GROUP_SECONDS = 0.2  # a page must come within 0.3
# What a message does not tell each of its recipients is not among these.
OWN_GROUP_FIELDS = ("date", "from", "type")


class VisiblePage(NamedTuple):
    """A page of hits; see search.Page. A hit of one's own mail counts no recipients.

    ``next`` and ``previous`` are what ``after`` and ``before`` must be for the pages
    beside it, "" at the ends. They name a hit of this page: the place of a hit in the
    index would tell how much mail of others is before it.
    """

    hits: list[Hit]
    next: str
    notices: list[str]
    previous: str = ""


class VisibleArchives:
    """All archives of a store, for one user and one request of the page."""

    def __init__(self, settings: Settings, user: User, reason: str = "") -> None:
        """Read nothing yet; reason is why the user looks, for the access journal."""
        self._settings = settings
        self._user = user
        self._reason = reason
        self._found: dict[tuple[str, str], Hit] = {}  # by search()
        self._made: dict[tuple[object, ...], list[Search]] = {}  # by _searches()

    @cached_property
    def names(self) -> list[str]:
        """The archives of which this user may read something."""
        store = self._settings.archive_store_directory
        return [e for e in record_reader.archives(store) if self._user.may_read(e)]

    @property
    def officer_names(self) -> list[str]:
        """The archives that this user is officer of."""
        return [e for e in self.names if self._user.has_role(Role.OFFICER, e)]

    @property
    def away(self) -> list[str]:
        """What names the archives that have an index and are not in the store now."""
        store = self._settings.archive_store_directory
        indexed = record_reader.archives(self._settings.archive_index_directory)
        return [
            f"{each}: not searched: it is not in {store}; is its file system mounted?"
            for each in indexed
            if each not in self.names and self._user.may_read(each)
        ]

    def select(self, archives: Sequence[str]) -> list[str]:
        """Return those of these archives that the user may read; all for none.

        Raises RecordNotFound for any other, whether it is there or not.
        """
        for each in archives:
            if each not in self.names:
                self.record_refusal(f"archive {each}")
                raise RecordNotFound(f"there is no archive {each} that you may read")
        return list(archives) or self.names

    def search(
        self,
        query: str,
        *,
        sort: str = "newest",
        archives: Sequence[str] = (),
        after: str = "",
        before: str = "",
        limit: int = search.PAGE_SIZE,
        action: str = "search",
        now: float | None = None,
    ) -> VisiblePage:
        """Return a page of hits, the first one or one beside another; see VisiblePage.

        action is what is recorded, now as in search.Search.
        Raises RecordNotFound if the hit that after or before names is not there.
        """
        selected = self.select(archives)
        direction = REVERSED[sort] if before else sort
        searches = self._searches(query, direction, selected, now)
        recorder = self.recorder(action, query)
        order = ORDERS[direction]
        place = self._place(before or after, order)
        found = search.merge([e.hits(place, limit + 1) for e in searches], order)
        some = list(islice(found, limit + 1))
        has_more = len(some) > limit
        del some[limit:]
        if before:
            some.reverse()
        hits = [self._visible(each) for each in recorder.before(some, selected)]
        self._found.update({(each.archive, each.archive_id): each for each in some})
        has_next, has_previous = (True, has_more) if before else (has_more, bool(after))
        return VisiblePage(
            hits,
            f"{some[-1].archive}/{some[-1].archive_id}" if some and has_next else "",
            [*self.away, *(n for each in searches for n in each.notices)],
            f"{some[0].archive}/{some[0].archive_id}" if some and has_previous else "",
        )

    def count(
        self, query: str, *, archives: Sequence[str] = (), now: float | None = None
    ) -> int:
        """Return the number of hits. It is not recorded: a page of hits is."""
        selected = self.select(archives)
        return sum(e.count() for e in self._searches(query, "newest", selected, now))

    def recorded_count(self, query: str, *, archives: Sequence[str] = ()) -> int:
        """Return the number of hits, where no page of them is shown beside it."""
        selected = self.select(archives)
        searches = self._searches(query, "newest", selected)
        self.recorder("count", query).searched(selected)
        return sum(each.count() for each in searches)

    def groups(self, query: str, *, archives: Sequence[str] = ()) -> Groups:
        """Count the newest hits by GROUP_FIELDS, and by archive.

        For one's own mail by OWN_GROUP_FIELDS only. Takes no longer than GROUP_SECONDS,
        and is not recorded, as count().
        """
        selected = self.select(archives)
        by_fields: dict[tuple[str, ...], list[str]] = {}
        for each in selected:
            is_whole = self._user.may_read_all(each)
            fields = GROUP_FIELDS if is_whole else OWN_GROUP_FIELDS
            by_fields.setdefault(fields, []).append(each)
        deadline = time.monotonic() + GROUP_SECONDS
        limits = Limits(COUNT_LIMIT, GROUP_LIMIT, deadline)
        limits = limits.shared(len(by_fields))
        return index_groups.add(
            each.groups(fields, limits)
            for fields, names in by_fields.items()
            for each in self._searches(query, "newest", names)
        )

    def message_of(self, hit: Hit) -> VisibleMessage:
        """Return the message of a hit of search(), which has recorded it."""
        found = self._found[hit.archive, hit.archive_id]
        record = look_up.record_of(self._settings, found)
        return VisibleMessage(self._settings, self._user, record)

    def hold_names(
        self, hits: Sequence[Hit], warn: Callable[[str], None]
    ) -> dict[tuple[str, str], Names]:
        """Return the names of the holds of hits, by archive and archive id.

        Without messages that no hold covers, and without those of one's own mail: that
        it is held is for auditors. warn shows a line where it is not known.
        """
        whole = [each for each in hits if self._user.may_read_all(each.archive)]
        if not whole:
            return {}
        if self._is_index_late():
            warn("not known which messages are held: an index is being built")
            return {}
        names = HoldNames(self._settings, warn).with_names(whole)
        return {(hit.archive, hit.archive_id): some for hit, some in names if some}

    def message(
        self, archive: str, archive_id: str, *, action: str = "show"
    ) -> VisibleMessage:
        """Return a message by its whole archive id; action is what is recorded."""
        recorder = self.recorder(action, archive_id)
        place = self._find(archive, archive_id)
        recorder.record({archive: [archive_id]})
        record = look_up.record_of(self._settings, place)
        return VisibleMessage(self._settings, self._user, record, place.offsets)

    def check(self, action: str, query: str, archives: Sequence[str]) -> None:
        """Raise what an action with a query would: QueryInvalid, ReasonMissing, …"""
        self.recorder(action)
        if query:
            self._searches(query, "newest", archives)

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
            places = [self._find(*each.rsplit("/", 1)) for each in ids]
            of_ids = (look_up.record_of(self._settings, each) for each in places)
            return recorder.before(of_ids, ())
        searches = self._searches(query, "oldest", selected)
        hits = search.merge([each.hits() for each in searches], ORDERS["oldest"])
        found = selection.of_hits(self._settings, hits, notice)
        return recorder.before(_with_notices(found, searches, notice), selected)

    def is_whole(self, archives: Sequence[str]) -> bool:
        """Tell whether this user may see all of the mail of these archives.

        False for none: where the store is away nobody knows which there will be.
        """
        return bool(archives) and all(map(self._user.may_read_all, archives))

    def recorder(self, action: str, query: str = "") -> AccessRecorder:
        """Return what records accesses of this user. Raises ReasonMissing."""
        return self._recorder(action, query, self._reason)

    def record_refusal(self, what: str) -> None:
        """Record that this user may not see or do something, in their archives.

        Those of a user who may read none are all archives.
        """
        store = self._settings.archive_store_directory
        archives = self.names or record_reader.archives(store)
        self._recorder("refused", what, self._reason or NO_REASON).searched(archives)

    def _recorder(self, action: str, query: str, reason: str) -> AccessRecorder:
        return AccessRecorder(
            self._settings,
            action,
            query=query,
            reason=reason,
            web_user=self._user.name,
            warn=_ignore,
        )

    def _searches(
        self, query: str, sort: str, archives: Sequence[str], now: float | None = None
    ) -> list[Search]:
        """Return one search for what is read whole, and one for the user's own mail.

        Once for each query: a page of hits and their groups are of the same.
        """
        key = (query, sort, *archives, now)
        if key not in self._made:
            self._made[key] = self._make_searches(query, sort, archives, now)
        return self._made[key]

    def _make_searches(
        self, query: str, sort: str, archives: Sequence[str], now: float | None
    ) -> list[Search]:
        node = search.parse(query)
        whole = [each for each in archives if self._user.may_read_all(each)]
        own = [each for each in archives if each not in whole]
        parts = [(node, whole)] if whole else []
        if own:
            addresses = self._user.addresses
            parts.append((own_mail.restrict(node, query, addresses), own))
        settings = self._settings
        return [
            Search(settings, part, text=query, sort=sort, archives=names, now=now)
            for part, names in parts
        ]

    def _find(self, archive: str, archive_id: str) -> look_up.Place | Hit:
        """Return where a message is; else RecordNotFound, also if it is not for them.

        In the same words whether it is there or not.
        """
        not_found = RecordNotFound(f"there is no message {archive_id} for you to read")
        if archive not in self.names:
            self.record_refusal(f"message {archive_id} of {archive}")
            raise not_found
        place: look_up.Place | Hit | None
        if self._user.may_read_all(archive):
            place = None
            # What was removed is not found either: the reason could be of another one.
            with suppress(RecordNotFound):
                place = look_up.find(self._settings, archive_id, archive)
        else:
            place = self._hit(archive, archive_id)
            if place is None:
                self.record_refusal(f"message {archive_id} of {archive}")
        if place is None or place.archive_id != archive_id:
            raise not_found
        return place

    def _is_index_late(self) -> bool:
        """Tell whether holds would be looked for in a long rest of a journal."""
        store = self._settings.archive_store_directory
        return any(
            index_lag.lag(self._settings, each).size > search.LAG_BYTES
            for each in record_reader.archives(store)
        )

    def _hit(self, archive: str, archive_id: str) -> Hit | None:
        """Return the hit with an archive id if this user may see it."""
        if archive not in self.names:
            return None
        node: Node = Word("id", archive_id, 0)
        if not self._user.may_read_all(archive):
            node = own_mail.restrict(All((node,)), "", self._user.addresses)
        hits = Search(self._settings, node, archives=[archive]).hits(first=2)
        hit = next(hits, None)
        return hit if hit and hit.archive_id == archive_id else None

    def _place(self, text: str, order: Order) -> str:
        """Return the place of the hit that after or before names, "" for none."""
        if not text:
            return ""
        archive, _, archive_id = text.rpartition("/")
        hit = self._hit(archive, archive_id) if archive_id else None
        if hit is None:
            self.record_refusal(f"message {archive_id} of {archive}")
            raise RecordNotFound(
                f"there is no message {archive_id} for you to read; search again from"
                " the first page"
            )
        return search.place_of(hit, order)

    def _visible(self, hit: Hit) -> Hit:
        """Return a hit; of one's own mail nothing that tells of others or other mail.

        SHA-256 and size are those of a message that may have a Bcc: field, and would
        confirm a guess of it. The sender of the envelope may have a recipient in it
        (VERP).
        """
        if self._user.may_read_all(hit.archive):
            return hit
        return hit._replace(
            recipient_count=0,
            number=0,
            offsets=(),
            sha256="",
            size=-(-hit.size // SIZE_STEP) * SIZE_STEP,
            sender=hit.sender if hit.sender in self._user.addresses else "",
        )


def _with_notices(
    records: Iterator[Record], searches: list[Search], notice: Callable[[str], None]
) -> Iterator[Record]:
    yield from records
    for each in searches:
        for text in each.notices:
            notice(text)


def _ignore(_: str) -> None:
    """A store that takes no record is named on the status page."""
