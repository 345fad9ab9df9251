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

from postfix_archive.core import (
    address,
    archiving,
    envelope,
    header,
    mime,
    report,
    trace,
    wire,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.core.outcome import Outcome
    from postfix_archive.core.record import Record
    from postfix_archive.core.results import Result, Results

NAME_DIGITS = 8  # enough to tell the reports on one record apart
# A reply in a log line of smtp(8) or lmtp(8).
SAID = re.compile(
    r"host \S+ (?:said|refused to talk to me): (.*?)" r"(?: \(in reply to [^()]*\))?",
    re.DOTALL,
)
# For a status that is missing or of another class than the action (RFC 3464 2.3.4):
# discard(8) logs 2.0.0.
CLASSES = {"delivered": "2", "relayed": "2", "expanded": "2", "failed": "45"}
ANY_STATUS = {"2": "2.0.0", "45": "5.0.0"}
DELAYED = "4.0.0"


class Became:
    """The known outcomes, for an archive copy that reports them.

    ``fields`` has the per-recipient fields (RFC 3464 2.3) by final and original
    address, with those of the recipients it was expanded to. ``summary`` is a sentence.
    """

    __slots__ = ("fields", "summary")

    def __init__(self) -> None:
        self.fields: dict[tuple[bytes, bytes], bytes] = {}
        self.summary = ""


def became(found: Results) -> Became:
    """Return the outcomes of recipients that are all settled."""
    told = Became()
    key = b"", b""
    for each in found.all():
        if each.depth == 0:
            key = address.as_bytes(each.recipient), address.as_bytes(each.original)
        if each.outcome is not None:
            before = told.fields.get(key)
            fields = _recipient(each, each.outcome)
            told.fields[key] = fields if before is None else before + b"\r\n" + fields
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.kinds.items()))
    told.summary = f"This copy was deferred until the outcome was known: {kinds}."
    return told


def written(
    kept: Record, head: bytes, *, sender: bytes, edge: bytes, now: int
) -> bytes:
    """Return the report on a record, in canonical form.

    head is the original's first bytes, sender the address in From:, boundary that of
    archive_copy.make_boundary(), now Unix time.
    """
    told = [each for each in kept.results.all() if each.counts]
    top = head[: header.end(head)]
    parts = [_text(kept, told), _status(kept, told), _headers(top)]
    body = b"".join(b"--" + edge + b"\r\n" + part + b"\r\n" for part in parts)
    return _outer(kept, head, sender, edge, now, _encoding(body)) + (
        b"This is a MIME-encapsulated message.\r\n\r\n"
        + body
        + b"--"
        + edge
        + b"--\r\n"
    )


def _outer(
    kept: Record, head: bytes, sender: bytes, edge: bytes, now: int, encoding: bytes
) -> bytes:
    host = kept.envelope.host
    name = f"{kept.archive_id}.outcome.{kept.results.covers[:NAME_DIGITS]}".encode()
    capsule = str(kept.events[0].get("capsule", ""))
    copy = archiving.copy_name(kept.envelope.archive_id, capsule).encode()
    lines = [
        b"From: " + sender,
        b"To: " + kept.archive.encode(),
        b"Subject: " + mime.subject(head, b"Outcome: "),
        b"Date: " + envelope.date(now),
        b"Message-Id: <%s@%s>" % (name, host),
        b"References: <%s@%s>" % (copy, host),
        b"Auto-Submitted: auto-generated",
        b"MIME-Version: 1.0",
        b"Content-Type: multipart/report; report-type=delivery-status;",
        b'\tboundary="%s"' % edge,
        b"Content-Transfer-Encoding: " + encoding,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _text(kept: Record, told: list[Result]) -> bytes:
    lines = [
        b"This is the mail archive at host %s." % kept.envelope.host,
        b"",
        b"Outcomes of the message that was archived for %s as" % kept.archive.encode(),
        b"%s:" % kept.archive_id.encode(),
        b"",
        b"Sender: " + (mime.shown(kept.envelope.sender) or b"<>"),
        b"",
    ]
    for each in told:
        indent = b"    " * each.depth
        before = each.original if each.original != each.recipient else ""
        shown = b"<%s>" % mime.shown(address.as_bytes(each.recipient))
        shown += b", for <%s>" % mime.shown(address.as_bytes(before)) if before else b""
        lines.append(indent + shown)
        became = each.outcome.told() if each.outcome else "no outcome yet"
        lines.append(indent + b"    " + mime.cut(mime.shown(address.as_bytes(became))))
    body = b"\r\n".join(lines) + b"\r\n"
    charset = b"us-ascii" if body.isascii() else b"utf-8"
    return mime.part(b"text/plain; charset=" + charset, b"Notification", body)


def _status(kept: Record, told: list[Result]) -> bytes:
    extra = b"Archive-Record-Id: %s\r\n" % kept.archive_id.encode()
    extra += b"%s: %s\r\n" % (report.COVERS, kept.results.covers.encode())
    groups = [envelope.message_fields(kept.envelope) + extra]
    groups += [_recipient(each, each.outcome) for each in told if each.outcome]
    body = b"\r\n".join(groups)
    global_ = b"" if body.isascii() else b"global-"
    kind = b"message/%sdelivery-status" % global_
    return mime.part(kind, b"Delivery report", body)


def _recipient(result: Result, became: Outcome) -> bytes:
    """Return the per-recipient fields (RFC 3464 2.3)."""
    named = envelope.Recipient(
        address.as_bytes(result.recipient), address.as_bytes(result.original)
    )
    lines = [
        ("Action", became.action),
        ("Status", _code(became)),
        ("Remote-MTA", _remote(became)),
        ("Diagnostic-Code", _diagnostic(became)),
        ("Last-Attempt-Date", _date(became.at)),
        ("Archive-Outcome", became.kind),
        ("Archive-Tries", str(became.tries)),
        ("Archive-Relay", became.remote),
        ("Archive-Queue-ID", became.queue_id),
        ("Archive-Capture-Queue-ID", became.of),
    ]
    said = envelope.recipient_fields(named)
    if became.parent:
        said += b"Archive-Expanded-From: %s\r\n" % address.typed(
            address.as_bytes(became.parent)
        )
    for name, value in lines:
        if value:
            text = mime.cut(mime.shown(address.as_bytes(value)))
            said += b"%s: %s\r\n" % (name.encode(), text)
    return said


def _code(became: Outcome) -> str:
    """Return a status that fits the action, as RFC 3464 2.3.4 requires."""
    classes = CLASSES.get(became.action)
    if classes is None:
        return became.status or DELAYED
    fits = became.status[:1] and became.status[0] in classes
    return became.status if fits else ANY_STATUS[classes]


def _remote(became: Outcome) -> str:
    """Return the host in host[address]:port, empty for a transport of this host."""
    host, bracket, _ = became.remote.partition("[")
    return f"dns; {host}" if host and bracket else ""


def _diagnostic(became: Outcome) -> str:
    """Return the reply of the remote host or Postfix, as bounce(8) writes it."""
    found = SAID.fullmatch(became.reply)
    if found:
        return f"smtp; {found[1]}"
    is_remote = _remote(became) and re.match(r"[245]\d\d[ -]", became.reply)
    kind = "smtp" if is_remote else "X-Postfix"
    return f"{kind}; {became.reply}" if became.reply else ""


def _date(at: str) -> str:
    """Return an RFC 3339 time as an RFC 5322 date, empty if it is invalid."""
    try:
        moment = datetime.datetime.fromisoformat(at)
    except ValueError:
        return ""
    if moment.tzinfo is None:
        return ""
    return trace.written_date(int(moment.timestamp())).decode()


def _headers(top: bytes) -> bytes:
    shape = wire.Shape()
    shape.take(top)
    kind, what = b"text/rfc822-headers", b"Header of the message"
    return mime.part(kind, what, top, shape.encoding)


def _encoding(body: bytes) -> bytes:
    """Return the encoding, at least as wide as that of each part (RFC 2045 6.4)."""
    shape = wire.Shape()
    shape.take(body)
    return shape.encoding
