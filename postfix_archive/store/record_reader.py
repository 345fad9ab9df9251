"""Read the store: archives, records, archive copies, originals.

Used by the commands, outcomes and status. Changes nothing. Raises StoreFailed,
JournalFailed, RecordNotFound and RecordDamaged.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
from collections.abc import Callable, Iterable, Iterator

from postfix_archive.errors import (
    JournalFailed,
    RecordDamaged,
    RecordNotFound,
    RecordRemoved,
    StoreFailed,
)
from postfix_archive.message import address, dates, header, mime
from postfix_archive.store import (
    bypass_period,
    copy_file,
    journal,
    journal_event,
    journal_format,
    journal_reader,
    journal_search,
    record,
    record_index,
)
from postfix_archive.store.bypass_period import BypassPeriod
from postfix_archive.store.journal_event import Event
from postfix_archive.store.record import Record

MATCH_LIMIT = 5  # records that a message about an ambiguous prefix names
PASS_SPAN = 7 * dates.DAY_SECONDS  # longer than mail is queued (5 d)
END_OF_HEADER = b"\r\n\r\n"


def archives(directory: str) -> list[str]:
    """Return the addresses of all archives; [] if the store directory is missing."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreFailed(f"{directory}: {journal_reader.reason(error)}") from error
    return [each for each in names if address.is_plain(os.fsencode(each))]


def selected_archives(directory: str, *names: str | None) -> list[str]:
    """Return these archives (None is none of them), or all if there is none.

    Raises RecordNotFound for one that is not in the store.
    """
    known = archives(directory)
    selected = [each for each in names if each]
    for each in selected:
        if each not in known:
            raise RecordNotFound(
                f"{directory} has no archive {each}; it has"
                f" {', '.join(known) or 'none at all'}"
            )
    return selected or known


def records(
    directory: str,
    archive: str,
    *,
    since: float = 0.0,
    until: float = math.inf,
    last: int | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> Iterator[Record]:
    """Yield the records of one archive, oldest first.

    since and until are Unix times: only those first archived at or after since and
    before until, and of these the last ones only. Holds one record in memory at a time;
    the offsets of its lines come from a temporary database. Passes over damaged lines;
    warn is called at the end with a line about them. With last the journal is read from
    its end, and no further than is needed.
    """
    path = journal_reader.path_of(directory, archive)
    damage = _Damage(path)
    start = _start_of_last(path, since, until, last) if last else 0
    with record_index.RecordIndex() as index:
        index.add(_index_rows(path, start, damage))
        lists = index.offsets(since, until, last)
        for lines in journal_reader.lists_of_lines_at(path, lists):
            yield from record.merge(archive, _events(lines, damage)).values()
    if damage.count:
        warn(damage.text())


def record_at(directory: str, archive: str, offsets: Iterable[int]) -> Record:
    """Return the record of the journal lines that start at these offsets.

    Raises RecordRemoved if it was removed, RecordNotFound unless they are lines of one
    record, with its ``archived`` line: the journal is another one than that from which
    the offsets come.
    """
    path = journal_reader.path_of(directory, archive)
    offsets = list(offsets)
    events = []
    for line in journal_reader.lines_at(path, offsets):
        if line.is_struck_out or line.kind in journal.REMOVAL_EVENTS:
            archive_id = journal_format.string_field(line.content, "id")
            raise RecordRemoved(str(not_found(archive_id, directory)))
        event = journal_reader.valid_event(line)
        if event is not None:
            events.append(event)
    ids = {each.get("id", "") for each in events}
    names = {copy_file.copy_name(each) for each in ids}
    if (
        len(events) < len(offsets)
        or len(ids) != 1
        or names.isdisjoint(map(_file_name, events))
    ):
        raise RecordNotFound(f"{path}: no record at byte {min(offsets, default=0)}")
    return record.merge(archive, events)[ids.pop()]


def find_record(directory: str, id_prefix: str, archive: str | None) -> Record:
    """Return the record whose archive id starts with id_prefix.

    Searches one archive, or all for None; passes over damaged lines of others. Raises
    RecordNotFound for no or several matches, and RecordDamaged if it is not whole.
    """
    matches: dict[tuple[str, str], list[Event]] = {}
    for name in [archive] if archive else archives(directory):
        path = journal_reader.path_of(directory, name)
        others, damage = _Damage(path), _Damage(path)
        for event in _events(_with_prefix(path, id_prefix, others), damage):
            key = (name, event["id"])
            if event["event"] in journal.REMOVAL_EVENTS:
                matches.pop(key, None)
            elif key in matches or event["event"] in journal.CAPTURE_EVENTS:
                matches.setdefault(key, []).append(event)
            if len(matches) > MATCH_LIMIT:
                raise ambiguous(id_prefix, matches)
        if damage.count:
            raise (RecordDamaged if matches else JournalFailed)(damage.text())
    if not matches:
        raise not_found(id_prefix, directory)
    if len(matches) > 1:
        raise ambiguous(id_prefix, matches)
    [((name, archive_id), events)] = matches.items()
    return record.merge(name, events)[archive_id]


def with_same_message_id(
    directory: str, message: Record, warn: Callable[[str], None]
) -> Iterator[Record]:
    """Yield the other records of the archive with the Message-ID of this one.

    These are passes of the message that changed it, for example by a list manager. Of
    PASS_SPAN before and after; reads the header of every copy of that time, but skips
    those that are missing or damaged. warn as for records().
    """
    message_id = _message_id(directory, message)
    if not message_id:
        return
    archived = datetime.datetime.fromisoformat(message.events[0]["time"]).timestamp()
    begin, end = archived - PASS_SPAN, archived + PASS_SPAN
    for other in records(directory, message.archive, since=begin, until=end, warn=warn):
        if other.archive_id == message.archive_id:
            continue
        with contextlib.suppress(StoreFailed, RecordDamaged):
            if _message_id(directory, other) == message_id:
                yield other


def _message_id(directory: str, message: Record) -> bytes:
    return mime.field_text(original_head(directory, message), b"message-id")


def bypass_periods(
    directory: str, archive: str, since: float = 0.0
) -> list[BypassPeriod]:
    """Return the bypass periods that the journal records, each once.

    Of those with an event at or after since (Unix time).
    """
    path = journal_reader.path_of(directory, archive)
    lines = journal_reader.lines_between(path, since)
    found = (each for each in lines if each.kind in journal.BYPASS_EVENTS)
    events = filter(None, map(journal_reader.valid_event, found))
    # An end event follows its start event and replaces it.
    return list(
        {event["started"]: bypass_period.parse(event) for event in events}.values()
    )


def last_arrival(directory: str) -> float:
    """Return when the newest archived message arrived: Unix time, 0 if unknown.

    Looks at the ends of the journals only. Imported messages do not count.
    """
    events = (
        event
        for archive in archives(directory)
        for line in journal_reader.last_lines(
            journal_reader.path_of(directory, archive)
        )
        if line.kind in journal.CAPTURE_EVENTS
        and (event := journal_reader.valid_event(line)) is not None
    )
    envelopes = map(journal_event.parse_envelope, events)
    arrivals = (each.arrival for each in envelopes if not each.imported)
    return float(max(filter(None, arrivals), default=0))


def archive_copy(directory: str, message: Record) -> Iterator[bytes]:
    """Yield the bytes of the archive copy. Raises RecordDamaged and StoreFailed."""
    path = _path(directory, message, message.files[0] if message.files else "")
    return copy_file.decompress(
        path, copy_file.copy_limit(int(message.events[0]["size"]))
    )


def original(directory: str, message: Record) -> Iterator[bytes]:
    """Return the bytes of the original, exactly as received."""
    name = message.files[0] if message.files else ""
    path = _path(directory, message, name)
    return copy_file.original(path, name, int(message.events[0]["size"]))


def original_head(directory: str, message: Record) -> bytes:
    """Return the original up to the end of its header, at least, or HEAD_LIMIT."""
    head = b""
    for chunk in original(directory, message):
        head += chunk
        if END_OF_HEADER in head or len(head) > header.HEAD_LIMIT:
            break
    return head


def outcome_report(directory: str, message: Record) -> Iterator[bytes]:
    """Yield the bytes of the latest outcome report. Raises RecordNotFound."""
    if not message.reports:
        raise RecordNotFound(
            f"{message.archive_id} has no outcome report yet; it is written when all"
            " recipients have a final outcome, see postfix-archive show"
        )
    path = _path(directory, message, list(message.reports)[-1])
    return copy_file.decompress(path, copy_file.REPORT_LIMIT)


def _path(directory: str, message: Record, file_name: str) -> str:
    """Return the path of a file of a record; raises RecordDamaged for a bad name."""
    if {"", ".", ".."} & set(file_name.split("/")):
        raise RecordDamaged(
            f"{message.archive_id}: no valid file name in the journal; run"
            " postfix-archive verify"
        )
    return f"{directory}/{message.archive}/{file_name}"


class _Damage:
    """What was passed over in a journal: how many lines, and the first of them."""

    def __init__(self, path: str) -> None:
        self.count = 0
        self._path = path
        self._offset = 0
        self._problem = ""

    def add(self, line: journal_reader.Line, problem: str) -> None:
        """Add a line."""
        if not self.count:
            self._offset, self._problem = line.offset, problem
        self.count += 1

    def text(self) -> str:
        """Return one line that says where, what, and what to do next."""
        lines = journal_reader.lines(self._path)
        number = sum(each.offset <= self._offset for each in lines)
        others = f", and {self.count - 1} more" if self.count > 1 else ""
        return (
            f"{self._path}, line {number}: {self._problem}{others}; passed over; run"
            " postfix-archive verify"
        )


def _start_of_last(path: str, since: float, until: float, last: int) -> int:
    """Return an offset from which on these last records of the journal are."""
    first_time, end_time = map(record_index.timestamp, (since, until))
    removed: set[str] = set()
    for line in journal_reader.lines_backwards(path):
        archive_id = journal_format.string_field(line.content, "id")
        if line.kind in journal.REMOVAL_EVENTS:
            removed.add(archive_id)
        elif _begins_record(line, archive_id):
            if archive_id in removed:
                removed.discard(archive_id)
            elif first_time <= line.time < end_time and not line.is_struck_out:
                last -= 1
        if not last:
            return line.offset
    return 0


def _begins_record(line: journal_reader.Line, archive_id: str) -> bool:
    """Tell whether a line has the first original with this archive id."""
    file_name = journal_format.string_field(line.content, "file")
    is_first = file_name == copy_file.copy_name(archive_id)
    return line.kind == journal.ARCHIVED and is_first


def _index_rows(
    path: str, start: int, damage: _Damage
) -> Iterator[tuple[str, int, str]]:
    """Yield archive id, offset and time of each line that is about a message.

    Of records that begin at or after an offset. The time is "" for a line without an
    envelope, also for one that is struck out.
    """
    begun: set[str] = set()
    for line in journal_reader.lines(path, start):
        archive_id = _archive_id(line, damage)
        if start and archive_id not in begun:
            if not _begins_record(line, archive_id):
                continue
            begun.add(archive_id)
        if archive_id:
            is_capture = line.kind in journal.CAPTURE_EVENTS and not line.is_struck_out
            yield archive_id, line.offset, line.time if is_capture else ""


def _events(lines: Iterable[journal_reader.Line], damage: _Damage) -> Iterator[Event]:
    """Yield the events, but those struck out, which a removal has to account for.

    lines has all of a record, in order.
    """
    struck_out: dict[str, journal_reader.Line] = {}
    removed: set[str] = set()
    for line in lines:
        try:
            event = line.event()
        except ValueError as error:
            damage.add(line, str(error))
            continue
        if event is None:
            continue
        archive_id = event.get("id", "")
        if event["event"] == journal.ARCHIVED:
            removed.discard(archive_id)
        if line.is_struck_out:
            if archive_id not in removed:
                struck_out.setdefault(archive_id, line)
            continue
        if event["event"] in journal.REMOVAL_EVENTS:
            struck_out.pop(archive_id, None)
            removed.add(archive_id)
        yield event
    for line in struck_out.values():
        damage.add(line, "details struck out, and no later event says why")


def _with_prefix(
    path: str, id_prefix: str, damage: _Damage
) -> Iterator[journal_reader.Line]:
    for line in journal_reader.lines(path):
        archive_id = _archive_id(line, damage)
        if archive_id and archive_id.startswith(id_prefix):
            yield line


def _archive_id(line: journal_reader.Line, damage: _Damage) -> str:
    """Return the archive id in a line, "" if it has none or is damaged."""
    try:
        return line.field("id")
    except ValueError as error:
        damage.add(line, str(error))
        return ""


def not_found(id_prefix: str, directory: str) -> RecordNotFound:
    """Return the error that no record of a store has this id, and since when."""
    removal = _removal(id_prefix, directory) if id_prefix[:8].isdecimal() else ""
    return RecordNotFound(
        removal
        or f"no record {id_prefix} in {directory}; run postfix-archive list to see all"
    )


def _removal(id_prefix: str, directory: str) -> str:
    """Return when and by which rule a record was removed, "" if none was."""
    text = ""
    for archive in archives(directory):
        path = journal_reader.path_of(directory, archive)
        with contextlib.suppress(JournalFailed):
            for line in journal_search.lines_with(path, 0, [os.fsencode(id_prefix)]):
                archive_id = journal_format.string_field(line.content, "id")
                if line.kind in journal.REMOVAL_EVENTS and archive_id.startswith(
                    id_prefix
                ):
                    event = journal_reader.valid_event(line) or {}
                    rule = event.get("rule") or event.get("reason", "")
                    text = f"{archive_id} was {line.kind} {line.time}" + (
                        f" ({rule})" * bool(rule)
                    )
    return text


def no_id() -> RecordNotFound:
    """Return the error that there is no id where one must be."""
    return RecordNotFound(
        "the id is empty; give an archive id or its first characters, as"
        " postfix-archive list prints it"
    )


def ambiguous(id_prefix: str, matches: Iterable[tuple[str, str]]) -> RecordNotFound:
    """Return the error that several records, by archive and id, have this id."""
    names = [f"{archive_id} ({archive})" for archive, archive_id in matches]
    count = len(names) if len(names) <= MATCH_LIMIT else f"more than {MATCH_LIMIT}"
    return RecordNotFound(
        f"{id_prefix} matches {count} records: {', '.join(names[:MATCH_LIMIT])}; give a"
        " longer prefix, or --archive"
    )


def _file_name(event: Event) -> str:
    return event.get("file", "")
