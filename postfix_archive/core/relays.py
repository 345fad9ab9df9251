"""The relay of a log line: on this host, the stamp filter, or a content filter.

Used by maillog.queue_tracker, outcomes.resolver, reconcile.log_scan and
doctor.unarchived_reinjection.
"""

from __future__ import annotations

from postfix_archive.core import gates

RELAY_STAMP = f", relay={gates.STAMP}"
WORKER = "[private/archive"  # the socket of the stamp filter in lmtp mode
LOOPBACK = ("[127.", "[::1]", "[private/", "[public/", "[/")


def is_here(relay: str) -> bool:
    """Tell whether a relay, as ``127.0.0.1[127.0.0.1]:10024``, is on this host."""
    return any(mark in relay for mark in LOOPBACK)


def is_stamp(relay: str) -> bool:
    """Tell whether a relay is the stamp filter: a pipe(8) transport or LMTP socket.

    ``archive-stamp``, or ``mail.example.com[private/archive.legal@example.com]``.
    """
    socket = relay.partition("[private/")[2]
    return relay.startswith(gates.STAMP) or gates.is_socket(socket)


def names_stamp(text: str) -> bool:
    """Tell whether a line can have the stamp filter as relay: a cheap first test."""
    return RELAY_STAMP in text or WORKER in text


def is_same(content_filter: str, relay: str) -> bool:
    """Tell whether a relay is this content filter.

    ``smtp:[127.0.0.1]:10024`` is logged as ``127.0.0.1[127.0.0.1]:10024``.
    """
    transport, _, nexthop = content_filter.partition(":")
    if relay == transport:
        return True
    place = nexthop.removeprefix("unix:").removeprefix("inet:")
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        return bool(place) and relay.endswith(f"[{place}]")
    name, _, rest = relay.partition("[")
    bare = host.strip("[]")
    return relay.endswith(f"]:{port}") and bare in (name, rest.partition("]")[0])
