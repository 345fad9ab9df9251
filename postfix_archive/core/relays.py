"""The relay of a log line: whether it is on this host, or one of its content filters.

Used by passage.
"""

from __future__ import annotations

LOOPBACK = ("[127.", "[::1]", "[private/", "[public/", "[/")


def is_here(relay: str) -> bool:
    """Tell whether a relay, as ``127.0.0.1[127.0.0.1]:10024``, is on this host."""
    return any(mark in relay for mark in LOOPBACK)


def is_same(content_filter: str, relay: str) -> bool:
    """Tell whether ``smtp:[127.0.0.1]:10024`` is logged as ``127.0.0.1[…]:10024``."""
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
