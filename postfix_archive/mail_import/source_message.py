"""A message of a source, and what the source says about its envelope.

Made by the readers of this package, stored by mail_import/run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email.utils import mktime_tz, parsedate_tz

from postfix_archive.message import dates, header, smtp_data
from postfix_archive.message.envelope import Client, Recipient
from postfix_archive.system import spool
from postfix_archive.system.spool import Spool

DAY_SECONDS = dates.DAY_SECONDS
# Fields that a delivery agent adds: postconf(5), Exim and qmail. X-Envelope-To is ours
# (archive_report_format = message) and Cyrus'.
RECIPIENT_FIELDS = (b"x-original-to", b"delivered-to", b"envelope-to", b"x-envelope-to")
PILER_FIELD = b"X-Piler-Envelope-To"
FIRST_LINE = re.compile(rb"(?:%s:.*\n)*+[^\n]*?(\r?)\n" % PILER_FIELD)
ANGLE_ADDRESS = re.compile(rb"<([^<>\s]*)>")


@dataclass
class SourceMessage:
    """One message: its canonical bytes, and its envelope as far as it is known.

    ``how`` names the kind of source, ``source`` where it is. ``sender`` is None where
    it is not known, ``arrival`` Unix time. ``is_cut`` is true if the source ends in the
    middle of it.
    """

    content: Spool
    how: str
    source: str
    sender: bytes | None = None
    recipients: tuple[Recipient, ...] = ()
    arrival: int | None = None
    client: Client = field(default_factory=Client)
    queue_id: bytes = b""
    is_cut: bool = False


def canonical(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a message in canonical form; its first line says which form it has.

    Lines end with CRLF if the first one does (below those that Piler puts on top with
    LF). Else each LF ends a line and a CR before it belongs to the line: the inverse of
    what an export as mbox or Maildir does.
    """
    remaining = iter(pieces)
    buffer = b""
    for piece in remaining:
        buffer += piece
        if FIRST_LINE.match(buffer) or len(buffer) > header.HEAD_LIMIT:
            break
    rest = smtp_data.chain((buffer,), remaining)
    match = FIRST_LINE.match(buffer)
    if match and match[1]:
        rest = smtp_data.to_lf(rest)
    return smtp_data.to_canonical(rest)


def read(pieces: Iterable[bytes], spool_directory: str) -> Spool:
    """Return a message in canonical form; the caller closes it. Raises SpoolFailed."""
    message = Spool()
    try:
        for piece in canonical(pieces):
            spool.append(message, piece, spool_directory)
    except BaseException:
        message.close()
        raise
    return message


def part_of(message: Spool, start: int, stop: int, spool_directory: str) -> Spool:
    """Return a part of a message as a message, byte for byte."""
    part = Spool()
    try:
        for chunk in message.chunks(start, stop):
            spool.append(part, chunk, spool_directory)
    except BaseException:
        part.close()
        raise
    return part


def complete_envelope(message: SourceMessage, now: float) -> None:
    """Take from the header what the source did not say about the envelope.

    Sent items and drafts have no Received:. They arrived when they were written.
    """
    head = message.content.head()
    if message.sender is None:
        return_path = header.first(head, b"return-path")
        match = ANGLE_ADDRESS.search(return_path.value) if return_path else None
        message.sender = match[1] if match else None
    if not message.recipients:
        found = (
            each.value.strip(b"<> \t")
            for each in header.fields(head)
            if each.name in RECIPIENT_FIELDS
        )
        unique = dict.fromkeys(each for each in found if b"@" in each)
        message.recipients = tuple(Recipient(each) for each in unique)
    if message.arrival is None:
        message.arrival = received_time(head)
    if message.arrival is None:
        message.arrival = sent_time(head, now)


def received_time(head: bytes) -> int | None:
    """Return the time in the topmost Received: field."""
    field_ = header.first(head, b"received")
    return None if field_ is None else parse_date(field_.value.rpartition(b";")[2])


def sent_time(head: bytes, now: float) -> int | None:
    """Return the time in the Date: field, None for one later than tomorrow."""
    field_ = header.first(head, b"date")
    time = None if field_ is None else parse_date(field_.value)
    return None if time is None or time >= now + DAY_SECONDS else time


def day_of(head: bytes, now: float) -> str:
    """Return the day (UTC) in a message's Date: or Received: field, as YYYYMMDD.

    19700101 for a message that has none, or one later than tomorrow: the day is part of
    the archive id, which depends on the content alone.
    """
    for each in (sent_time(head, now), received_time(head)):
        if each is not None and each < now + DAY_SECONDS:
            return dates.format_rfc3339(each)[:10].replace("-", "")
    return "19700101"


def parse_date(value: bytes) -> int | None:
    """Return the Unix time of a date of a header, also of an obsolete form."""
    exact = dates.parse_rfc5322(value)
    if exact is not None:
        return exact
    try:
        fields = parsedate_tz(value.decode("latin-1"))
        seconds = mktime_tz(fields) if fields else -1
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    return seconds if 0 <= seconds < dates.TIME_LIMIT else None
