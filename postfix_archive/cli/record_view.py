"""Show one record: as one line, as a page of text, as JSON.

Used by cli/main.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import chardet

from postfix_archive.config.settings import Settings
from postfix_archive.errors import RecordDamaged, StoreFailed
from postfix_archive.message import dates, encoded_words, header, mime, printable
from postfix_archive.message.printable import safe_text
from postfix_archive.store import journal, outcome_summary, record_reader
from postfix_archive.store.journal_event import Event
from postfix_archive.store.record import Record

SUBJECT_LIMIT = 1 << 14  # bytes; bounds the time
SUBJECT_COLUMNS = 998  # as many as RFC 5322 2.1.1 allows on a line
LIST_SUBJECT_COLUMNS = 160
NO_COPY = "(the copy is missing or damaged)"
VERDICT_TEXTS = {
    "absent": "no Archive-Stamp header",
    "valid": "valid Archive-Stamp header, but not in this store",
    "altered": "changed since this archive stamped it",
    "forged": "Archive-Stamp header not made with a key of this site",
}


def to_json(message: Record) -> dict[str, Any]:
    """Return one record as a JSON object."""
    return {
        "id": message.archive_id,
        "archive": message.archive,
        "archived": message.events[0]["time"],
        "sender": safe_text(message.envelope.sender),
        "recipients": [safe_text(each.final) for each in message.recipients.values()],
        "queue_id": safe_text(message.envelope.queue_id),
        "size": message.events[0]["size"],
        "sha256": message.events[0]["sha256"],
        "files": message.files,
        "outcome": message.results.overall_kind,
        "outcomes": dict(message.results.counts_by_kind),
        "reports": list(message.reports),
    }


def summary_line(
    settings: Settings, message: Record, problems: list[str] | None = None
) -> str:
    """Return one line: id, time, archive, sender, recipients, outcome, subject.

    Appends to problems why there is no subject: the copy is missing or damaged.
    """
    count = len(message.recipients)
    first = next(iter(message.recipients.values()), None)
    recipient_text = safe_text(first.final) if first else "(no recipients)"
    if count > 1:
        recipient_text += f" +{count - 1}"
    sender = safe_text(message.envelope.sender) or "<>"
    time = message.events[0]["time"]
    head = _head(settings, message, problems)
    subject_text = NO_COPY if head is None else subject(head, LIST_SUBJECT_COLUMNS)
    is_known = message.results.overall_kind != outcome_summary.UNKNOWN
    outcome_text = f"({message.results.overall_kind})  " if is_known else ""
    prefix = (
        f"{message.archive_id}  {time}  {message.archive}  {sender} -> {recipient_text}"
    )
    return f"{prefix}  {outcome_text}{subject_text}"


def lines(
    settings: Settings, message: Record, problems: list[str] | None = None
) -> Iterator[str]:
    """Yield the lines of a record: envelope, files, outcomes, history.

    Appends to problems why there is no subject: the copy is missing or damaged.
    """
    envelope = message.envelope
    head = _head(settings, message, problems)
    yield f"Archive id:  {message.archive_id}"
    yield f"Archive:     {message.archive}"
    if head is None:
        yield f"Subject:     {NO_COPY}"
    else:
        message_id = safe_text(mime.field_text(head, b"message-id")) or "(none)"
        yield f"Subject:     {subject(head)}"
        yield f"Message-ID:  {message_id}"
    yield f"Sender:      {safe_text(envelope.sender) or '<> (the null sender)'}"
    if envelope.arrival is not None:
        yield f"Received:    {dates.format_rfc5322(envelope.arrival).decode()}"
    yield (
        f"Host:        {safe_text(envelope.host)}, queue id"
        f" {safe_text(envelope.queue_id)}"
    )
    yield from _client(message)
    yield f"Size:        {message.events[0]['size']} bytes"
    yield f"SHA-256:     {safe_text(message.events[0]['sha256'])}"
    for name in (*message.files, *message.reports):
        path = f"{settings.archive_store_directory}/{message.archive}/{name}"
        label = "Report:" if name in message.reports else "File:"
        yield f"{label:12} {safe_text(path)}"
    if message.results.overall_kind != outcome_summary.UNKNOWN:
        yield f"Outcome:     {message.results.overall_kind}"
    yield from _recipients(message)
    yield "History:"
    for event in message.events:
        yield f"  {event['time']}  {_event_text(event)}"


def _head(
    settings: Settings, message: Record, problems: list[str] | None
) -> bytes | None:
    """Return the header of the original, None if the copy is missing or damaged."""
    try:
        return record_reader.original_head(settings.archive_store_directory, message)
    except (RecordDamaged, StoreFailed) as error:
        if problems is not None:
            problems.append(str(error))
        return None


def _recipients(message: Record) -> Iterator[str]:
    """Yield each recipient with its outcome, then the recipients it expanded to."""
    yield f"Recipients:  {len(message.recipients)}"
    is_known = message.results.overall_kind != outcome_summary.UNKNOWN
    for result in message.results.recipient_results():
        indent = "  " * (result.depth + 1)
        expanded_from = result.original if result.original != result.recipient else ""
        yield f"{indent}{safe_text(result.recipient)}" + (
            f" (expanded from {safe_text(expanded_from)})" if expanded_from else ""
        )
        if result.outcome is not None:
            yield f"{indent}  {safe_text(result.outcome.describe())}"
        elif is_known and result.is_counted:
            yield f"{indent}  no outcome yet"


def _client(message: Record) -> Iterator[str]:
    client = message.envelope.client
    if client.address:
        name = safe_text(client.hostname) or "unknown"
        helo = f", helo {safe_text(client.helo)}" if client.helo else ""
        protocol = f", {safe_text(client.protocol)}" if client.protocol else ""
        yield f"Client:      {name} [{safe_text(client.address)}]{helo}{protocol}"
    if client.sasl_username:
        method = f" by {safe_text(client.sasl_method)}" if client.sasl_method else ""
        yield f"SASL user:   {safe_text(client.sasl_username)}{method}"


def _event_text(event: Event) -> str:
    if event["event"] == journal.ARCHIVED:
        return f"archived ({VERDICT_TEXTS.get(event['stamp'], '?')})"
    if event["event"] == journal.SUPPLEMENT:
        above = event.get("above", "").count("\n")
        suffix = f", {above} header lines above the stamp" if above else ""
        return f"supplement to the envelope{suffix}"
    if event["event"] == journal.OUTCOME:
        return safe_text(f"{event['recipient']}: {event['outcome']}")
    if event["event"] == journal.OUTCOME_REPORT:
        return "outcome report stored"
    return safe_text(f"{event['event']}, queued as {event.get('queued_as', '?')}")


def subject(head: bytes, columns: int = SUBJECT_COLUMNS) -> str:
    """Return the subject, with encoded words (RFC 2047) and charsets decoded."""
    field = header.first(head, b"subject")
    raw = field.value[:SUBJECT_LIMIT] if field else b""
    text = safe_text(encoded_words.decode(raw, _decode_undeclared))
    return printable.cut(text, columns) or "(no subject)"


def _decode_undeclared(raw: bytes) -> str:
    """Decode text without a declared charset, as chardet guesses it."""
    if b"\x1b$" in raw:
        return encoded_words.decode_charset(raw, "iso-2022-jp")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        guess = chardet.detect(raw)
    try:
        return encoded_words.decode_charset(raw, guess["encoding"] or "ascii")
    except LookupError:  # chardet has charsets that Python lacks
        return raw.decode("ascii", "replace")
