"""What the index has of one message, made from its record and its content.

Pure; used by indexer and index_database. Values are text as folding.normalize has it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postfix_archive.message import address, dates
from postfix_archive.search import cjk, folding
from postfix_archive.search.content import Attachment, MessageContent
from postfix_archive.search.index_schema import (
    BCC,
    CC,
    FROM,
    OUTCOME_BITS,
    TO,
)
from postfix_archive.store import journal, journal_event
from postfix_archive.store.record import Pass, Record

if TYPE_CHECKING:
    from hashlib import blake2b
else:
    try:  # hashlib loads OpenSSL, which takes 3 ms
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b

SUBJECT_LIMIT = 1000  # characters that a page of hits may show (RFC 5322 2.1.1: 998)
# Of these depends what finds a message; other events only belong to it.
MATCHED_EVENTS = {*journal.CAPTURE_EVENTS, journal.OUTCOME, journal.RETENTION}
FOR_EVER = 1 << 40  # Unix time: the year 36812
NAME_LIMIT = 320  # characters of an address (RFC 3696 3) or of another value


@dataclass(frozen=True)
class RecordEntry:
    """What a record says, which may grow: further passes, recipients, outcomes.

    ``labels`` are (kind, name), ``keys`` (field, value); ``recipients`` are those of
    the envelope, each as the client said and as mapped by this host. ``keep_until`` is
    the end of the retention period (Unix time), None before it is known.
    """

    archive_id: str
    archived: int  # Unix time
    arrived: int  # likewise
    size: int  # bytes of the original
    sha256: bytes
    senders: tuple[str, ...]  # not empty, the first one is that of the first pass
    recipients: tuple[tuple[str, str], ...]
    recipient_count: int  # of the first pass
    outcomes: int  # bits of OUTCOME_BITS
    keep_until: int | None
    labels: frozenset[tuple[str, str]]
    keys: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class ContentEntry:
    """What the message itself says, which never changes.

    ``texts`` has one for each of index_schema.TEXT_COLUMNS, as FTS5 gets it; ``roles``
    the addresses in its header.
    """

    texts: tuple[str, ...]
    subject: str
    sent: int | None  # Unix time
    attachment_count: int
    roles: dict[str, int]
    labels: frozenset[tuple[str, str]]
    keys: frozenset[tuple[str, str]]

    @property
    def text_hash(self) -> int:
        """A hash of the texts, for SQLite: signed, 64 bits."""
        return hash_text("\0".join(self.texts))


def from_record(record: Record) -> RecordEntry:
    """Return what the index has of a record."""
    first = record.events[0]
    archived = int(datetime.datetime.fromisoformat(first["time"]).timestamp())
    arrival = record.envelope.arrival
    passes = record.passes
    kinds = record.results.counts_by_kind
    return RecordEntry(
        archive_id=record.archive_id,
        archived=archived,
        arrived=archived if arrival is None else arrival,
        size=int(first["size"]),
        sha256=bytes.fromhex(first["sha256"]),
        senders=tuple(dict.fromkeys(each for one in passes for each in _senders(one))),
        recipients=tuple(
            dict.fromkeys(
                (_name(each.original or each.final), _name(each.final))
                for one in passes
                for each in one.recipients.values()
            )
        ),
        recipient_count=len(record.recipients),
        outcomes=sum(OUTCOME_BITS[kind] for kind in kinds),
        keep_until=_keep_until(record),
        labels=frozenset(_record_labels(record)),
        keys=frozenset(_queue_keys(record)),
    )


def _keep_until(record: Record) -> int | None:
    """Return the end of the last day on which a record is kept, as noted last."""
    if record.retention is None:
        return None
    until = record.retention["until"]
    if until == journal_event.PERMANENT:
        return FOR_EVER
    last_day = datetime.datetime.fromisoformat(until).replace(tzinfo=datetime.UTC)
    return int(last_day.timestamp()) + dates.DAY_SECONDS


def from_content(content: MessageContent) -> ContentEntry:
    """Return what the index has of a message's content."""
    subject = folding.normalize(content.subject)
    columns = (
        content.text,
        subject,
        " ".join(content.from_),
        " ".join(content.to),
        " ".join(content.cc),
        " ".join(each.name for each in content.attachments),
    )
    normalized = [folding.normalize(each) for each in columns]
    roles: dict[str, int] = {}
    header = ((content.from_, FROM), (content.to, TO), (content.cc, CC))
    for mailboxes, role in (*header, (content.bcc, BCC)):
        for each in filter(None, map(mailbox_address, mailboxes)):
            roles[each] = roles.get(each, 0) | role
    message_id = folding.normalize(content.message_id)
    return ContentEntry(
        texts=tuple(map(cjk.to_terms, normalized)),
        subject=" ".join(subject.split())[:SUBJECT_LIMIT],
        sent=None if content.date is None else int(content.date),
        attachment_count=len(content.attachments),
        roles=roles,
        labels=frozenset(_content_labels(content)),
        keys=frozenset({("msgid", message_id)} if message_id else ()),
    )


def mailbox_address(mailbox: str) -> str:
    """Return the address in ``Name <a@b>`` in lower case, "" if there is none."""
    _, start, rest = mailbox.rpartition("<")
    text = rest.partition(">")[0] if start else mailbox
    return normalize_name(text) if "@" in text else ""


def normalize_name(text: str) -> str:
    """Return an address or another value as the index has it: in lower case."""
    return folding.normalize(text).strip().lower()[:NAME_LIMIT]


def hash_text(text: str) -> int:
    """Return a hash of text that SQLite can keep: signed, 64 bits."""
    value = blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(value, "big", signed=True)


def key_hash(key: tuple[str, str]) -> int:
    """Return what message_key has of a (field, value)."""
    return hash_text("\0".join(key))


def _name(value: bytes) -> str:
    return normalize_name(address.as_text(value))


def _senders(one: Pass) -> Iterator[str]:
    yield _name(one.sender)
    if one.has_verp:
        yield _name(one.envelope.sender)


def _record_labels(record: Record) -> Iterator[tuple[str, str]]:
    for one in record.passes:
        client = one.envelope.client
        for value in (client.address, client.hostname):
            if value:
                yield "client", _name(value)
        if client.sasl_username:
            yield "login", _name(client.sasl_username)
    for event in record.events:
        if "stamp" in event:
            yield "stamp", normalize_name(event["stamp"])


def _queue_keys(record: Record) -> Iterator[tuple[str, str]]:
    """Yield the queue ids of all captures and of what became of them."""
    for one in record.passes:
        yield "queue", address.as_text(one.envelope.queue_id)
    for event in record.events:
        if event.get("queue_id"):
            yield "queue", event["queue_id"]


def _content_labels(content: MessageContent) -> Iterator[tuple[str, str]]:
    for name in (content.list_id, content.list_name):
        if name:
            yield "list", normalize_name(name)
    yield from _type_labels(content.attachments)
    for problem in content.problems:
        yield "problem", normalize_name(problem)


def _type_labels(attachments: Iterable[Attachment]) -> Iterator[tuple[str, str]]:
    """Yield the media type, and the extension of the file name with its dot."""
    for each in attachments:
        yield "type", normalize_name(each.media_type)
        stem, dot, extension = each.name.rpartition(".")
        if stem and dot and extension.isalnum():
            yield "type", normalize_name(f".{extension}")
