"""Finds records by an id, in the index, or in the journal where there is no index.

Used by the commands. An id is an archive id or its first characters, a queue id, a
Message-ID, or a SHA-256 or its first digits. What the journal has more than the index
is read as well. Memory does not grow with the store. Raises RecordNotFound, StoreFailed
and JournalFailed.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    IndexFailed,
    RecordDamaged,
    RecordNotFound,
    RecordRemoved,
    StoreFailed,
)
from postfix_archive.message import address, dates, mime
from postfix_archive.search import archive_index
from postfix_archive.search.archive_index import IndexState
from postfix_archive.search.index_engine import Hit
from postfix_archive.search.query_nodes import Any, Node, Range, Word
from postfix_archive.search.search import Search
from postfix_archive.store import (
    journal,
    journal_reader,
    journal_search,
    record,
    record_reader,
)
from postfix_archive.store.journal_reader import Line
from postfix_archive.store.record import Record

TAIL_LIMIT = 16 << 20  # bytes of a journal that are read besides the index
MIN_DIGITS = 8  # of a SHA-256


class Place(NamedTuple):
    """Where a record is: archive, archive id, offsets of its lines in the journal."""

    archive: str
    archive_id: str
    offsets: tuple[int, ...]


def find(settings: Settings, text: str, archive: str | None = None) -> Place:
    """Return where the one record with this id is.

    In one archive, or in any for None. Raises RecordNotFound for none or several.
    """
    places = _places(settings, text, [archive] if archive else ())
    if len(places) > 1:
        raise record_reader.ambiguous(text, places)
    [place] = places.values()
    return place


def find_all(
    settings: Settings, text: str, archives: Sequence[str] = ()
) -> list[Place]:
    """Return where the message with this id is, in each archive that has it.

    In these archives, or in any. Raises RecordNotFound for none or several messages.
    """
    places = _places(settings, text, archives)
    if len({archive_id for _, archive_id in places}) > 1:
        raise record_reader.ambiguous(text, places)
    return list(places.values())


def _places(
    settings: Settings, text: str, archives: Sequence[str]
) -> dict[tuple[str, str], Place]:
    """Return the places, by archive and archive id, at least one, not all of many."""
    if not text.strip():
        raise record_reader.no_id()
    matches = islice(_matches(settings, text, archives), record_reader.MATCH_LIMIT + 1)
    places = {(each.archive, each.archive_id): each for each in matches}
    if not places:
        raise record_reader.not_found(text, settings.archive_store_directory)
    return places


def find_record(settings: Settings, text: str, archive: str | None = None) -> Record:
    """Return the one record with this id; see find()."""
    return record_of(settings, find(settings, text, archive))


def record_of(settings: Settings, place: Place | Hit) -> Record:
    """Return the record at a place. Raises RecordNotFound if it is another one."""
    message = record_reader.record_at(
        settings.archive_store_directory, place.archive, place.offsets
    )
    if message.archive_id != place.archive_id:
        raise RecordNotFound(
            f"{place.archive_id} is not where the index says; run postfix-archive"
            " index --rebuild"
        )
    return message


def last_records(
    settings: Settings,
    archive: str,
    since: float,
    until: float,
    last: int,
    warn: Callable[[str], None],
) -> Iterator[Record]:
    """Yield the last records of one archive, oldest first; see record_reader.records.

    With an index only the lines of these are read, and what the index lacks.
    """
    store = settings.archive_store_directory
    places = _last_places(settings, archive, since, until, last)
    if places is None:
        yield from record_reader.records(
            store, archive, since=since, until=until, last=last, warn=warn
        )
        return
    for place in places:
        with contextlib.suppress(RecordRemoved):
            yield record_of(settings, place)


def _last_places(
    settings: Settings, archive: str, since: float, until: float, last: int
) -> list[Place] | None:
    """Return where the last records are, None without an index."""
    position = _position(settings, archive)
    if position is None:
        return None
    low = dates.format_rfc3339(math.ceil(since)) if since else ""
    high = dates.format_rfc3339(until) if until < math.inf else ""
    node = Range("archived", low, high, True, False, 0)
    try:
        found = Search(settings, node, archives=[archive])
        hits = list(islice(found.hits(first=last), last))[::-1]
        newer = _tail(settings, archive, position)
    except IndexFailed:
        return None
    if found.notices:
        return None
    places = [_place(hit, newer) for hit in hits]
    known = {each.archive_id for each in places}
    for archive_id, offsets in newer.items():
        if archive_id not in known:
            place = Place(archive, archive_id, tuple(offsets))
            if _is_between(settings, place, since, until):
                places.append(place)
    return places[-last:]


def _is_between(settings: Settings, place: Place, since: float, until: float) -> bool:
    """Tell whether the first line at a place is a capture, and of this period."""
    path = journal_reader.path_of(settings.archive_store_directory, place.archive)
    line = next(journal_reader.lines_at(path, place.offsets[:1]), None)
    if line is None or line.kind != journal.ARCHIVED:
        return False
    time = datetime.datetime.fromisoformat(line.field("time")).timestamp()
    return since <= time < until


def _place(hit: Hit, newer: dict[str, list[int]]) -> Place:
    """Return where a hit is, with its lines that _tail() found.

    The index may have got some of these since its position was read.
    """
    offsets = {*hit.offsets, *newer.get(hit.archive_id, ())}
    return Place(hit.archive, hit.archive_id, tuple(sorted(offsets)))


def _tail(settings: Settings, archive: str, position: int) -> dict[str, list[int]]:
    """Return the offsets of the lines from a position on, by archive id."""
    path = journal_reader.path_of(settings.archive_store_directory, archive)
    offsets: dict[str, list[int]] = {}
    for line in journal_reader.lines(path, position):
        archive_id = _archive_id(line)
        if archive_id:
            offsets.setdefault(archive_id, []).append(line.offset)
    return offsets


def decisions(settings: Settings, archive: str) -> Iterator[Line]:
    """Yield the lines of journal.DECISION_EVENTS of an archive, oldest first.

    The index knows where they are; what it lacks is searched, without an index all of
    the journal.
    """
    path = journal_reader.path_of(settings.archive_store_directory, archive)
    state = _state(settings, archive) or IndexState()
    # The others are read again, since a database is built again.
    known = sorted(each for each in state.decisions if each < state.position)
    for line in journal_reader.lines_at(path, known):
        if line.kind not in journal.DECISION_EVENTS:
            raise IndexFailed(
                f"{path}: byte {line.offset} is not what the index says; run"
                " postfix-archive index --rebuild, and verify"
            )
        yield line
    yield from journal_search.lines_of(path, state.position, journal.DECISION_EVENTS)


def _position(settings: Settings, archive: str) -> int | None:
    """Return the position of an archive's index, None if it is not worth using."""
    path = journal_reader.path_of(settings.archive_store_directory, archive)
    state = _state(settings, archive)
    if state is None:
        return None
    is_late = journal_reader.end_offset(path) - state.position > TAIL_LIMIT
    return None if is_late else state.position


def _state(settings: Settings, archive: str) -> IndexState | None:
    """Return the state of an archive's index, None if it has none of this journal."""
    path = journal_reader.path_of(settings.archive_store_directory, archive)
    state = None
    with contextlib.suppress(IndexFailed):
        state = archive_index.read_state(
            f"{settings.archive_index_directory}/{archive}"
        )
    is_usable = state is not None and state.position and state.is_of_journal(path)
    return state if is_usable else None


def _matches(settings: Settings, text: str, archives: Sequence[str]) -> Iterator[Place]:
    store = settings.archive_store_directory
    for name in record_reader.selected_archives(store, *archives):
        places = _indexed_matches(settings, text, name)
        if places is None:
            yield from _streamed_matches(store, text, name)
        else:
            yield from places


def _indexed_matches(settings: Settings, text: str, archive: str) -> list[Place] | None:
    """Return the matches in an index and in what it lacks, None without an index."""
    position = _position(settings, archive)
    if position is None:
        return None
    try:
        found = Search(settings, _node(text), archives=[archive])
        hits = list(
            islice(
                found.hits(first=record_reader.MATCH_LIMIT + 1),
                record_reader.MATCH_LIMIT + 1,
            )
        )
        newer = _tail(settings, archive, position)
    except IndexFailed:
        return None
    if found.notices:
        return None
    places = {each.archive_id: _place(each, newer) for each in hits}
    if newer.keys() - places.keys():
        store = settings.archive_store_directory
        for place in _streamed_matches(store, text, archive, position):
            if place.archive_id in newer:  # else it is of an older message
                places.setdefault(place.archive_id, place)
    return list(places.values())


def _node(text: str) -> Node:
    fields = ["id", "queue", "msgid"]
    digits = text.lower()
    if len(digits) >= MIN_DIGITS and not digits.strip("0123456789abcdef"):
        fields.append("sha256")
    return Any(tuple(Word(field, text, 0) for field in fields))


def _streamed_matches(
    store: str, text: str, archive: str, position: int = 0
) -> Iterator[Place]:
    """Yield the matches in a journal from a position on.

    Reads it once if the text is an archive id or its first characters, else twice.
    """
    path = journal_reader.path_of(store, archive)
    offsets: dict[str, list[int]] = {}
    for line in _lines_with(path, position, {text, text.lower()}):
        archive_id = _archive_id(line)
        if archive_id and _has_id(line, archive_id, text):
            offsets.setdefault(archive_id, []).append(line.offset)
            if len(offsets) > record_reader.MATCH_LIMIT:
                break
    if "@" in text and not offsets:
        found = _with_message_id(store, text.strip("<>"), archive, position)
        offsets = {each: [] for each in islice(found, record_reader.MATCH_LIMIT + 1)}
    # A line need not have the other ids.
    others: dict[str, list[int]] = {
        each: [] for each in offsets if not each.startswith(text)
    }
    offsets |= others
    for line in _lines_with(path, position, others):
        archive_id = _archive_id(line)
        if archive_id in others:
            offsets[archive_id].append(line.offset)
    for archive_id, lines in offsets.items():
        yield Place(archive, archive_id, tuple(lines))


def _lines_with(path: str, position: int, texts: Iterable[str]) -> Iterator[Line]:
    """Yield the lines that contain one of these ids, in whatever field."""
    needles = [os.fsencode(each) for each in texts]
    return journal_search.lines_with(path, position, needles) if needles else iter(())


def _has_id(line: Line, archive_id: str, text: str) -> bool:
    if archive_id.startswith(text) or text == line.field("queue_id"):
        return True
    if line.kind not in journal.CAPTURE_EVENTS:
        return False
    is_digest = len(text) >= MIN_DIGITS and line.field("sha256").startswith(
        text.lower()
    )
    return is_digest or text == line.envelope_field("X-Postfix-Queue-ID")


def _with_message_id(
    store: str, message_id: str, archive: str, position: int
) -> Iterator[str]:
    """Yield the archive ids of messages with a Message-ID; reads every header."""
    path = journal_reader.path_of(store, archive)
    for line in journal_reader.lines(path, position):
        is_capture = line.kind == journal.ARCHIVED
        event = journal_reader.valid_event(line) if is_capture else None
        for message in record.merge(archive, [event] if event else []).values():
            with contextlib.suppress(RecordDamaged, StoreFailed):
                head = record_reader.original_head(store, message)
                field = address.as_text(mime.field_text(head, b"message-id"))
                if field.strip().strip("<>") == message_id:
                    yield message.archive_id


def _archive_id(line: Line) -> str:
    """Return the archive id in a line, "" if it has none or is damaged."""
    with contextlib.suppress(ValueError):
        return line.field("id")
    return ""
