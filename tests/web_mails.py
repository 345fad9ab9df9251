"""A few archived messages to look at: for the browser tests and make demo-web."""

from __future__ import annotations

import hashlib
from email.message import EmailMessage

from sample_store import ARRIVAL, SampleStore

BLIND = b"carol@example.net"
ATTACHMENT = bytes(range(256)) * 64
ATTACHMENT_NAME = "contract-2026.bin"
ATTACHMENT_SHA256 = hashlib.sha256(ATTACHMENT).hexdigest()
HTML = (
    '<html><body><h2>Offer</h2><p>See <a href="https://tracker.example/?u=1">our'
    ' offer</a>.</p><img src="https://tracker.example/pixel.png" alt="">'
    "<script>alert(1)</script></body></html>"
)


def contract() -> bytes:
    """Return a message with an attachment; its blind recipient is in no header."""
    message = EmailMessage()
    message["From"] = "Alice Example <alice@example.org>"
    message["To"] = "Bob <bob@example.net>"
    message["Subject"] = "Contract for the new building"
    message["Message-ID"] = "<contract@example.org>"
    message["Date"] = "Sun, 22 Nov 2026 11:52:58 +0000"
    message.set_content("The contract is enclosed.\n\nAlice\n")
    message.add_attachment(
        ATTACHMENT,
        maintype="application",
        subtype="octet-stream",
        filename=ATTACHMENT_NAME,
    )
    message.set_boundary("=-contract")
    return message.as_bytes().replace(b"\n", b"\r\n")


def offer() -> bytes:
    """Return a message in HTML that wants to load a picture from elsewhere."""
    message = EmailMessage()
    message["From"] = "Sales <sales@shop.example>"
    message["To"] = "bob@example.net"
    message["Subject"] = "Offer of the week"
    message.set_content("See our offer.\n")
    message.add_alternative(HTML, subtype="html")
    return message.as_bytes().replace(b"\n", b"\r\n")


def greeting() -> bytes:
    """Return a message in Arabic, which is read from right to left."""
    message = EmailMessage()
    message["From"] = "أحمد <ahmad@example.org>"
    message["To"] = "bob@example.net"
    message["Subject"] = "مرحبا بكم في الأرشيف"
    message.set_content("هذه رسالة باللغة العربية.\n")
    return message.as_bytes().replace(b"\n", b"\r\n")


def plain(number: int) -> bytes:
    """Return one of many short messages."""
    return (
        b"From: Dave <dave@example.org>\r\nTo: bob@example.net\r\n"
        b"Subject: Minutes %d\r\nMessage-ID: <minutes-%d@example.org>\r\n\r\n"
        b"The minutes of meeting %d.\r\n" % (number, number, number)
    )


def fill(store: SampleStore) -> None:
    """Archive these messages, on days one after the other."""
    store.add(contract(), recipients=(b"bob@example.net", BLIND))
    store.add(offer(), sender=b"bounces@shop.example", arrival=ARRIVAL + 86_400)
    store.add(greeting(), sender=b"ahmad@example.org", arrival=ARRIVAL + 2 * 86_400)
    for number in range(1, 41):
        store.add(plain(number), arrival=ARRIVAL - number * 10 * 86_400)
