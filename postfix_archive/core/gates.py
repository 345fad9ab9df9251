"""The gates: main.cf's and master.cf's expressions by which mail comes to the archive.

Used by ways, installation and the bypass. Postfix itself expands them (postconf(5),
content_filter, receive_override_options), for each service with that service's
parameters: archive is who gets copies, archive_bypass opens the way past us all.
"""

from __future__ import annotations

import contextlib

from postfix_archive.core import configuration, request
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import RequestUnusable

STAMP = "archive-stamp"
NO_MAPPINGS = "no_address_mappings"
BYPASS = "archive_bypass"
MODES = ("pipe", "lmtp")  # the doors
PIPE, LMTP = MODES


def content_filter(
    number: int, next_filter: str, on_request: bool, mode: str = PIPE
) -> str:
    """Return the content_filter that leads through the archive, if one is asked for.

    on_request: mail that no parameter asks for passes the stamp filter too.
    """
    name = leading(number, mode)
    behind = f"{name}on-request" if on_request else next_filter
    asked = f"${{archive?{{{name}$archive}}:{{{behind}}}}}"
    return f"${{{BYPASS}?{{{next_filter}}}:{{{asked}}}}}"


def unmapped(options: str, on_request: bool) -> str:
    """Return receive_override_options under which the first hop maps no address."""
    if NO_MAPPINGS in configuration.words(options):
        return options
    inner = NO_MAPPINGS if on_request else f"${{archive?{{{NO_MAPPINGS}}}}}"
    last = f"${{{BYPASS}:{{{inner}}}}}"
    return f"{options},{last}" if options else last


def transport(number: int) -> str:
    """Return the name of the stamp filter of a way."""
    return STAMP if number == 1 else f"{STAMP}-{number}"


def socket(number: int) -> str:
    """Return what stands before the archive in the name of a worker's socket."""
    return "archive." if number == 1 else f"archive-{number}."


def is_socket(name: str) -> bool:
    """Tell whether this is the name of a worker's socket, on whatever way."""
    front, dot, _ = name.partition(".")
    start, dash, number = front.partition("-")
    numbered = number.isdigit() if dash else True
    return bool(dot) and start == "archive" and numbered


def leading(number: int, mode: str) -> str:
    """Return what stands before the archive in a transport:nexthop of this door."""
    name = transport(number)
    return f"{name}:unix:private/{socket(number)}" if mode == LMTP else f"{name}:"


def number_in(value: str) -> int:
    """Return the number of the way that a content_filter leads."""
    behind = value.partition(f"{STAMP}-")[2]
    digits = behind[: len(behind) - len(behind.lstrip("0123456789"))]
    return int(digits) if digits else 1


def archives(found: Configuration) -> list[str]:
    """Return the archives that main.cf and services ask for, those that are usable."""
    asked = [found.value("archive")]
    asked += [found.expanded(e.options.get("archive", ""), e) for e in found.services]
    named: dict[str, None] = {}
    for each in filter(None, asked):
        with contextlib.suppress(RequestUnusable):
            named.update(dict.fromkeys(request.from_nexthop(each)))
    return list(named)
