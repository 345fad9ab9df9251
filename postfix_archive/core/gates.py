"""Expressions in main.cf and master.cf that route mail to the stamp filter.

Used by install, bypass, doctor and reconcile. Postfix expands them (postconf(5),
content_filter, receive_override_options) with the parameters of each service: archive
holds the archive addresses, archive_bypass turns all of them off.
"""

from __future__ import annotations

import contextlib

from postfix_archive.core import configuration, request
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import RequestInvalid

STAMP_TRANSPORT = "archive-stamp"
NO_ADDRESS_MAPPINGS = "no_address_mappings"
BYPASS_PARAMETER = "archive_bypass"
MODES = ("pipe", "lmtp")  # how Postfix delivers to the stamp filter
PIPE, LMTP = MODES


def content_filter_expression(
    number: int, next_filter: str, on_request: bool, mode: str = PIPE
) -> str:
    """Return a content_filter that routes mail to the stamp filter if archive is set.

    on_request: mail without an archive value passes the stamp filter as well.
    """
    prefix = destination_prefix(number, mode)
    without_archive = f"{prefix}on-request" if on_request else next_filter
    without_bypass = f"${{archive?{{{prefix}$archive}}:{{{without_archive}}}}}"
    return f"${{{BYPASS_PARAMETER}?{{{next_filter}}}:{{{without_bypass}}}}}"


def override_options_expression(options: str, on_request: bool) -> str:
    """Return receive_override_options with no address mapping at the first hop."""
    if NO_ADDRESS_MAPPINGS in configuration.split_list(options):
        return options
    option = (
        NO_ADDRESS_MAPPINGS if on_request else f"${{archive?{{{NO_ADDRESS_MAPPINGS}}}}}"
    )
    expression = f"${{{BYPASS_PARAMETER}:{{{option}}}}}"
    return f"{options},{expression}" if options else expression


def transport_name(number: int) -> str:
    """Return the transport name of the stamp filter of a route."""
    return STAMP_TRANSPORT if number == 1 else f"{STAMP_TRANSPORT}-{number}"


def socket_prefix(number: int) -> str:
    """Return the prefix of worker socket names; the archive value follows it."""
    return "archive." if number == 1 else f"archive-{number}."


def is_worker_socket(name: str) -> bool:
    """Tell whether this is the socket name of a worker, on any route."""
    prefix, dot, _ = name.partition(".")
    base, dash, number = prefix.partition("-")
    has_valid_number = number.isdigit() if dash else True
    return bool(dot) and base == "archive" and has_valid_number


def destination_prefix(number: int, mode: str) -> str:
    """Return a content_filter up to the archive value: transport:nexthop prefix."""
    name = transport_name(number)
    return (
        f"{name}:unix:private/{socket_prefix(number)}" if mode == LMTP else f"{name}:"
    )


def route_number(value: str) -> int:
    """Return the route number in a content_filter or transport name."""
    suffix = value.partition(f"{STAMP_TRANSPORT}-")[2]
    digits = suffix[: len(suffix) - len(suffix.lstrip("0123456789"))]
    return int(digits) if digits else 1


def configured_archives(config: Configuration) -> list[str]:
    """Return the archive addresses of main.cf and all services, valid ones only."""
    values = [config.value("archive")]
    values += [config.expand(e.options.get("archive", ""), e) for e in config.services]
    unique: dict[str, None] = {}
    for value in filter(None, values):
        with contextlib.suppress(RequestInvalid):
            unique.update(dict.fromkeys(request.from_nexthop(value)))
    return list(unique)
