"""Where the journals of a store end now, for a seal; counted on from the last seal.

Used by sealing and seal_lag. Takes the lock of a journal for one fsync only, and reads
no line twice. Raises StoreFailed and JournalFailed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from postfix_archive.errors import JournalFailed
from postfix_archive.store import (
    journal,
    journal_format,
    journal_reader,
    journal_segment,
    tally_cache,
    verifier,
)
from postfix_archive.store.journal_format import Segments
from postfix_archive.store.known_end import KnownEnd
from postfix_archive.store.verifier import Head, Seal

# Events that come of sealing itself, or of a new month: no reason for a new seal.
OWN_EVENTS = (journal.SEALED, journal.SEGMENT)


class Heads(NamedTuple):
    """The heads of all journals, and how they differ from those of the last seal.

    ``losses`` says what the journals have lost since, one line each.
    """

    heads: tuple[Head, ...]
    is_new: bool
    losses: tuple[str, ...]


def read(store: str, archives: Iterable[str], last: Seal | None) -> Heads:
    """Return the heads now; every head is durable."""
    heads, losses, is_new = [], [], last is None
    previous = {(e.archive, e.journal): e for e in last.heads} if last else {}
    archives = list(archives)
    for archive in archives:
        for name in verifier.JOURNALS:
            before = previous.get((archive, name), _first_head(archive, name))
            loss = _loss(store, before)
            if loss:
                losses.append(f"{store}/{archive}/{name}: {loss}")
                before = _first_head(archive, name)
            head, has_events = _count_on(store, before)
            heads.append(head)
            is_new |= bool(loss) or has_events
    sealed_archives = {key[0] for key in previous}
    for missing in sorted(sealed_archives - set(archives)):
        losses.append(f"{store}/{missing}: the archive is missing")
    is_new |= sealed_archives != set(archives)
    return Heads(tuple(heads), is_new, tuple(losses))


def unsealed_since(store: str, archives: Iterable[str], last: Seal | None) -> str:
    """Return the time of the first line that no seal covers, "" if there is none."""
    previous = {(e.archive, e.journal): e for e in last.heads} if last else {}
    times = []
    for archive in archives:
        for name in verifier.JOURNALS:
            before = previous.get((archive, name), _first_head(archive, name))
            path = journal_reader.path_of(store, archive, name)
            for line in journal_reader.lines(path, before.end):
                if line.time and line.kind not in OWN_EVENTS:
                    times.append(line.time)
                    break
    return min(times, default="")


def _first_head(archive: str, name: str) -> Head:
    """Return the head of a journal without a line."""
    return Head(archive, name, "", 0, journal_segment.FIRST_PREV, 0, 0, 0, "")


def _loss(store: str, head: Head) -> str:
    """Return what a journal has lost of a head, "" if nothing."""
    if not head.end:
        return ""
    end = KnownEnd(head.start, head.end, head.seq, head.sha256)
    return end.loss(f"{store}/{head.archive}", head.journal)


def _count_on(store: str, before: Head) -> tuple[Head, bool]:
    """Return the head of a journal now, and whether it has events besides ours."""
    archive, name = before.archive, before.journal
    path = journal_reader.path_of(store, archive, name)
    count, head, has_events = before.lines, before, False
    last = None
    for line in journal_reader.lines(path, before.end):
        count += 1
        has_events |= line.kind not in OWN_EVENTS
        if journal_format.is_complete(line.content[:-1]):
            last, last_count = line, count
    if last is None:
        return head, has_events
    number = journal_format.last_number(last.content, is_whole_file=True) or 0
    sha256 = journal_format.line_sha256(last.content)
    end = KnownEnd(last.offset, last.end, number, sha256)
    if not tally_cache.is_durable(f"{store}/{archive}", end, name, waits=True):
        raise JournalFailed(
            f"{path}: line {number} cannot be made durable; is the disk full, or its"
            " owner another user? Then run postfix-archive seal again"
        )
    with Segments(path) as segments:
        segment = segments.locate(last.offset)[0]
    head = Head(
        archive,
        name,
        segment,
        number,
        sha256,
        last_count,
        end.start,
        end.end,
        last.time,
    )
    return head, has_events
