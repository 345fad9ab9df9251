"""The manifest of an export: one entry for each message, as JSON lines and as CSV.

Used by export/run. The JSON lines are also the export's own record of what is done: a
line is written after the message, and an export that was killed goes on after the last
whole line. The CSV is made from them at the end.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from postfix_archive.export.redaction import Redaction
from postfix_archive.export.stored_message import StoredMessage
from postfix_archive.message import address, dates, encoded_words, header
from postfix_archive.message.printable import safe_text
from postfix_archive.store.outcome_summary import RecipientResult

ENCODER = json.JSONEncoder(separators=(",", ":"))  # json.dumps() makes one a call
HEADER_FIELDS = ("from", "to", "cc", "subject", "date")
COLUMNS = (
    "archive seq id file sha256 size exported_sha256 removed_fields mih message_id"
    " from to cc subject date sender recipients outcomes outcome archived arrival"
    " queue_id client sasl_username stamp imported"
).split()
VALUE_LIMIT = 1 << 14  # bytes of a header field
# A spreadsheet takes a cell that begins so for a formula (OWASP: CSV injection).
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

# What a message shows of itself: all that one of its recipients may know.
OWN_COLUMNS = (
    *("archive", "id", "exported_sha256", "mih", "message_id", *HEADER_FIELDS),
    *("sender", "archived"),
)

Entry = dict[str, Any]


def entry(message: StoredMessage, head: bytes, redaction: Redaction | None) -> Entry:
    """Return the entry of a message with these first bytes, without its file."""
    envelope = message.envelope
    texts = _header_texts(head)
    message_id = texts["message-id"].strip().strip(b"<>").strip()
    recipients = list(_recipients(message, redaction))
    sender = message.record.passes[0].sender if message.record.passes else b""
    if redaction and redaction.names_hidden(sender):
        sender = b""  # a VERP sender has the recipient in it
    kinds = dict.fromkeys(each["outcome"] for each in recipients)
    return {
        "archive": message.record.archive,
        "seq": message.event["seq"],
        "id": message.event["id"],
        "sha256": message.event["sha256"],
        "size": message.event["size"],
        # EDRM Message Identification Hash: MD5 of the Message-ID without <>.
        "mih": (
            hashlib.md5(message_id, usedforsecurity=False).hexdigest()
            if message_id
            else ""
        ),
        "message_id": safe_text(message_id),
        **{name: _decoded(texts[name]) for name in HEADER_FIELDS},
        "sender": address.as_text(sender),
        "recipients": recipients,
        "outcome": " ".join(kinds),
        "archived": message.event["time"],
        "arrival": (
            "" if envelope.arrival is None else dates.format_rfc3339(envelope.arrival)
        ),
        "queue_id": address.as_text(envelope.queue_id),
        "client": address.as_text(envelope.client.address),
        "sasl_username": address.as_text(envelope.client.sasl_username),
        "stamp": message.event["stamp"],
        # Where it was imported from may name the mailbox of a hidden recipient.
        "imported": "" if redaction else address.as_text(envelope.imported),
    }


def without_delivery(fields: Entry) -> Entry:
    """Return an entry for somebody who may see their own mail alone.

    Without the SHA-256 and the size of the original: a guess of what was removed from
    it could be compared with them.
    """
    return {name: fields[name] for name in OWN_COLUMNS} | {"recipients": []}


def _recipients(
    message: StoredMessage, redaction: Redaction | None
) -> Iterator[dict[str, str]]:
    """Yield each recipient with its outcome; those that it expanded to only in full."""
    for result in message.record.results.recipient_results():
        if not result.is_counted:
            continue
        if redaction is None:
            yield _recipient(result)
        elif not result.depth:
            final, original = map(address.as_bytes, (result.recipient, result.original))
            shown = redaction.recipients.get((final, original))
            if shown:
                yield {"recipient": address.as_text(shown), "outcome": result.kind}


def _recipient(result: RecipientResult) -> dict[str, str]:
    known = result.outcome
    fields = {
        "recipient": result.recipient,
        "original": "" if result.original == result.recipient else result.original,
        "outcome": result.kind,
        "status": known.status if known else "",
        "at": known.time if known else "",
        "remote": known.remote if known else "",
        "reply": known.reply if known else "",
        "parent": known.parent if known and result.depth else "",
    }
    return {name: value for name, value in fields.items() if value}


def _header_texts(head: bytes) -> dict[str, bytes]:
    """Return the values of header fields, those of repeated fields with commas.

    Of Message-ID: the first one.
    """
    values: dict[bytes, list[bytes]] = {
        each.encode(): [] for each in ("message-id", *HEADER_FIELDS)
    }
    for field in header.fields(head):
        if field.name in values:
            values[field.name].append(field.value[:VALUE_LIMIT])
    del values[b"message-id"][1:]
    return {name.decode(): b", ".join(each) for name, each in values.items()}


def _decoded(value: bytes) -> str:
    return safe_text(encoded_words.decode(value))


def to_line(fields: Entry) -> bytes:
    """Return an entry as a line of manifest.jsonl."""
    return ENCODER.encode(fields).encode("ascii") + b"\n"


def read(file: Iterable[bytes]) -> Iterator[tuple[Entry, int]]:
    """Yield each whole entry of manifest.jsonl, and the offset after its line."""
    offset = 0
    for line in file:
        if not line.endswith(b"\n"):
            return  # being written when the export was killed
        offset += len(line)
        yield json.loads(line), offset


def csv_lines(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield manifest.csv (RFC 4180), in UTF-8; its cells are no formulas."""
    yield csv_line(COLUMNS)
    for each in entries:
        recipients = each["recipients"]
        values = {
            **each,
            "removed_fields": " ".join(each.get("removed_fields", ())),
            "recipients": ", ".join(e["recipient"] for e in recipients),
            "outcomes": "; ".join(_outcome_text(e) for e in recipients),
        }
        yield csv_line([values.get(name, "") for name in COLUMNS])


def _outcome_text(recipient: dict[str, str]) -> str:
    names = ("recipient", "outcome", "status", "at")
    return " ".join(recipient[name] for name in names if name in recipient)


def _cell(value: object) -> str:
    """Return a value as a cell; an apostrophe makes text of what looks a formula."""
    text = safe_text(str(value))
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def csv_line(values: Iterable[object]) -> bytes:
    """Return a line of CSV (RFC 4180), in UTF-8; its cells are no formulas."""
    text = io.StringIO()
    csv.writer(text).writerow(map(_cell, values))
    return text.getvalue().encode()
