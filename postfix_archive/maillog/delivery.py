"""One delivery attempt: the line that every Postfix delivery agent logs.

    to=<…>, orig_to=<…>, relay=…, delay=…, delays=…, dsn=…, status=… (…)

Used by maillog.queue_tracker. The sender chooses the addresses and the remote host the
text in brackets, so an ambiguous line is not parsed. The quotes do not make it
unambiguous: sendmail(1) accepts ``a@"b>, relay=…"``, and Postfix does not quote
domains. Also tells which relays are on this host, and which are content filters.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from postfix_archive.postfix import archive_services

# The second: an LMTP socket's name is the archive addresses, separated by commas.
RELAY_PATTERN = r"[^\s,\[]*\[private/[^\s\]]+\]|[^\s,]+"
# As quote_822_local() writes addresses (info_log_address_format = external, the default
# since Postfix 3.5). With internal, quoted addresses are bare and often ambiguous.
ADDRESS_PATTERN = r'(?:"(?:[^"\\]|\\.)*"(?:@[^\s<>",()\\]*)?|[^\s<>",()\\]*)'
ATTEMPT = re.compile(
    rf"to=<({ADDRESS_PATTERN})>, (?:orig_to=<({ADDRESS_PATTERN})>,"
    rf" )?relay=({RELAY_PATTERN})"
    r", (?:conn_use=\d+, )?delay=[\d.]+, delays=[\d./]+(?:, tls=[^\s,]+)?"
    r", dsn=([245]\.\d{1,3}\.\d{1,3}), status=([A-Za-z]+) \((.*)\)",
    re.DOTALL | re.ASCII,
)
ATTEMPT_PREFIX = "to=<"
SECOND_ATTEMPT = re.compile(
    r">, relay=\S+, .*, status=[A-Za-z]+ \(", re.DOTALL | re.ASCII
)
# Postfix truncates at 2,000 bytes (MSG_SYSLOG_RECLEN): an address of that length can
# imitate a whole line, including the closing bracket.
MAX_UNTRUNCATED = 1950
FORWARDED_AS = "forwarded as "  # local(8)
QUEUED_AS = re.compile(rf"(?:\bqueued as |^{FORWARDED_AS})([0-9A-Za-z]{{6,}})\b")


class Attempt(NamedTuple):
    """The result of one delivery attempt for one recipient.

    ``original`` is the address before this host mapped it, or the same as
    ``recipient``. ``status`` is Postfix's word, as ``sent``; ``dsn`` is the status code
    of RFC 3463. ``reply`` is the text in brackets, usually the remote host's.
    """

    recipient: str
    original: str
    relay: str
    dsn: str
    status: str
    reply: str

    @property
    def queued_as(self) -> str:
        """The queue id that the next host reports in its reply, or ""."""
        queue_ids = QUEUED_AS.findall(self.reply)
        return queue_ids[-1] if queue_ids else ""


def parse(text: str) -> Attempt | None:
    """Return the delivery attempt of a log line, None if it is ambiguous.

    text follows the queue id and begins with ``to=<``. A line that may be truncated, by
    Postfix or in transit, is ambiguous.
    """
    match = ATTEMPT.fullmatch(text)
    if match is None or can_be_truncated(text):
        return None
    recipient, original, relay, dsn, status, reply = match.groups()
    if SECOND_ATTEMPT.search(reply):
        return None
    return Attempt(recipient, original or recipient, relay, dsn, status, reply)


def can_be_truncated(text: str) -> bool:
    """Tell whether a line is so long that Postfix may have truncated it."""
    return len(text.encode("utf-8", "surrogateescape")) > MAX_UNTRUNCATED


CAPTURING_TRANSPORTS = (
    archive_services.STAMP_TRANSPORT,
    archive_services.CAPTURE_TRANSPORT,
)
CAPTURING_RELAY_FIELDS = tuple(f", relay={each}" for each in CAPTURING_TRANSPORTS)
STAMP_SOCKET_PREFIX = "[private/archive"  # the socket of the workers of any mode
PRIVATE_PREFIX = "private/"
LOCAL_RELAYS = ("[127.", "[::1]", "[private/", "[public/", "[/")


def is_local_relay(relay: str) -> bool:
    """Tell whether a relay, as ``127.0.0.1[127.0.0.1]:10024``, is on this host."""
    return any(mark in relay for mark in LOCAL_RELAYS)


def is_stamp_filter(relay: str) -> bool:
    """Tell whether a relay captures mail: a pipe(8) transport or a worker's socket.

    ``archive-stamp``, or ``mail.example.com[private/archive.legal@example.com]``; in
    native mode ``archive-capture`` or the socket of its workers.
    """
    _, bracket, address = relay.partition("[")
    if bracket:
        is_private = address.startswith(PRIVATE_PREFIX)
        socket = address.removeprefix(PRIVATE_PREFIX)
        return is_private and archive_services.is_worker_socket(socket)
    return relay.startswith(CAPTURING_TRANSPORTS)


def can_name_stamp_filter(text: str) -> bool:
    """Tell whether a line can have the stamp filter as relay: a cheap first test."""
    fields = (*CAPTURING_RELAY_FIELDS, STAMP_SOCKET_PREFIX)
    return any(each in text for each in fields)


def is_relay_of(content_filter: str, relay: str) -> bool:
    """Tell whether a relay is this content filter.

    ``smtp:[127.0.0.1]:10024`` is logged as ``127.0.0.1[127.0.0.1]:10024``.
    """
    transport, _, nexthop = content_filter.partition(":")
    if relay == transport:
        return True
    destination = nexthop.removeprefix("unix:").removeprefix("inet:")
    host, colon, port = destination.rpartition(":")
    if not colon or not port.isdigit():
        return bool(destination) and relay.endswith(f"[{destination}]")
    relay_host, _, relay_address = relay.partition("[")
    filter_host = host.strip("[]")
    return relay.endswith(f"]:{port}") and filter_host in (
        relay_host,
        relay_address.partition("]")[0],
    )
