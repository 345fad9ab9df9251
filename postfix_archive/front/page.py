"""Show one record: as one line, as a page of text, as JSON.

Used by cli/main.
"""

from __future__ import annotations

import email.errors
import email.header
from collections.abc import Iterator
from typing import Any

import chardet

from postfix_archive.back import reading
from postfix_archive.core import address, mime, outcome, record, results, trace
from postfix_archive.core.record import Record, shown
from postfix_archive.core.settings import Settings

SUBJECT_LIMIT = 998  # bytes: the line limit of RFC 5322 2.1.1; bounds the time
STAMPS = {
    "absent": "no Archive-Stamp header",
    "valid": "valid Archive-Stamp header, but not in this store",
    "altered": "changed since this archive stamped it",
    "forged": "Archive-Stamp header not made with a key of this site",
}


def facts(kept: Record) -> dict[str, Any]:
    """Return one record as a JSON object."""
    return {
        "id": kept.archive_id,
        "archive": kept.archive,
        "archived": kept.events[0]["time"],
        "sender": shown(kept.envelope.sender),
        "recipients": [shown(each.final) for each in kept.recipients.values()],
        "queue_id": shown(kept.envelope.queue_id),
        "size": kept.events[0]["size"],
        "sha256": kept.events[0]["sha256"],
        "files": kept.files,
        "outcome": kept.results.word,
        "outcomes": dict(kept.results.kinds),
        "reports": list(kept.reports),
    }


def row(settings: Settings, kept: Record) -> str:
    """Return one line: id, time, archive, sender, recipients, outcome, subject."""
    people = len(kept.recipients)
    first = next(iter(kept.recipients.values()), None)
    to = shown(first.final) if first else "(no recipients)"
    if people > 1:
        to += f" +{people - 1}"
    sender = shown(kept.envelope.sender) or "<>"
    when = kept.events[0]["time"]
    about = subject(reading.original_head(settings.archive_store_directory, kept))
    known = kept.results.word != results.UNKNOWN
    became = f"({kept.results.word})  " if known else ""
    start = f"{kept.archive_id}  {when}  {kept.archive}  {sender} -> {to}"
    return f"{start}  {became}{about}"


def lines(settings: Settings, kept: Record) -> Iterator[str]:
    """Yield the lines of a record: envelope, files, outcomes, history."""
    sealed = kept.envelope
    head = reading.original_head(settings.archive_store_directory, kept)
    yield f"Archive id:  {kept.archive_id}"
    yield f"Archive:     {kept.archive}"
    yield f"Subject:     {subject(head)}"
    yield f"Message-ID:  {shown(mime.field_text(head, b'message-id')) or '(none)'}"
    yield f"Sender:      {shown(sealed.sender) or '<> (the null sender)'}"
    if sealed.arrival is not None:
        yield f"Received:    {trace.written_date(sealed.arrival).decode()}"
    yield f"Host:        {shown(sealed.host)}, queue id {shown(sealed.queue_id)}"
    yield from _client(kept)
    yield f"Size:        {kept.events[0]['size']} bytes"
    yield f"SHA-256:     {_plain(kept.events[0]['sha256'])}"
    for name in (*kept.files, *kept.reports):
        path = f"{settings.archive_store_directory}/{kept.archive}/{name}"
        word = "Report:" if name in kept.reports else "File:"
        yield f"{word:12} {_plain(path)}"
    if kept.results.word != results.UNKNOWN:
        yield f"Outcome:     {kept.results.word}"
    yield from _recipients(kept)
    yield "History:"
    for event in kept.events:
        yield f"  {event['time']}  {_told(event)}"


def _recipients(kept: Record) -> Iterator[str]:
    """Yield each recipient with its outcome, then the recipients it expanded to."""
    yield f"Recipients:  {len(kept.recipients)}"
    is_known = kept.results.word != results.UNKNOWN
    for each in kept.results.all():
        indent = "  " * (each.depth + 1)
        before = each.original if each.original != each.recipient else ""
        yield f"{indent}{_address(each.recipient)}" + (
            f" (expanded from {_address(before)})" if before else ""
        )
        if each.outcome is not None:
            yield f"{indent}  {_address(each.outcome.told())}"
        elif is_known and each.counts:
            yield f"{indent}  no outcome yet"


def _client(kept: Record) -> Iterator[str]:
    client = kept.envelope.client
    if client.address:
        name = shown(client.hostname) or "unknown"
        helo = f", helo {shown(client.helo)}" if client.helo else ""
        how = f", {shown(client.protocol)}" if client.protocol else ""
        yield f"Client:      {name} [{shown(client.address)}]{helo}{how}"
    if client.sasl_username:
        method = f" by {shown(client.sasl_method)}" if client.sasl_method else ""
        yield f"SASL user:   {shown(client.sasl_username)}{method}"


def _told(event: dict[str, Any]) -> str:
    if event["event"] == "archived":
        return f"archived ({STAMPS.get(event['stamp'], '?')})"
    if event["event"] == "supplement":
        above = event.get("above", "").count("\n")
        added = f", {above} header lines above the stamp" if above else ""
        return f"supplement to the envelope{added}"
    if event["event"] == outcome.EVENT:
        return _address(f"{event['recipient']}: {event['outcome']}")
    if event["event"] == record.OUTCOME_REPORT:
        return "outcome report stored"
    return _plain(f"{event['event']}, queued as {event.get('queued_as', '?')}")


def _address(text: str) -> str:
    """Return text, with surrogates for bytes that are not UTF-8, terminal-safe."""
    return shown(address.as_bytes(text))


def _plain(text: str) -> str:
    """Return text from a journal, safe on a terminal."""
    return shown(text.encode("utf-8", "replace"))


def subject(head: bytes) -> str:
    """Return the subject, with encoded words (RFC 2047) and charsets decoded."""
    raw = mime.field_text(head, b"subject")[:SUBJECT_LIMIT]
    if not raw:
        return "(no subject)"
    if not raw.isascii():
        return _plain(_recoded(raw))
    try:
        text = str(email.header.make_header(email.header.decode_header(raw.decode())))
    except (ValueError, LookupError, email.errors.MessageError):
        text = raw.decode()
    return _plain(text)


def _recoded(raw: bytes) -> str:
    """Decode a subject without a declared charset, as chardet guesses it."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        guess = chardet.detect(raw)
    try:
        return raw.decode(guess["encoding"] or "ascii", "replace")
    except LookupError:  # chardet has charsets that Python lacks
        return raw.decode("ascii", "replace")
