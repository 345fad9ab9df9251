"""Expressions in main.cf and master.cf that route mail to the stamp filter.

Used by install, bypass, doctor and reconcile. Postfix expands them (postconf(5),
content_filter, receive_override_options) with the parameters of each service: archive
holds the archive addresses, archive_bypass turns all of them off.
"""

from __future__ import annotations

import contextlib

from postfix_archive.core import configuration, request
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import RequestUnusable

STAMP = "archive-stamp"
NO_MAPPINGS = "no_address_mappings"
BYPASS = "archive_bypass"
MODES = ("pipe", "lmtp")  # how Postfix delivers to the stamp filter
PIPE, LMTP = MODES


def content_filter(
    number: int, next_filter: str, on_request: bool, mode: str = PIPE
) -> str:
    """Return a content_filter that routes mail to the stamp filter if archive is set.

    on_request: mail without an archive value passes the stamp filter as well.
    """
    name = leading(number, mode)
    behind = f"{name}on-request" if on_request else next_filter
    asked = f"${{archive?{{{name}$archive}}:{{{behind}}}}}"
    return f"${{{BYPASS}?{{{next_filter}}}:{{{asked}}}}}"


def unmapped(options: str, on_request: bool) -> str:
    """Return receive_override_options with no address mapping at the first hop."""
    if NO_MAPPINGS in configuration.words(options):
        return options
    inner = NO_MAPPINGS if on_request else f"${{archive?{{{NO_MAPPINGS}}}}}"
    last = f"${{{BYPASS}:{{{inner}}}}}"
    return f"{options},{last}" if options else last


def transport(number: int) -> str:
    """Return the transport name of the stamp filter of a route."""
    return STAMP if number == 1 else f"{STAMP}-{number}"


def socket(number: int) -> str:
    """Return the prefix of worker socket names; the archive value follows it."""
    return "archive." if number == 1 else f"archive-{number}."


def is_socket(name: str) -> bool:
    """Tell whether this is the socket name of a worker, on any route."""
    front, dot, _ = name.partition(".")
    start, dash, number = front.partition("-")
    numbered = number.isdigit() if dash else True
    return bool(dot) and start == "archive" and numbered


def leading(number: int, mode: str) -> str:
    """Return a content_filter up to the archive value: transport:nexthop prefix."""
    name = transport(number)
    return f"{name}:unix:private/{socket(number)}" if mode == LMTP else f"{name}:"


def number_in(value: str) -> int:
    """Return the route number in a content_filter or transport name."""
    behind = value.partition(f"{STAMP}-")[2]
    digits = behind[: len(behind) - len(behind.lstrip("0123456789"))]
    return int(digits) if digits else 1


def archives(found: Configuration) -> list[str]:
    """Return the archive addresses of main.cf and all services, valid ones only."""
    asked = [found.value("archive")]
    asked += [found.expanded(e.options.get("archive", ""), e) for e in found.services]
    named: dict[str, None] = {}
    for each in filter(None, asked):
        with contextlib.suppress(RequestUnusable):
            named.update(dict.fromkeys(request.from_nexthop(each)))
    return list(named)
