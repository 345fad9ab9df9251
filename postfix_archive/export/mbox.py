"""Messages as an mbox (RFC 4155, mboxrd), and as a batch of SMTP commands (RFC 2442).

Used by export/writers. Both take canonical bytes (CRLF line ends). In the mbox lines
end with LF; a line that begins with ``From ``, or with that after any number of ``>``,
gets one ``>`` more, so that taking one away gives back the message.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator

from postfix_archive.message import address, smtp_data

FROM_LINE = re.compile(rb"\n(>*From )")
START_OF_FROM_LINE = re.compile(rb"\n>*(F(r(o(m)?)?)?)?")
NO_SENDER = b"MAILER-DAEMON"
PRINTABLE = re.compile(rb"[!-~]+")


def from_line(sender: bytes, arrival: float) -> bytes:
    """Return the line above a message: sender and time, in UTC (RFC 4155 A).

    A sender that is empty, or has spaces or other bytes than printable ASCII, would
    not be read as one word: the line has MAILER-DAEMON then.
    """
    name = sender if PRINTABLE.fullmatch(sender) else NO_SENDER
    return b"From %s %s\n" % (name, time.asctime(time.gmtime(arrival)).encode())


def mbox_chunks(
    sender: bytes, arrival: float, chunks: Iterable[bytes]
) -> Iterator[bytes]:
    """Yield a message of an mbox, with the empty line that ends it."""
    yield from_line(sender, arrival)
    last = b"\n"
    for chunk in quote(smtp_data.to_lf(chunks)):
        yield chunk
        last = chunk or last
    yield b"\n" if last.endswith(b"\n") else b"\n\n"


def quote(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield pieces with a ">" before each line that looks like a From_ line."""
    buffer = b"\n"  # as if a line had ended before the first byte
    is_first = True
    for piece in pieces:
        joined = buffer + piece
        end = max(0, joined.rfind(b"\n"))
        if START_OF_FROM_LINE.fullmatch(joined, end):  # may go on in the next piece
            joined, buffer = joined[:end], joined[end:]
        else:
            buffer = b""
        quoted = FROM_LINE.sub(rb"\n>\1", joined)
        if quoted:
            yield quoted[1:] if is_first else quoted
            is_first = False
    yield buffer[1:] if is_first else buffer


def batch_start(host: bytes) -> bytes:
    """Return the first command of a batch."""
    return b"EHLO " + host + b"\r\n"


BATCH_END = b"QUIT\r\n"


def batch_chunks(
    sender: bytes,
    recipients: Iterable[bytes],
    chunks: Iterable[bytes],
    *,
    is_eightbit: bool,
) -> Iterator[bytes]:
    """Yield the commands of one message, as an SMTP client sends them."""
    recipients = list(recipients)
    is_ascii = all(each.isascii() for each in (sender, *recipients))
    yield b"MAIL FROM:<%s>%s%s\r\n" % (
        sender,
        b" BODY=8BITMIME" if is_eightbit else b"",
        b"" if is_ascii else b" SMTPUTF8",
    )
    for each in recipients:
        yield b"RCPT TO:<" + each + b">\r\n"
    yield b"DATA\r\n"
    last = b"\r\n"
    for chunk in smtp_data.dot_stuff(chunks):
        yield chunk
        last = (last + chunk)[-2:]
    yield b".\r\n" if last == b"\r\n" else b"\r\n.\r\n"


def fits_batch(value: bytes) -> bool:
    """Tell whether an address can be written into an SMTP command."""
    return address.fits_smtp(value)
