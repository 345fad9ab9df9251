"""Catches an index up with the journal of its archive.

Used by index_service. Reads the lines from the index's position on and the copies of
new messages, and commits about every COMMIT_SECONDS. What cannot be read or extracted
is named in the message's problems, and the message is indexed without it. Raises
IndexFailed, JournalFailed and StoreFailed.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import dropwhile

from postfix_archive.errors import (
    CopyUnreachable,
    IndexFailed,
    RecordDamaged,
    StoreFailed,
)
from postfix_archive.search import extraction_header, index_entry
from postfix_archive.search.content import MessageContent
from postfix_archive.search.extraction_process import read_original
from postfix_archive.search.index_engine import IndexWriter, NewMessage
from postfix_archive.search.index_entry import ContentEntry
from postfix_archive.store import (
    copy_file,
    journal,
    journal_reader,
    record,
    record_reader,
)
from postfix_archive.store.journal_event import Event
from postfix_archive.store.journal_reader import Line
from postfix_archive.store.record import Record

# FTS5 writes a segment at each commit, and merges them later: the fewer, the faster.
# Mail that arrives is committed earlier, at the end of the journal.
COMMIT_SECONDS = 4.0
# Lines of the journal that are applied together: at most 100 messages. A transaction
# has those of COMMIT_SECONDS and one such chunk, however long their extraction takes.
CHUNK_LINES = 100
CHUNK_BYTES = 4 << 20  # bytes of such lines; a single one can have 20 MB
ADDED_SIZE = 2_000_000  # characters of text that wait to be added together
READ_SIZE = 1 << 19  # bytes of originals that are extracted together
# The message is not to blame for these; later it may be read.
PASSING_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
INDEXED_EVENTS = {
    *index_entry.MATCHED_EVENTS,
    *journal.REPORT_EVENTS,
    *journal.REQUEST_EVENTS,
    journal.MAILED,
    journal.MOVED,
}
NO_CONTENT = extraction_header.NO_CONTENT._replace(
    problems=("copy: missing or damaged",)
)
# Such as extraction_process.Extractor's.
ExtractAll = Callable[[Sequence[bytes]], Iterator[MessageContent]]
EventsById = dict[str, dict[int, Event]]  # the events of a message by their offsets


class Indexer:
    """Catches up the index of one archive."""

    def __init__(
        self,
        store_directory: str,
        archive: str,
        index: IndexWriter,
        extract_all: ExtractAll,
    ) -> None:
        self._store_directory = store_directory
        self._archive = archive
        self._index = index
        self._extract_all = extract_all
        self._path = journal_reader.path_of(store_directory, archive)

    def catch_up(self) -> Iterator[int]:
        """Index all lines up to the end of the journal.

        Yields after each commit the number of messages that it added; the caller may
        stop then.
        """
        committed_at = time.monotonic()
        added = 0
        last_line: Line | None = None  # not committed yet
        for chunk in _chunks(journal_reader.lines(self._path, self._index.position)):
            added += self._apply(chunk)
            last_line = chunk[-1]
            if time.monotonic() - committed_at >= COMMIT_SECONDS:
                self._index.commit(last_line)
                yield added
                last_line, added, committed_at = None, 0, time.monotonic()
        if last_line is not None:
            self._index.commit(last_line)
            yield added
        self._index.tidy()

    def _apply(self, chunk: Iterable[Line]) -> int:
        """Apply the events of some lines; return the number of messages added."""
        events: EventsById = {}
        removed: set[str] = set()
        for line in chunk:
            kind = line.kind
            if kind in journal.REMOVAL_EVENTS and line.is_complete:
                # It is not added, or removed; later events are of a new record.
                removed.add(line.field("id"))
                events.pop(line.field("id"), None)
            if kind in journal.DECISION_EVENTS:
                self._index.add_decision(line.offset)
            if kind in INDEXED_EVENTS:
                event = journal_reader.valid_event(line)
                if event is not None:
                    events.setdefault(event["id"], {})[line.offset] = event
        present = [each for each in removed if self._index.offsets(each) is not None]
        if present:
            self._index.remove(present, self._removed_content)
        new = []
        for archive_id, own_events in events.items():
            known = self._index.offsets(archive_id)
            if known is None:
                new.append(_from_archived(own_events))
            elif not own_events.keys() <= {*known}:
                self._update(sorted({*known, *own_events}))
        return self._add(new)

    def _removed_content(self, archive_id: str) -> ContentEntry:
        """Return the content of a message whose details are struck out."""
        for line in journal_reader.lines_at(
            self._path, self._index.offsets(archive_id) or ()
        ):
            if line.kind == journal.ARCHIVED:
                name = line.field("file")
                [content] = self._contents([_original(self._copied(name))])
                return index_entry.from_content(content)
        return index_entry.from_content(NO_CONTENT)

    def _copied(self, name: str) -> Iterator[bytes]:
        """Yield the original in a copy of which only the name is known."""
        path = f"{self._store_directory}/{self._archive}/{name}"
        size = copy_file.read_capture(path, self._archive).size
        yield from copy_file.original(path, name, size)

    def _add(self, new: Iterable[dict[int, Event]]) -> int:
        """Add messages, with about ADDED_SIZE of text at once; return their number."""
        added = size = 0
        messages: list[NewMessage] = []
        for message in self._messages(new):
            messages.append(message)
            size += sum(map(len, message.content.texts))
            if size > ADDED_SIZE:
                self._index.add(messages)
                added += len(messages)
                messages, size = [], 0
        self._index.add(messages)
        return added + len(messages)

    def _messages(self, new: Iterable[dict[int, Event]]) -> Iterator[NewMessage]:
        """Yield the messages of whose events the first one is there."""
        unread = (
            (message, [*events])
            for events in new
            for message in record.merge(self._archive, events.values()).values()
            if message.files
        )
        while some := [*self._read(unread)]:
            contents = self._contents([original for _, _, original in some])
            for (message, offsets, _), content in zip(some, contents, strict=True):
                record_entry = index_entry.from_record(message)
                content_entry = index_entry.from_content(content)
                yield NewMessage(record_entry, content_entry, offsets)

    def _read(
        self, unread: Iterator[tuple[Record, list[int]]]
    ) -> Iterator[tuple[Record, list[int], bytes | None]]:
        """Yield some messages with their originals: those of about READ_SIZE."""
        size = 0
        for message, offsets in unread:
            original = _original(record_reader.original(self._store_directory, message))
            yield message, offsets, original
            size += len(original or b"")
            if size > READ_SIZE:
                return

    def _contents(self, originals: Sequence[bytes | None]) -> Iterator[MessageContent]:
        """Yield the content of each original, NO_CONTENT of None."""
        contents = self._extract_all([each for each in originals if each is not None])
        try:
            for each in originals:
                yield NO_CONTENT if each is None else next(contents)
        except OSError as error:
            raise IndexFailed(f"process for extraction: {error.strerror}") from error

    def _update(self, offsets: list[int]) -> None:
        lines = journal_reader.lines_at(self._path, offsets)
        events = filter(None, map(journal_reader.valid_event, lines))
        for message in record.merge(self._archive, events).values():
            self._index.update(index_entry.from_record(message), offsets)


def _original(chunks: Iterable[bytes]) -> bytes | None:
    """Return an original, None if it cannot be read."""
    try:
        return read_original(chunks)
    except CopyUnreachable:
        raise
    except (RecordDamaged, StoreFailed) as error:
        if getattr(error.__cause__, "errno", 0) in PASSING_ERRORS:
            raise
        return None


def _from_archived(events: dict[int, Event]) -> dict[int, Event]:
    """Return the events from the first ``archived`` on.

    Earlier ones are of a record with the same id that was removed.
    """
    later = dropwhile(lambda item: item[1]["event"] != journal.ARCHIVED, events.items())
    return dict(later)


def _chunks(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield lines in chunks of at most CHUNK_LINES and about CHUNK_BYTES."""
    chunk: list[Line] = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += len(line.content)
        if len(chunk) == CHUNK_LINES or size > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
