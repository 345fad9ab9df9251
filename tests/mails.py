"""Messages named by what they say, and what has become of them.

Used by the live tests: mail("lunch") says "This is lunch.", and by that it is found
again in the store and among the deliveries, however it was changed on the way.
"""

from __future__ import annotations

import hashlib
import re
import subprocess

from postfix_archive.message import capsule
from postfix_archive.store import record_reader
from postfix_archive.store.record import Record

from private_postfix import Delivery, PrivatePostfix

LEGAL = "legal@example.com"

# What hand-back puts on top: one Received: field of the internal hop, then stamps.
REINJECTION_HEADER = re.compile(
    rb"Received: from [^\n]*\n(?:[ \t][^\n]*\n)*"
    rb"(?:Archive-Stamp: [^\n]*\n(?:\t[^\n]*\n)*)*"
)


def mail(name: str) -> bytes:
    """Return a message of that name."""
    return (
        f"From: alice@example.org\nSubject: {name}\nMessage-Id: <{name}@example.org>\n"
        f"To: undisclosed-recipients:;\n\nThis is {name}.\n"
    ).encode()


def is_named(content: bytes, name: str) -> bool:
    """Tell whether a message is of that name."""
    return f"This is {name}.".encode() in content


def read_queue_file(postfix: PrivatePostfix, queue_id: str) -> bytes:
    """Return a message that waits in the queue, as pipe(8) would give it; LF."""
    command = ["postcat", "-c", str(postfix.etc), "-bhq", queue_id]
    return subprocess.run(command, capture_output=True, check=True).stdout


def read_capsule(postfix: PrivatePostfix, queue_id: str) -> bytes:
    """Return a capsule that waits in the queue, with its plain body; LF line ends."""
    content = read_queue_file(postfix, queue_id)
    plain = b"".join(capsule.unpack([content.replace(b"\n", b"\r\n")]))
    return plain.replace(b"\r\n", b"\n")


def records(postfix: PrivatePostfix, name: str, archive: str = LEGAL) -> list[Record]:
    """Return the records of the messages of that name in one archive."""
    store = str(postfix.store)
    return [
        record
        for record in record_reader.records(store, archive)
        if is_named(b"".join(record_reader.original(store, record)), name)
    ]


def record_of(postfix: PrivatePostfix, name: str, archive: str = LEGAL) -> Record:
    """Return the one record of that name; fail if there are none or two."""
    [record] = records(postfix, name, archive)
    return record


def archives_of(postfix: PrivatePostfix, name: str) -> list[str]:
    """Return the archives that have a record of that name, once for each record."""
    archives = record_reader.archives(str(postfix.store))
    return [each for each in archives for _ in records(postfix, name, each)]


def recipients_of(record: Record) -> list[str]:
    """Return all recipients of a record, of all its passes."""
    passes = record.passes
    return sorted(e.final.decode() for one in passes for e in one.recipients.values())


def event_kinds(record: Record) -> list[str]:
    """Return the kinds of a record's events."""
    return [event["event"] for event in record.events]


def deliveries(postfix: PrivatePostfix, name: str, to: str) -> list[Delivery]:
    """Return the deliveries of that name to one recipient."""
    return [each for each in postfix.delivered_to(to) if is_named(each.content, name)]


def one_delivery(postfix: PrivatePostfix, name: str, to: str) -> Delivery:
    """Return the one delivery of that name to a recipient; fail if there are more."""
    [delivery] = deliveries(postfix, name, to)
    return delivery


def original_of(postfix: PrivatePostfix, record: Record) -> bytes:
    """Return the original in the store; it has the SHA-256 that the journal says."""
    original = b"".join(record_reader.original(str(postfix.store), record))
    digest = hashlib.sha256(original).hexdigest()
    assert digest == record.events[0]["sha256"] == record.envelope.sha256
    return original


def received_content(content: bytes, *, is_reinjected: bool = True) -> bytes:
    """Return what was delivered as it was received, in canonical form."""
    if not is_reinjected:
        return content.replace(b"\n", b"\r\n")
    match = REINJECTION_HEADER.match(content)
    assert match, "no hand-back has put a Received: field on top"
    return content[match.end() :].replace(b"\n", b"\r\n")
