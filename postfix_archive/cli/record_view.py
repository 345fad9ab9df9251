"""Show one record: as one line, as a page of text, as JSON.

Used by cli/main.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from postfix_archive.config.settings import Settings
from postfix_archive.errors import RecordDamaged, StoreFailed
from postfix_archive.message import (
    dates,
    encoded_words,
    header,
    mime,
    printable,
    stamp,
)
from postfix_archive.message.printable import safe_text
from postfix_archive.retention.hold_names import Names
from postfix_archive.search import charset
from postfix_archive.store import journal, outcome_summary, record_reader
from postfix_archive.store.journal_event import Event
from postfix_archive.store.outcome_summary import OutcomeSummary
from postfix_archive.store.record import Pass, Record

SUBJECT_LIMIT = 1 << 14  # bytes; bounds the time
SUBJECT_COLUMNS = 998  # as many as RFC 5322 2.1.1 allows on a line
LIST_SUBJECT_COLUMNS = 160
NO_COPY = "(the copy is missing or damaged)"
VERDICT_TEXTS = {
    "absent": "no Archive-Stamp header",
    "valid": "valid Archive-Stamp header, but not in this store",
    "content": "content of another message, whose copy is not in this store",
    "altered": "changed since this archive stamped it",
    "forged": "Archive-Stamp header not made with a key of this site",
}


def to_json(message: Record, hold_names: Names | None) -> dict[str, Any]:
    """Return one record as a JSON object.

    hold_names are those of the holds that cover it, None if they are not known.
    """
    return {
        "id": message.archive_id,
        "archive": message.archive,
        **_pass_to_json(message, message.passes[0]),
        "size": message.events[0]["size"],
        "sha256": message.events[0]["sha256"],
        "files": message.files,
        "passes": [_pass_to_json(message, each) for each in message.passes[1:]],
        "reports": list(message.reports),
        "holds": None if hold_names is None else list(hold_names),
    }


def _pass_to_json(message: Record, one: Pass) -> dict[str, Any]:
    results = message.results_of(one)
    return {
        "archived": one.time,
        "sender": safe_text(one.sender),
        "verp_delimiters": safe_text(_verp_delimiters(one)),
        "recipients": [safe_text(each.final) for each in one.recipients.values()],
        "queue_id": safe_text(one.envelope.queue_id),
        "client": safe_text(one.envelope.client.address),
        "sasl_username": safe_text(one.envelope.client.sasl_username),
        "lines_above": _lines_above(one),
        "is_returned_copy": one.is_returned_copy,
        "outcome": results.overall_kind,
        "outcomes": dict(results.counts_by_kind),
    }


def summary_lines(
    settings: Settings,
    message: Record,
    problems: list[str],
    hold_names: Names | None = None,
) -> Iterator[str]:
    """Yield one line: id, time, archive, sender, recipients, outcome, subject.

    Before the subject the holds that cover it. Each further pass of the message is a
    line below, without id and subject. Appends to problems why there is no subject: the
    copy is missing or damaged.
    """
    first, *others = message.passes
    text = f"{message.archive}  {_pass_text(message, first)}"
    text += f"(held by {', '.join(hold_names)})  " if hold_names else ""
    text += subject_text(settings, message, problems)
    yield f"{message.archive_id}  {first.time}  {text}"
    for one in others:
        if not one.is_returned_copy:
            yield f"    passed again  {one.time}  {_pass_text(message, one)}".rstrip()


def subject_text(settings: Settings, message: Record, problems: list[str]) -> str:
    """Return the subject for a list, or that the copy is missing or damaged.

    Appends to problems why there is none.
    """
    head = _head(settings, message, problems)
    return NO_COPY if head is None else subject(head, LIST_SUBJECT_COLUMNS)


def _pass_text(message: Record, one: Pass) -> str:
    """Return sender, recipients and outcome of a pass, with two spaces at the end."""
    count = len(one.recipients)
    first = next(iter(one.recipients.values()), None)
    recipient_text = safe_text(first.final) if first else "(no recipients)"
    if count > 1:
        recipient_text += f" +{count - 1}"
    kind = message.results_of(one).overall_kind
    outcome_text = f"({kind})  " if kind != outcome_summary.UNKNOWN else ""
    sender = safe_text(one.sender) or "<>"
    return f"{sender} -> {recipient_text}  {outcome_text}"


def lines(settings: Settings, message: Record, problems: list[str]) -> Iterator[str]:
    """Yield the lines of a record: envelope, files, outcomes, history.

    Appends to problems why there is no subject: the copy is missing or damaged.
    """
    first, *others = message.passes
    head = _head(settings, message, problems)
    yield f"Archive id:  {message.archive_id}"
    yield f"Archive:     {message.archive}"
    if head is None:
        yield f"Subject:     {NO_COPY}"
    else:
        message_id = safe_text(mime.field_text(head, b"message-id")) or "(none)"
        yield f"Subject:     {subject(head)}"
        yield f"Message-ID:  {message_id}"
    yield from _envelope(first)
    yield f"Size:        {message.events[0]['size']} bytes"
    yield f"SHA-256:     {safe_text(message.events[0]['sha256'])}"
    for name in (*message.files, *message.reports):
        path = f"{settings.archive_store_directory}/{message.archive}/{name}"
        label = "Report:" if name in message.reports else "File:"
        yield f"{label:12} {safe_text(path)}"
    yield from _recipients(message.results_of(first), len(first.recipients))
    for one in others:
        what = "Copy back:" if one.is_returned_copy else "Again:"
        yield f"{what:12} {one.time}"
        yield from _indented(_envelope(one))
        yield from _indented(f"Line above:  {each}" for each in _lines_above(one))
        results = message.results_of(one)
        yield from _indented(_recipients(results, len(one.recipients)))
    yield "History:"
    for event in message.events:
        yield f"  {event['time']}  {_event_text(event)}"


def _head(settings: Settings, message: Record, problems: list[str]) -> bytes | None:
    """Return the header of the original, None if the copy is missing or damaged."""
    try:
        return record_reader.original_head(settings.archive_store_directory, message)
    except (RecordDamaged, StoreFailed) as error:
        problems.append(str(error))
        return None


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {each}" for each in lines)


def _verp_delimiters(one: Pass) -> bytes:
    return one.envelope.verp_delimiters if one.has_verp else b""


def _lines_above(one: Pass) -> list[str]:
    return [safe_text(each) for each in one.lines_above.splitlines()]


def _envelope(one: Pass) -> Iterator[str]:
    """Yield sender, time, host and client of a pass."""
    envelope = one.envelope
    yield f"Sender:      {safe_text(one.sender) or '<> (the null sender)'}"
    if one.has_verp:
        delimiters = safe_text(_verp_delimiters(one))
        yield f"VERP:        one sender for each recipient, delimiters {delimiters}"
    if envelope.arrival is not None:
        yield f"Received:    {dates.format_rfc5322(envelope.arrival).decode()}"
    yield (
        f"Host:        {safe_text(envelope.host)}, queue id"
        f" {safe_text(envelope.queue_id)}"
    )
    if envelope.imported:
        yield f"Imported:    {safe_text(envelope.imported)}"
    client = envelope.client
    if client.address:
        name = safe_text(client.hostname) or "unknown"
        helo = f", helo {safe_text(client.helo)}" if client.helo else ""
        protocol = f", {safe_text(client.protocol)}" if client.protocol else ""
        yield f"Client:      {name} [{safe_text(client.address)}]{helo}{protocol}"
    if client.sasl_username:
        method = f" by {safe_text(client.sasl_method)}" if client.sasl_method else ""
        yield f"SASL user:   {safe_text(client.sasl_username)}{method}"


def _recipients(results: OutcomeSummary, count: int) -> Iterator[str]:
    """Yield the outcome, and each recipient before those that it expanded to."""
    is_known = results.overall_kind != outcome_summary.UNKNOWN
    if is_known:
        yield f"Outcome:     {results.overall_kind}"
    yield f"Recipients:  {count}"
    for result in results.recipient_results():
        indent = "  " * (result.depth + 1)
        expanded_from = result.original if result.original != result.recipient else ""
        yield f"{indent}{safe_text(result.recipient)}" + (
            f" (expanded from {safe_text(expanded_from)})" if expanded_from else ""
        )
        if result.outcome is not None and result.outcome.mapped_to:
            yield f"{indent}  mapped to {safe_text(result.outcome.mapped_to)}"
        if result.outcome is not None:
            yield f"{indent}  {safe_text(result.outcome.describe())}"
        elif is_known and result.is_counted:
            yield f"{indent}  no outcome yet"


def _event_text(event: Event) -> str:
    if event["event"] == journal.ARCHIVED:
        return f"archived ({VERDICT_TEXTS.get(event['stamp'], '?')})"
    if event["event"] == journal.SUPPLEMENT:
        above = event.get("above", "").count("\n")
        place = "content" if event.get("stamp") == stamp.CONTENT else "stamp"
        suffix = f", {above} header lines above the {place}" if above else ""
        return f"supplement to the envelope{suffix}"
    if event["event"] == journal.OUTCOME:
        return safe_text(f"{event['recipient']}: {event['outcome']}")
    if event["event"] == journal.OUTCOME_REPORT:
        return "outcome report stored"
    if event["event"] == journal.MOVED:
        return safe_text(f"whole copy in the object storage alone: {event['bucket']}")
    if event["event"] in journal.REQUEST_EVENTS:
        return safe_text(f"{event['event']} by {event['person']}")
    return safe_text(f"{event['event']}, queued as {event.get('queued_as', '?')}")


def subject(head: bytes, columns: int = SUBJECT_COLUMNS) -> str:
    """Return the subject, with encoded words (RFC 2047) and charsets decoded."""
    field = header.first(head, b"subject")
    raw = field.value[:SUBJECT_LIMIT] if field else b""
    text = safe_text(encoded_words.decode(raw, charset.decode_undeclared))
    return printable.cut(text, columns) or "(no subject)"
