"""What proves that a message is as it was: digests, its place in the chain, seals.

Used by message_page, for users who may see all of a message; also how long it is kept
and which holds cover it. What cannot be told is said, and raises nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError
from postfix_archive.message.printable import safe_text
from postfix_archive.retention import holds, rules
from postfix_archive.retention.rules import Decision
from postfix_archive.seal import seal_file
from postfix_archive.status import last_verify, status_file
from postfix_archive.status.last_verify import LastVerify
from postfix_archive.store import journal_format, journal_reader, record_check
from postfix_archive.store.verifier import Seal
from postfix_archive.web.message.reader import Field
from postfix_archive.web.visible.message import VisibleMessage

TAG = re.compile(r"(?:^|;)\s*([a-z]+)\s*=\s*([^;]*)")
DKIM_RESULT = re.compile(
    r";\s*dkim\s*=\s*(\w+)[^;]*?\bheader\.(?:d|i)\s*=\s*([^\s;]+)", re.I
)
SIGNATURE_LIMIT = 20  # signatures that are shown


class ChainPlace(NamedTuple):
    """Where the first line of a record is in the journal, and the line's SHA-256."""

    segment: str
    number: int
    sha256: str
    end: int


class Evidence(NamedTuple):
    """What is checked now, and what was noted before. ``problems``: [] if all is well.

    ``seal`` is the first one that covers the line, ``matches_seal`` whether the journal
    still has the line where that seal was made.
    """

    problems: list[str]
    sha256: str
    place: ChainPlace | None
    last_verify: LastVerify | None
    seal: Seal | None
    matches_seal: bool


class Keeping(NamedTuple):
    """How long a message is kept; ``problems`` say what is not known."""

    decision: Decision | None
    is_noted: bool
    hold_names: tuple[str, ...]
    problems: list[str]


class Signature(NamedTuple):
    """A DKIM signature: domain, selector, and this host's result or ""."""

    domain: str
    selector: str
    result: str


def evidence(message: VisibleMessage) -> Evidence:
    """Check a message; raises AccessRefused for users who may not see all of it."""
    record, settings = message.record, message.settings
    store = settings.archive_store_directory
    place = seal = None
    matches_seal = False
    problems: list[str] = []
    try:
        problems += record_check.problems(store, record, message.offsets)
        place = _place(message)
        if place:
            seal = seal_file.first_covering(store, message.archive, place.end)
        matches_seal = seal is not None and _is_in_journal(store, message.archive, seal)
    except ArchiveError as error:
        problems.append(str(error))
    return Evidence(
        list(map(safe_text, problems)),
        safe_text(str(record.events[0]["sha256"])),
        place,
        _last_verify(settings),
        seal,
        matches_seal,
    )


def _last_verify(settings: Settings) -> LastVerify | None:
    """Return the last verify of the store; the page's user knows it from a file."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        state = status_file.read(settings) or {}
        fields = state.get("last_verify")
        return last_verify.read(settings) or (LastVerify(**fields) if fields else None)
    return None


def _place(message: VisibleMessage) -> ChainPlace | None:
    store = message.settings.archive_store_directory
    path = journal_reader.path_of(store, message.archive)
    for line in journal_reader.lines_at(path, message.offsets[:1]):
        segment = next(
            (
                name
                for name, start, end in journal_reader.segments(path)
                if start <= line.offset < end
            ),
            "",
        )
        number = journal_format.last_number(line.content, is_whole_file=True) or 0
        sha256 = journal_format.line_sha256(line.content)
        return ChainPlace(segment, number, sha256, line.end)
    return None


def _is_in_journal(store: str, archive: str, seal: Seal) -> bool:
    """Tell whether a journal has the line at which it was sealed."""
    path = journal_reader.path_of(store, archive)
    for head in seal.heads:
        if (head.archive, head.journal) == (archive, journal_format.NAME):
            lines = journal_reader.lines_at(path, [head.start])
            hashes = (journal_format.line_sha256(each.content) for each in lines)
            return head.sha256 in hashes
    return False


def keeping(message: VisibleMessage) -> Keeping:
    """Return how long a message is kept, and what holds it."""
    record, settings = message.record, message.settings
    problems: list[str] = []
    names: tuple[str, ...] = ()
    decision = rules.noted(record)
    is_noted = decision is not None
    ids = [message.archive_id]
    try:
        names = holds.covering(settings, message.archive, ids)[message.archive_id]
    except ArchiveError as error:
        problems.append(safe_text(str(error)))
    try:
        if decision is None:
            decided = rules.load(settings).decide(message.archive, ids)
            decision = decided[message.archive_id]
    except ArchiveError as error:
        problems.append(safe_text(str(error)))
    return Keeping(decision, is_noted, names, problems)


def signatures(fields: Iterable[Field], host: str) -> list[Signature]:
    """Return the DKIM signatures of a header (RFC 6376 3.5).

    host is the name of this host: what its Authentication-Results (RFC 8601) says of a
    domain is the result; those of other hosts prove nothing.
    """
    fields = list(fields)
    results = dict(_results(fields, host))
    found: list[Signature] = []
    for field in fields:
        if field.name.lower() == "dkim-signature" and len(found) < SIGNATURE_LIMIT:
            tags = dict(TAG.findall(field.value))
            domain = tags.get("d", "").strip().lower()
            selector = tags.get("s", "").strip()
            found.append(Signature(domain, selector, results.get(domain, "")))
    return found


def _results(fields: Iterable[Field], host: str) -> Iterator[tuple[str, str]]:
    for field in fields:
        server = field.value.partition(";")[0].split()
        is_results = field.name.lower() == "authentication-results"
        if is_results and server and server[0].lower() == host.lower():
            for result, domain in DKIM_RESULT.findall(field.value):
                yield domain.rpartition("@")[2].lower(), result.lower()
