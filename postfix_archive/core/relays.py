"""The relay of a log line: on this host, the stamp filter, or a content filter.

Used by maillog.queue_tracker, outcomes.resolver, reconcile.log_scan and
doctor.unarchived_reinjection.
"""

from __future__ import annotations

from postfix_archive.core import gates

STAMP_RELAY_FIELD = f", relay={gates.STAMP_TRANSPORT}"
STAMP_SOCKET_PREFIX = "[private/archive"  # the socket of the stamp filter in lmtp mode
LOCAL_RELAYS = ("[127.", "[::1]", "[private/", "[public/", "[/")


def is_local_relay(relay: str) -> bool:
    """Tell whether a relay, as ``127.0.0.1[127.0.0.1]:10024``, is on this host."""
    return any(mark in relay for mark in LOCAL_RELAYS)


def is_stamp_filter(relay: str) -> bool:
    """Tell whether a relay is the stamp filter: a pipe(8) transport or LMTP socket.

    ``archive-stamp``, or ``mail.example.com[private/archive.legal@example.com]``.
    """
    socket = relay.partition("[private/")[2]
    return relay.startswith(gates.STAMP_TRANSPORT) or gates.is_worker_socket(socket)


def can_name_stamp_filter(text: str) -> bool:
    """Tell whether a line can have the stamp filter as relay: a cheap first test."""
    return STAMP_RELAY_FIELD in text or STAMP_SOCKET_PREFIX in text


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
