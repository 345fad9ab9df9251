"""Erases one message before its time, if two different people say so.

Used by the command erase. One requests it, another one approves it; until then, the
message is as it was. What remains of it are the digests in its journal lines, the times
and the names of the two: the reason of the request is struck out with the rest, since
it may name the person whose message it is. Raises EraseRefused, RecordHeld,
RecordNotFound, PersonUnknown, NotRoot, and the errors of holds and removal.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from postfix_archive.access import access_entry, access_journal, person
from postfix_archive.access.access_entry import Entry, User
from postfix_archive.access.person import Person
from postfix_archive.config.settings import Settings
from postfix_archive.errors import EraseRefused, RecordHeld
from postfix_archive.retention import decisions, holds, removal
from postfix_archive.search import index_update, look_up
from postfix_archive.search.look_up import Place
from postfix_archive.store import journal, journal_reader, record_reader
from postfix_archive.store.journal_event import Event
from postfix_archive.store.record import Record
from postfix_archive.system import privileges

COPYING_ACTIONS = ("export", "replay")  # commands that make copies elsewhere
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """A request for erasure; times are RFC 3339, ``number`` is that of its line.

    ``approved`` and ``approver`` are "" while it is open; after that ``reason`` is
    struck out and "".
    """

    archive: str
    archive_id: str
    requester: Person
    time: str
    number: int
    reason: str
    approved: str = ""
    approver: str = ""

    @property
    def is_open(self) -> bool:
        """True while nobody has approved it."""
        return not self.approved


@dataclass(frozen=True)
class Copies:
    """What is known of copies that an erasure does not reach.

    ``exports`` are the entries of the access journal about exports and replays,
    ``queue_ids`` those of the copies that were mailed to the archive address, each a
    text, ``archives`` the other archives that have the same message.
    """

    exports: list[Entry]
    queue_ids: list[str]
    archives: list[str]


def read(settings: Settings, *, has_all: bool = False) -> list[Request]:
    """Return the open requests, oldest first, with has_all also those approved."""
    requests = [
        each
        for archive in record_reader.archives(settings.archive_store_directory)
        for each in _read_journal(settings, archive)
        if has_all or each.is_open
    ]
    return sorted(requests, key=lambda each: (each.time, each.archive))


def _read_journal(settings: Settings, archive: str) -> Iterator[Request]:
    open_requests: dict[str, Request] = {}
    for event in _events(settings, archive):
        archive_id = event["id"]
        if event["event"] == journal.ERASE_REQUESTED:
            open_requests[archive_id] = Request(
                archive=archive,
                archive_id=archive_id,
                requester=Person(event["person"], event["person_uid"]),
                time=event["time"],
                number=event["seq"],
                reason=event["reason"],
            )
            continue
        open_requests.pop(archive_id, None)
        if event["event"] == journal.ERASED:
            yield Request(
                archive=archive,
                archive_id=archive_id,
                requester=Person(event.get("requested_by", "?"), -1),
                time=event.get("requested", ""),
                number=-1,
                reason="",
                approved=event["time"],
                approver=event.get("approved_by", "?"),
            )
    yield from open_requests.values()


def _events(settings: Settings, archive: str) -> Iterator[Event]:
    """Yield the events about erasure but those that are struck out."""
    path = journal_reader.path_of(settings.archive_store_directory, archive)
    for line in look_up.decisions(settings, archive):
        if line.kind in journal.HOLD_EVENTS or line.is_struck_out:
            continue
        event = decisions.event_of(line, path)
        if event is not None:
            yield event


def current_person(settings: Settings) -> Person:
    """Return the person who runs this process. Raises PersonUnknown."""
    return person.current(_shared_uids(settings))


def web_person(settings: Settings, web_user: str) -> Person:
    """Return the person who has logged in at the web page. Raises PersonUnknown."""
    return person.of_web_user(web_user, _shared_uids(settings))


def _shared_uids(settings: Settings) -> set[int | None]:
    owner = os.stat(settings.archive_store_directory).st_uid
    return {owner, access_entry.uid_of(settings.archive_web_user)}


def request(
    settings: Settings,
    place: Place,
    reason: str,
    requester: Person,
    warn: Warn,
    user: User | None = None,
) -> None:
    """Request the erasure of a message, durably.

    user is the user of requester's process, by default that of this one.
    """
    archive, archive_id = place.archive, place.archive_id
    _catch_up(settings, archive, warn)
    with decisions.locked_journals(settings, [archive]) as journals:
        for each in _read_journal(settings, archive):
            if each.archive_id == archive_id and each.is_open:
                raise EraseRefused(
                    f"the erasure of {archive_id} was requested {each.time} by"
                    f" {each.requester.name}; another person can approve it"
                )
        decisions.require_present(settings, place)
        _require_free(settings, archive, archive_id)
        _append(
            journals[archive],
            journal.ERASE_REQUESTED,
            archive_id,
            requester,
            user,
            reason=reason,
        )


def find(settings: Settings, text: str, archive: str = "") -> Request:
    """Return the one open request for the message with this id, as show takes it.

    Else the last one that was approved, by the archive id: a killed process may have
    left something of the message.
    """
    requests = [
        each for each in read(settings, has_all=True) if archive in ("", each.archive)
    ]
    named = [each for each in requests if each.archive_id.startswith(text)]
    named = [each for each in named if each.is_open] or named
    if not named:
        place = look_up.find(settings, text, archive or None)
        key = place.archive, place.archive_id
        named = [e for e in requests if e.is_open and (e.archive, e.archive_id) == key]
        if not named:
            raise EraseRefused(
                f"nobody has requested the erasure of {place.archive_id}; run"
                " postfix-archive erase request"
            )
    keys = {(each.archive, each.archive_id): each for each in named}
    if len(keys) > 1:
        raise record_reader.ambiguous(text, keys)
    return named[-1]


def withdraw(
    settings: Settings, one: Request, who: Person, user: User | None = None
) -> None:
    """Withdraw an open request, durably; user as for request()."""
    with decisions.locked_journals(settings, [one.archive]) as journals:
        _require_open(settings, one)
        journal_file = journals[one.archive]
        _append(journal_file, journal.ERASE_WITHDRAWN, one.archive_id, who, user)


def _require_open(settings: Settings, one: Request) -> tuple[()]:
    """Raise EraseRefused unless it is open; else nothing is excluded from removal."""
    if not one.is_open or one not in _read_journal(settings, one.archive):
        raise EraseRefused(
            f"the request to erase {one.archive_id} is not open any more"
        )
    return ()


def copies(settings: Settings, one: Request) -> Copies:
    """Return what is known of copies elsewhere of a message that can be erased."""
    store = settings.archive_store_directory
    place = look_up.find(settings, one.archive_id, one.archive)
    record = look_up.record_of(settings, place)
    entries = access_journal.entries(store, one.archive)
    return Copies(
        exports=[
            each
            for each in entries
            if each.action in COPYING_ACTIONS and one.archive_id in each.ids
        ],
        queue_ids=list(_mailed_queue_ids(record)),
        archives=[
            each.archive
            for each in look_up.find_all(settings, one.archive_id)
            if each.archive != one.archive
        ],
    )


def _mailed_queue_ids(record: Record) -> Iterator[str]:
    for event in record.events:
        if event["event"] in (journal.MAILED, journal.OUTCOME_MAILED):
            yield event["queued_as"]


def require_other(one: Request, approver: Person) -> None:
    """Raise EraseRefused for the person who has requested it."""
    if one.is_open and approver.is_same(one.requester):
        name = one.requester.name
        raise EraseRefused(
            f"{one.archive_id}: {name} has requested this, and {approver.name} is the"
            " same person; another one must approve it"
        )


def require_free(settings: Settings, one: Request, warn: Warn) -> None:
    """Raise RecordHeld if a hold covers the message."""
    _catch_up(settings, one.archive, warn)
    _require_free(settings, one.archive, one.archive_id)


def _require_free(settings: Settings, archive: str, archive_id: str) -> None:
    names = holds.covering(settings, archive, [archive_id])[archive_id]
    if names:
        raise RecordHeld(
            f"{archive_id} is held by {', '.join(names)}; see postfix-archive hold show"
        )


def approve(settings: Settings, one: Request, approver: Person, warn: Warn) -> None:
    """Erase a message: it is gone on return.

    After a crash it may be a request that was approved: what is left of the message
    goes. If it was archived once more since, that needs a request of its own.
    """
    require_other(one, approver)
    if not one.is_open:
        approved = datetime.datetime.fromisoformat(one.approved).timestamp()
        removal.finish(settings, one.archive, approved, warn)
        return
    removal.remove(
        settings,
        one.archive,
        one.archive_id,
        journal.ERASED,
        {
            "requested_by": one.requester.name,
            "requested_uid": str(one.requester.uid),
            "requested": one.time,
            "request": str(one.number),
            "approved_by": approver.name,
            "approved_uid": str(approver.uid),
        },
        lambda: _require_open(settings, one),
    )


def _append(
    journal_file: journal.Journal,
    event: str,
    archive_id: str,
    who: Person,
    user: User | None,
    **fields: str,
) -> None:
    journal_file.append(
        event,
        decisions.now(),
        id=archive_id,
        **fields,
        person=who.name,
        person_uid=who.uid,
        **(user or access_entry.current_user()).to_fields(),
    )


def _catch_up(settings: Settings, archive: str, warn: Warn) -> None:
    """Catch the index up: holds ask it."""
    with privileges.as_owner(settings.archive_store_directory):
        if index_update.has_index(settings, archive):
            index_update.catch_up(settings, archive, warn)
