"""Legal holds: what nobody may remove while one of them is open.

    covering(settings, "legal@example.com", ids)    {id: ("smith-v-jones",), …}

Used by the command hold, by whatever removes messages, and by the commands that show
them. A hold is of messages with certain ids, or of all that a query finds, now or
later, in all archives or in some. The journal of each of these has an event
``hold-set``, and ``hold-released`` once it is not needed any more. Where it cannot be
known what a hold covers, covering() raises an error and never answers "not held".
Raises HoldRefused, NotRoot, QueryInvalid, IndexMissing, IndexFailed, RecordNotFound,
StoreFailed and JournalFailed.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from postfix_archive.access import access_entry
from postfix_archive.access.access_entry import User
from postfix_archive.config.settings import Settings
from postfix_archive.errors import HoldRefused, JournalFailed, QueryInvalid
from postfix_archive.retention import decisions
from postfix_archive.search import look_up, match
from postfix_archive.search.look_up import Place
from postfix_archive.search.match import Matcher
from postfix_archive.store import journal, journal_reader, record_reader
from postfix_archive.store.journal_event import Event

NAME = re.compile(r"\w[\w.-]{0,63}")


@dataclass(frozen=True)
class Hold:
    """One hold; times are RFC 3339.

    ``query`` is "" for a hold of ``ids``, which are by archive. ``archives`` are those
    whose messages a query finds, () for all, those that come later included.
    ``journals`` are the archives in whose journal it is open: none after its release.
    """

    name: str
    query: str
    ids: dict[str, tuple[str, ...]]
    archives: tuple[str, ...]
    reason: str
    user: User
    time: str
    journals: frozenset[str] = frozenset()
    released: str = ""
    released_by: str = ""
    release_reason: str = ""

    @property
    def is_open(self) -> bool:
        """True while it holds messages."""
        return bool(self.journals)

    @property
    def set_at(self) -> float:
        """When it was set (Unix time), for which its query is evaluated.

        So ``newer_than:30d`` means the same 30 days as long as it is open.
        """
        return datetime.datetime.fromisoformat(self.time).timestamp()

    def has_archive(self, archive: str) -> bool:
        """Tell whether its query is about messages of this archive."""
        return not self.archives or archive in self.archives


class Holds:
    """The open holds of a store, as they are when this is made."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open = [each for each in read(settings) if each.is_open]

    def covering(
        self, archive: str, archive_ids: Iterable[str]
    ) -> dict[str, tuple[str, ...]]:
        """Return for each of these messages the names of the holds that cover it."""
        names: dict[str, set[str]] = {each: set() for each in archive_ids}
        matcher: Matcher | None = None
        for hold in self._open:
            held = {*hold.ids.get(archive, ())}
            if hold.query and hold.has_archive(archive):
                matcher = matcher or Matcher(self._settings, archive, names)
                held = _matching(matcher, hold)
            for archive_id in held & names.keys():
                names[archive_id].add(hold.name)
        return {archive_id: tuple(sorted(some)) for archive_id, some in names.items()}


def _matching(matcher: Matcher, hold: Hold) -> set[str]:
    try:
        return matcher.matching(hold.query, hold.set_at)
    except QueryInvalid as error:
        raise HoldRefused(
            f"the query of the hold {hold.name} is no query any more ({error}), so"
            " nobody knows what it holds; set one of another name, then release it"
        ) from error


def covering(
    settings: Settings, archive: str, archive_ids: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """Return for each of these messages the names of the holds that cover it.

    archive_ids are whole archive ids. Who removes messages calls it with the journal of
    the archive locked: then no hold can be set in between.
    """
    return Holds(settings).covering(archive, archive_ids)


def read(settings: Settings) -> list[Hold]:
    """Return all holds of a store, those released too, oldest first."""
    holds: dict[tuple[str, str], Hold] = {}
    for archive in record_reader.archives(settings.archive_store_directory):
        for each in _read_journal(settings, archive):
            key = each.name, each.time
            holds[key] = _merged(holds[key], each) if key in holds else each
    return sorted(holds.values(), key=lambda each: each.time)


def _merged(first: Hold, second: Hold) -> Hold:
    """Return what two journals say of one hold."""
    return replace(
        max(first, second, key=lambda each: each.released),
        ids={**first.ids, **second.ids},
        journals=first.journals | second.journals,
    )


def _read_journal(settings: Settings, archive: str) -> Iterable[Hold]:
    """Return the holds in the journal of one archive."""
    holds: dict[tuple[str, str], Hold] = {}
    for event in _events(settings, archive):
        key = event["name"], event["set"]
        if event["event"] == journal.HOLD_SET:
            holds[key] = _from_event(event, archive)
        elif key in holds:
            holds[key] = replace(
                holds[key],
                journals=frozenset(),
                released=event["time"],
                released_by=str(access_entry.user_in(event)),
                release_reason=event["reason"],
            )
    return holds.values()


def _events(settings: Settings, archive: str) -> Iterator[Event]:
    """Yield the events of holds. Raises JournalFailed for one that cannot be read."""
    path = journal_reader.path_of(settings.archive_store_directory, archive)
    for line in look_up.decisions(settings, archive):
        if line.kind not in journal.HOLD_EVENTS:
            continue
        event = None if line.is_struck_out else decisions.event_of(line, path)
        if line.is_struck_out:
            raise JournalFailed(
                f"{path}: the details of a hold are struck out, so nobody knows what it"
                " holds; run postfix-archive verify"
            )
        if event is not None:
            yield event


def _from_event(event: Event, archive: str) -> Hold:
    ids = tuple(event.get("ids", "").split())
    return Hold(
        name=event["name"],
        query=event.get("query", ""),
        ids={archive: ids} if ids else {},
        archives=tuple(event.get("archives", "").split()),
        reason=event["reason"],
        user=access_entry.user_in(event),
        time=event["set"],
        journals=frozenset({archive}),
    )


def find(settings: Settings, name: str, *, must_be_open: bool = False) -> Hold:
    """Return the open hold of a name, or else the last one that was released.

    Raises HoldRefused if there is none.
    """
    holds = read(settings)
    named = [each for each in holds if each.name == name]
    if not named:
        names = sorted({each.name for each in holds if each.is_open})
        raise HoldRefused(
            f"there is no hold {name}; there are {', '.join(names) or 'none'}"
        )
    hold = max(named, key=lambda each: (each.is_open, each.time))
    if must_be_open and not hold.is_open:
        raise HoldRefused(
            f"the hold {name} was released {hold.released} by {hold.released_by}"
        )
    return hold


def add(
    settings: Settings,
    name: str,
    *,
    query: str = "",
    ids: Sequence[str] = (),
    archives: Sequence[str] = (),
    reason: str,
    user: User | None = None,
) -> Hold:
    """Set a hold, durably, and return it: of a query, or of ids as show takes them.

    archives are those it is about, all if there are none; user is who sets it, by
    default that of this process. A second call writes it to the journals that a crash
    has left without it.
    """
    store = settings.archive_store_directory
    decisions.require_writer(store, f"hold add {name}")
    if not NAME.fullmatch(name):
        raise HoldRefused(
            f"{name!r} cannot be the name of a hold; a name has at most 64 letters,"
            " digits, dots, hyphens and underscores, and begins with none of the marks"
        )
    if bool(query.strip()) == bool(ids):
        raise HoldRefused(f"the hold {name} must be either of a query or of ids")
    known = _require_archives(store, archives)
    places = [e for text in ids for e in look_up.find_all(settings, text, archives)]
    hold = Hold(
        name=name,
        query=query,
        ids=_ids_by_archive(places),
        archives=tuple(sorted({*archives})) if query else (),
        reason=reason,
        user=user or access_entry.current_user(),
        time=decisions.now(),
    )
    if query:
        match.check(query, hold.set_at)
    # All of them, so that nobody else sets a hold of this name meanwhile.
    with decisions.locked_journals(settings, known) as journals:
        targets = frozenset((hold.archives or known) if query else hold.ids)
        for place in places:
            decisions.require_present(settings, place)
        hold = _with_earlier(settings, hold, targets)
        for archive in sorted(targets - hold.journals):
            fields = _to_fields(hold, archive)
            journals[archive].append(journal.HOLD_SET, decisions.now(), **fields)
    return replace(hold, journals=targets)


def _require_archives(store: str, archives: Sequence[str]) -> tuple[str, ...]:
    """Return all archives of a store. Raises HoldRefused unless these are there."""
    known = tuple(record_reader.archives(store))
    unknown = ", ".join(sorted({*archives} - {*known}))
    if unknown or not known:
        raise HoldRefused(
            f"there is no archive {unknown + ' ' if unknown else ''}in {store};"
            " postfix-archive status lists them"
        )
    return known


def _ids_by_archive(places: Iterable[Place]) -> dict[str, tuple[str, ...]]:
    ids: dict[str, set[str]] = {}
    for each in places:
        ids.setdefault(each.archive, set()).add(each.archive_id)
    return {archive: tuple(sorted(some)) for archive, some in ids.items()}


def _with_earlier(settings: Settings, hold: Hold, targets: frozenset[str]) -> Hold:
    """Return the same hold that is open in some of the journals, else this one.

    Raises HoldRefused if its name is taken.
    """
    for earlier in read(settings):
        if not earlier.is_open or earlier.name != hold.name:
            continue
        is_same = (
            (earlier.query, earlier.archives) == (hold.query, hold.archives)
            and earlier.ids.items() <= hold.ids.items()
            and earlier.journals < targets
        )
        if not is_same:
            raise HoldRefused(
                f"there is a hold {hold.name} since {earlier.time}, set by"
                f" {earlier.user}; release it first, or choose another name"
            )
        return replace(earlier, ids=hold.ids)
    return hold


def _to_fields(hold: Hold, archive: str) -> dict[str, str | int]:
    """Return the details of the event in the journal of one archive."""
    fields = {
        "name": hold.name,
        "query": hold.query,
        "ids": " ".join(hold.ids.get(archive, ())),
        "archives": " ".join(hold.archives),
        "reason": hold.reason,
        "set": hold.time,
    }
    others = {name: value for name, value in fields.items() if value}
    return {**others, **hold.user.to_fields()}


def release(
    settings: Settings, name: str, reason: str, user: User | None = None
) -> Hold:
    """Release an open hold, durably, and return what it was; user as for add().

    All of it stays in force until it is released in all journals that have it.
    """
    decisions.require_writer(settings.archive_store_directory, f"hold release {name}")
    journals_of = find(settings, name, must_be_open=True).journals
    with decisions.locked_journals(settings, journals_of) as journals:
        hold = find(settings, name, must_be_open=True)
        fields = {
            "name": name,
            "set": hold.time,
            "reason": reason,
            **(user or access_entry.current_user()).to_fields(),
        }
        for archive in sorted(hold.journals & journals_of):
            journals[archive].append(journal.HOLD_RELEASED, decisions.now(), **fields)
    return hold
