"""Keys, envelopes and messages that the unit tests share; nothing here is a test."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import strategies as st

from postfix_archive.config import settings
from postfix_archive.config.settings import Settings
from postfix_archive.message import capsule, received_header, smtp_data
from postfix_archive.message.capsule import Capsule
from postfix_archive.message.envelope import Client, Envelope, Recipient, Request
from postfix_archive.message.keyring import Key, Keyring
from postfix_archive.stamp_filter import capture_plan

OLD_KEY = Key("k2025", bytes(range(32)))
NEW_KEY = Key("k2026", bytes(range(100, 132)))
KEYS = Keyring((OLD_KEY,))
ROTATED = Keyring((NEW_KEY, OLD_KEY))
# Somebody else's key that calls itself like ours.
FOREIGN_KEYS = Keyring((Key("k2025", bytes(32)),))

HOST = b"mail.example.com"
QUEUE_ID = b"4Zx1Yk2Pp7z9Qw"
MAIL_OWNER = 101
LEGAL = "legal@example.com"
HR = "hr@example.com"
SENDER = b"ann@example.org"
NOW = 1795348380
DATE = b"Sun, 22 Nov 2026 11:53:00 +0000"
ARCHIVE_ID = "20261122-" + "a1" * 20

FROM_SMTP = (
    b"Received: from client.example.org (client.example.org [192.0.2.7])\r\n"
    b"\tby mail.example.com (Postfix) with ESMTPS id 4Zx1Yk2Pp7z9Qw\r\n"
    b"\tfor <bob@example.com>; Sun, 22 Nov 2026 12:53:00 +0100 (CET)\r\n"
)
REQUEUED = (
    b"Received: by mail.example.com (Postfix, from userid 101)\r\n"
    b"\tid 4Zz9Requeued00; Sun, 22 Nov 2026 14:00:00 +0100 (CET)\r\n"
)
MESSAGE = (
    FROM_SMTP + b"From: Ann <ann@example.org>\r\n"
    b"To: Bob <bob@example.com>\r\n"
    b"Subject: the contract\r\n"
    b"Date: Sun, 22 Nov 2026 12:52:00 +0100\r\n"
    b"Message-ID: <1@example.org>\r\n"
    b"\r\n"
    b"Please sign.\r\n"
)


def sha256(content: bytes) -> bytes:
    """The SHA-256 of content, by another road than the program's."""
    return hashlib.sha256(content).digest()


def digests(message: bytes, offsets: list[int]) -> dict[int, bytes]:
    """The SHA-256 of the message from each offset on."""
    return {offset: sha256(message[offset:]) for offset in offsets}


def content_properties(message: bytes) -> smtp_data.ContentProperties:
    """What a transport must be able to carry for this message."""
    properties = smtp_data.ContentProperties()
    properties.update(message)
    return properties


def make_settings(text: str = "") -> Settings:
    """The settings that this text of archive.cf gives."""
    return settings.parse(
        text,
        path="/etc/postfix/archive.cf",
        config_directory="/etc/postfix",
        myhostname=HOST.decode(),
    )


def make_request(
    address: str = LEGAL,
    *,
    verdict: str = "absent",
    stamp_id: str = "",
    offset: int | None = None,
    generation: int = 0,
    is_stamp_trusted: bool = False,
) -> Request:
    """A request as the stamp filter writes it into the envelope."""
    return Request(
        address,
        "nexthop",
        verdict,
        stamp_id=stamp_id,
        stamp_offset=offset,
        generation=generation,
        is_stamp_trusted=is_stamp_trusted,
    )


def make_envelope(message: bytes = MESSAGE, **overrides: Any) -> Envelope:
    """An envelope of this message; known replaces single values."""
    values: dict[str, Any] = {
        "archive_id": ARCHIVE_ID,
        "host": HOST,
        "queue_id": QUEUE_ID,
        "sender": SENDER,
        "recipients": (Recipient(b"bob@example.com"),),
        "requests": (make_request(),),
        "client": Client(address=b"192.0.2.7", protocol=b"ESMTP"),
        "arrival": NOW,
        "sha256": sha256(message).hex(),
        "size": len(message),
    }
    return Envelope(**{**values, **overrides})


def unseal_capsule(envelope: Envelope, keys: Keyring = KEYS) -> Capsule:
    """The same envelope after its way through a capsule."""
    preamble = capsule.make_preamble(
        envelope, keys, sender=b"archive@example.com", now=NOW
    )
    return capsule.unseal(preamble, keys)


def envelope_values(envelope: Envelope) -> dict[str, object]:
    """All that an envelope says, as values that can be compared."""
    values: dict[str, object] = {
        name: getattr(envelope, name)
        for name in Envelope.__slots__
        if name not in ("client", "recipients", "requests")
    }
    values["client"] = [getattr(envelope.client, name) for name in Client.__slots__]
    values["recipients"] = [
        (item.final, item.original, item.notify, item.orcpt)
        for item in envelope.recipients
    ]
    values["requests"] = [
        [getattr(item, name) for name in sorted(Request.__slots__)]
        for item in envelope.requests
    ]
    return values


def delivery_request(
    *recipients: bytes,
    nexthop: str = LEGAL,
    sender: bytes = SENDER,
    client: Client | None = None,
    keys: Keyring = KEYS,
    **lmtp_parameters: Any,
) -> capture_plan.DeliveryRequest:
    """One run of the stamp filter, as pipe(8) describes it; of_lmtp says more."""
    return capture_plan.DeliveryRequest(
        nexthop=nexthop,
        queue_id=QUEUE_ID,
        sender=sender,
        recipients=tuple(map(Recipient, recipients)),
        client=client or Client(address=b"192.0.2.7", protocol=b"ESMTP"),
        envid=b"",
        keys=keys,
        **lmtp_parameters,
    )


def mail_owner(settings: Settings | None = None) -> int:
    """The user id under which pickup(8) requeues mail here."""
    return MAIL_OWNER


def find_origin(head: bytes, queue_id: bytes = QUEUE_ID) -> received_header.Origin:
    """Where the message with this head began its way on our host."""
    return received_header.find_origin(
        head, current_queue_id=queue_id, host=HOST, mail_owner=mail_owner
    )


def split_at(content: bytes, offsets: list[int]) -> list[bytes]:
    """The content in pieces, parted at these marks."""
    bounds = [0, *sorted(min(mark, len(content)) for mark in offsets), len(content)]
    return [content[a:b] for a, b in zip(bounds, bounds[1:])]


# Bytes in which everything that matters to a line comes often.
LINES_LF = st.lists(
    st.sampled_from([b"\n", b".", b"\n.", b"a", b"\0", b"\xff", b" x", b"..", b"\n\n"]),
    max_size=30,
).map(b"".join)
OFFSETS = st.lists(st.integers(0, 60), max_size=12)
# Addresses as sendmail(1) and odd clients have them. Postfix itself takes white space
# off both ends.
ADDRESSES = st.one_of(
    st.sampled_from(
        [
            b"bob@example.com",
            b'"bob smith"@example.com',
            b'"a;b"@example.com',
            b'"a\\"b"@example.com',
            b"gr\xc3\xbc\xc3\x9fe@b\xc3\xbccher.example",
            b"latin\xfc@example.com",
            b"x: y@example.com",
            b"rfc822; trick@example.com",
            b"user+tag=x@example.com",
            b"postmaster",
        ]
    ),
    st.binary(min_size=1, max_size=40).map(bytes.strip).filter(bool),
)
PRINTABLE = st.binary(min_size=1, max_size=30).map(
    lambda raw: bytes(c for c in raw if c > 32 and c != 127) or b"x"
)
