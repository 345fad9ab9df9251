"""Builds the outcome report: the outcomes of all recipients of an archived message.

Used by report_queue and wait_for_outcome. A multipart/report (RFC 6522) like those of
bounce(8):

    text/plain               one line for each recipient and outcome
    message/delivery-status  the envelope and each recipient (RFC 3464, RFC 6533)
    text/rfc822-headers      the header of the original

Replies of remote hosts and the original's header are untrusted: control characters are
escaped, so that they cannot begin a field.
"""

from __future__ import annotations

import datetime
import re

from postfix_archive.message import (
    address,
    archive_copy,
    dates,
    envelope,
    header,
    mime,
    smtp_data,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from postfix_archive.store.outcome import Outcome
    from postfix_archive.store.outcome_summary import OutcomeSummary, RecipientResult
    from postfix_archive.store.record import Pass, Record

SHA256_DIGITS = 8  # enough to tell the reports on one record apart
# A reply in a log line of smtp(8) or lmtp(8).
REMOTE_REPLY = re.compile(
    r"host \S+ (?:said|refused to talk to me): (.*?)" r"(?: \(in reply to [^()]*\))?",
    re.DOTALL,
)
# For a status that is missing or of another class than the action (RFC 3464 2.3.4):
# discard(8) logs 2.0.0.
STATUS_CLASSES = {"delivered": "2", "relayed": "2", "expanded": "2", "failed": "45"}
DEFAULT_STATUS = {"2": "2.0.0", "45": "5.0.0"}
DELAYED_STATUS = "4.0.0"


class KnownOutcomes:
    """The known outcomes, for an archive copy that reports them.

    ``fields`` has the per-recipient fields (RFC 3464 2.3) by final and original
    address, with those of the recipients it was expanded to. ``summary`` is a sentence.
    """

    __slots__ = ("fields", "summary")

    def __init__(self) -> None:
        self.fields: dict[tuple[bytes, bytes], bytes] = {}
        self.summary = ""


def known_outcomes(outcomes: OutcomeSummary) -> KnownOutcomes:
    """Return the outcomes of recipients that are all settled."""
    known = KnownOutcomes()
    key = b"", b""
    for result in outcomes.recipient_results():
        if result.depth == 0:
            key = address.as_bytes(result.recipient), address.as_bytes(result.original)
        if result.outcome is not None:
            previous = known.fields.get(key)
            fields = _recipient_fields(result, result.outcome)
            known.fields[key] = (
                fields if previous is None else previous + b"\r\n" + fields
            )
    kinds = ", ".join(
        f"{count} {kind}" for kind, count in sorted(outcomes.counts_by_kind.items())
    )
    known.summary = f"This copy was deferred until the outcome was known: {kinds}."
    return known


def build(
    record: Record, head: bytes, *, sender: bytes, boundary: bytes, now: int
) -> bytes:
    """Return the report on a record, in canonical form.

    head is the original's first bytes, sender the address in From:, boundary that of
    archive_copy.make_boundary(), now Unix time.
    """
    parts = [
        _text_part(record),
        _status_part(record),
        _header_part(head[: header.end(head)]),
    ]
    host = record.envelope.host
    outcome_id = f"{record.archive_id}.outcome.{record.results.sha256[:SHA256_DIGITS]}"
    capsule_id = str(record.events[0].get("capsule", ""))
    copy_id = archive_copy.message_id_left(record.envelope.archive_id, capsule_id)
    return mime.multipart(
        [
            (b"From", sender),
            (b"To", record.archive.encode()),
            (b"Subject", mime.subject(head, b"Outcome: ")),
            (b"Date", dates.format_rfc5322(now)),
            (b"Message-Id", b"<%s@%s>" % (outcome_id.encode(), host)),
            (b"References", b"<%s@%s>" % (copy_id.encode(), host)),
        ],
        parts,
        content_type=archive_copy.REPORT_TYPE,
        boundary=boundary,
        encoding=_encoding(b"\r\n".join(parts)),
    ) + mime.closing(boundary)


def _counted_results(record: Record, one: Pass) -> list[RecipientResult]:
    results = record.results_of(one).recipient_results()
    return [each for each in results if each.is_counted]


def _text_part(record: Record) -> bytes:
    lines = [
        b"This is the mail archive at host %s." % record.envelope.host,
        b"",
        b"Outcomes of the message that was archived for %s as"
        % record.archive.encode(),
        b"%s:" % record.archive_id.encode(),
    ]
    for number, one in enumerate(record.passes):
        if one.is_returned_copy:
            continue
        if number:
            lines += [b"", b"It was sent again, and archived at " + one.time.encode()]
        sender = mime.to_utf8(one.sender) or b"<>"
        lines += [b"", b"Sender: " + sender, b""]
        for result in _counted_results(record, one):
            lines += _result_lines(result)
    return mime.text_part(lines)


def _result_lines(result: RecipientResult) -> Iterator[bytes]:
    indent = b"    " * result.depth
    original = result.original if result.original != result.recipient else ""
    line = b"<%s>" % mime.to_utf8(address.as_bytes(result.recipient))
    if original:
        line += b", for <%s>" % mime.to_utf8(address.as_bytes(original))
    if mapped_to := result.outcome.mapped_to if result.outcome else "":
        line += b", mapped to <%s>" % mime.to_utf8(address.as_bytes(mapped_to))
    yield indent + line
    description = result.outcome.describe() if result.outcome else "no outcome yet"
    text = mime.truncate(mime.to_utf8(address.as_bytes(description)))
    yield indent + b"    " + text


def _status_part(record: Record) -> bytes:
    archive_fields = b"Archive-Record-Id: %s\r\n" % record.archive_id.encode()
    archive_fields += b"%s: %s\r\n" % (
        archive_copy.OUTCOMES_FIELD,
        record.results.sha256.encode(),
    )
    groups = [envelope.message_fields(record.envelope) + archive_fields]
    for number, one in enumerate(record.passes):
        sender = address.add_type(one.sender)
        pass_fields = b"Archive-Sender: %s\r\n" % sender if number else b""
        groups += [
            _recipient_fields(each, each.outcome) + pass_fields
            for each in _counted_results(record, one)
            if each.outcome
        ]
    return mime.status_part(groups)


def _recipient_fields(result: RecipientResult, outcome: Outcome) -> bytes:
    """Return the per-recipient fields (RFC 3464 2.3)."""
    recipient = envelope.Recipient(
        address.as_bytes(result.recipient), address.as_bytes(result.original)
    )
    pairs = [
        ("Action", outcome.action),
        ("Status", _status_code(outcome)),
        ("Remote-MTA", _remote_mta(outcome)),
        ("Diagnostic-Code", _diagnostic_code(outcome)),
        (
            "Last-Attempt-Date",
            dates.format_rfc5322(_unix_time(outcome.time)).decode(),
        ),
        ("Archive-Outcome", outcome.kind),
        ("Archive-Tries", str(outcome.tries)),
        ("Archive-Relay", outcome.remote),
        ("Archive-Queue-ID", outcome.queue_id),
        ("Archive-Capture-Queue-ID", outcome.capture_queue_id),
    ]
    fields = envelope.recipient_fields(recipient)
    if outcome.parent:
        fields += b"Archive-Expanded-From: %s\r\n" % address.add_type(
            address.as_bytes(outcome.parent)
        )
    if outcome.mapped_to:
        fields += b"Archive-Mapped-To: %s\r\n" % address.add_type(
            address.as_bytes(outcome.mapped_to)
        )
    for name, value in pairs:
        if value:
            text = mime.truncate(mime.to_utf8(address.as_bytes(value)))
            fields += b"%s: %s\r\n" % (name.encode(), text)
    return fields


def _status_code(outcome: Outcome) -> str:
    """Return a status that fits the action, as RFC 3464 2.3.4 requires."""
    classes = STATUS_CLASSES.get(outcome.action)
    if classes is None:
        return outcome.status or DELAYED_STATUS
    has_right_class = outcome.status[:1] and outcome.status[0] in classes
    return outcome.status if has_right_class else DEFAULT_STATUS[classes]


def _remote_mta(outcome: Outcome) -> str:
    """Return the host in host[address]:port, empty for a transport of this host."""
    host, bracket, _ = outcome.remote.partition("[")
    return f"dns; {host}" if host and bracket else ""


def _diagnostic_code(outcome: Outcome) -> str:
    """Return the reply of the remote host or Postfix, as bounce(8) writes it."""
    match = REMOTE_REPLY.fullmatch(outcome.reply)
    if match:
        return f"smtp; {match[1]}"
    is_remote = _remote_mta(outcome) and re.match(r"[245]\d\d[ -]", outcome.reply)
    diagnostic_type = "smtp" if is_remote else "X-Postfix"
    return f"{diagnostic_type}; {outcome.reply}" if outcome.reply else ""


def _unix_time(time: str) -> int | None:
    """Return the Unix time of an RFC 3339 time, None if it is invalid."""
    try:
        parsed = datetime.datetime.fromisoformat(time)
    except ValueError:
        return None
    return int(parsed.timestamp()) if parsed.tzinfo is not None else None


def _header_part(original_header: bytes) -> bytes:
    return mime.part(
        b"text/rfc822-headers",
        b"Header of the message",
        original_header,
        _encoding(original_header),
    )


def _encoding(body: bytes) -> bytes:
    properties = smtp_data.ContentProperties()
    properties.update(body)
    return properties.encoding
