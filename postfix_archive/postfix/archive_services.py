"""Expressions in main.cf and master.cf that route mail to the stamp filter.

Used by install, bypass, doctor and reconcile. Postfix expands them (postconf(5),
content_filter, receive_override_options) with the parameters of each service: archive
holds the archive addresses, archive_bypass turns all of them off.
"""

from __future__ import annotations

import contextlib
import re

from postfix_archive.errors import RequestInvalid
from postfix_archive.message import request
from postfix_archive.postfix import configuration
from postfix_archive.postfix.configuration import Configuration, Service

STAMP_TRANSPORT = "archive-stamp"
STATUS_FILTER = "delivery-status-filter"  # its table, beside the launchers
NO_ADDRESS_MAPPINGS = "no_address_mappings"
BYPASS_PARAMETER = "archive_bypass"
CAPTURE_TRANSPORT = "archive-capture"  # of the native modes
CAPTURE_PARAMETER = "recipient_bcc_maps"  # has a table named after that transport
CAPTURE_SOCKET = f"archive.{request.CAPTURE_NEXTHOP}"  # of its workers
MODES = ("pipe", "lmtp", "native", "native-pipe")  # how mail reaches the archive
PIPE, LMTP, NATIVE, NATIVE_PIPE = MODES
NATIVE_MODES = (NATIVE, NATIVE_PIPE)  # without a content filter


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


def bypass_commands(option: str) -> str:
    """Return commands that let mail pass unarchived without a program of ours.

    option: " -c DIR" for another instance than Postfix's default one. What waits goes
    through pickup(8) again, which has no stamp filter then.
    """
    return (
        f"postconf{option} -e '{BYPASS_PARAMETER} = yes' && postfix{option} reload &&"
        f" postsuper{option} -r ALL deferred"
    )


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


def request_destination(mode: str) -> str:
    """Return the transport:nexthop of recipients in archive-request.invalid."""
    if mode == NATIVE:
        return f"{CAPTURE_TRANSPORT}:unix:private/{CAPTURE_SOCKET}"
    if mode == NATIVE_PIPE:
        return f"{CAPTURE_TRANSPORT}:{request.CAPTURE_NEXTHOP}"
    return f"{destination_prefix(1, mode)}{request.ON_REQUEST}"


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


WORKER_LAUNCHER = "archive-lmtp"  # launcher of lmtp and native mode


def is_pipe_service(service: Service) -> bool:
    """Tell whether a service runs one of our launchers by pipe(8)."""
    path = service.argument("argv")
    return service.program == "pipe" and path.rpartition("/")[2] in (
        STAMP_TRANSPORT,
        CAPTURE_TRANSPORT,
        "archive",
    )


def is_lmtp_client(service: Service) -> bool:
    """Tell whether this is the lmtp(8) client of our workers, on any route."""
    names = (CAPTURE_TRANSPORT, transport_name(route_number(service.name)))
    syslog_name = service.options.get("syslog_name", "")
    return (
        service.program == "lmtp"
        and service.name in names
        and syslog_name.endswith((f"/{STAMP_TRANSPORT}", f"/{CAPTURE_TRANSPORT}"))
    )


def is_worker_service(service: Service) -> bool:
    """Tell whether a service runs our worker launcher by spawn(8)."""
    path = service.argument("argv")
    return service.program == "spawn" and path.rpartition("/")[2] == WORKER_LAUNCHER


def has_launcher(service: Service) -> bool:
    """Tell whether a service runs one of our launchers, by pipe(8) or spawn(8)."""
    return is_pipe_service(service) or is_worker_service(service)


def reinject_address(config: Configuration, number: int) -> str:
    """Return the reinjection address of a route; "" if archive.cf has it.

    The entry of pipe(8), or of a worker of this route, has it as --handback-address.
    """
    for service in config.services:
        is_stamp_filter = service.name == transport_name(number)
        if (
            is_stamp_filter
            or is_worker_service(service)
            and service.name.startswith(socket_prefix(number))
        ):
            if address := service.argument("handback-address"):
                return address
    return ""


OWN_SERVICE_NAMES = (
    STAMP_TRANSPORT,
    CAPTURE_TRANSPORT,
    "archive",
    "archive-relay",
    "archive-local",
    "archive-cleanup",
    "archive-capsule-cleanup",
    "archive-copy-cleanup",
)
# A cleanup(8) of header_rewriting; the name of the one that it replaces follows.
FIRST_CLEANUP_PREFIX = "archive-first-"
# What the syslog_name of our ports ends with: for reinjected mail, and for mail of the
# archive itself (capsules and archive copies).
REINJECTION_SUFFIXES = ("/archive-handback", "/archive-refused")
ARCHIVE_MAIL_SUFFIXES = ("/archive-capsule", "/archive-copy", "/archive-relay")
OWN_DESTINATIONS = (STAMP_TRANSPORT, "archive:", "archive-relay:", "archive-local:")
LOOPBACK_ADDRESS = "127.0.0.1"
DEFAULT_FIRST_PORT = 10026
PORT_COUNT = 5
REQUEST_DOMAIN_CHECK = "check_recipient_access,inline:{archive-request.invalid=reject}"
OWN_LIST_ELEMENT = re.compile(
    r"(check_recipient_access[,\s]+)?inline:\{archive-request\.invalid[^}]*\}[,\s]*"
)
LOOPBACK_PREFIXES = ("127.", "localhost:", "[::1]:", "::1:")


def is_ours(service: Service) -> bool:
    """Tell whether a service comes from master.cf.d."""
    is_known = service.name in OWN_SERVICE_NAMES or service.name.startswith(
        (f"{STAMP_TRANSPORT}-", FIRST_CLEANUP_PREFIX)
    )
    is_known = is_known or is_worker_service(service) or is_capture_cleanup(service)
    return is_known or "/archive-" in service.options.get("syslog_name", "")


def is_capture_cleanup(service: Service) -> bool:
    """Tell whether this is the cleanup(8) of one archive value (capture_maps)."""
    prefix, dot, _ = service.name.partition(".")
    return service.program == "cleanup" and prefix.startswith("archive-") and bool(dot)


def maps_addresses(config: Configuration, service: Service) -> bool:
    """Tell whether cleanup(8) maps the addresses of the mail of this service."""
    options = config.value("receive_override_options", service)
    return NO_ADDRESS_MAPPINGS not in configuration.split_list(options)


def receiving_services(config: Configuration) -> list[Service]:
    """Return the services that receive mail, smtpd and pickup, without ours."""
    programs = ("smtpd", "pickup")
    return [e for e in config.services if e.program in programs and not is_ours(e)]


def content_filters(config: Configuration) -> tuple[str, ...]:
    """Return the content filters of this host other than ours, as transport:nexthop.

    Without the content_filter of our ports for archive copies: archive_relay is where
    those are sent, and other mail may be sent there as well.
    """
    services = [
        service
        for service in config.services
        if not config.value("syslog_name", service).endswith(ARCHIVE_MAIL_SUFFIXES)
    ]
    names = {config.value("content_filter", service) for service in services}
    names |= {config.value("content_filter"), config.value("archive_next_filter")}
    return tuple(
        sorted(name for name in names if name and not name.startswith(OWN_DESTINATIONS))
    )


def is_installed(config: Configuration) -> bool:
    """Tell whether the stamp filter is installed in this instance."""
    return installed_mode(config) != ""


def installed_mode(config: Configuration) -> str:
    """Return the installed mode, one of MODES, "" without an installation."""
    has_filter = any(
        STAMP_TRANSPORT in config.raw("content_filter", each)
        for each in (None, *config.services)
    )
    capture_service = config.service(f"{CAPTURE_TRANSPORT}/unix")
    has_maps = CAPTURE_TRANSPORT in config.raw(CAPTURE_PARAMETER)
    if (capture_service is not None or has_maps) and not has_filter:
        return _native_mode(config, capture_service)
    service = config.service(f"{STAMP_TRANSPORT}/unix")
    if service is None:
        return ""
    if is_lmtp_client(service):
        return LMTP
    return PIPE if is_pipe_service(service) else ""


def _native_mode(config: Configuration, capture_service: Service | None) -> str:
    """Return which native mode is installed, also if its transport is missing."""
    if capture_service is None:
        return NATIVE if config.service(f"{CAPTURE_SOCKET}/unix") else NATIVE_PIPE
    return NATIVE_PIPE if capture_service.program == "pipe" else NATIVE


def guard_restrictions(restrictions: str) -> str:
    """Return restrictions that reject the request domain."""
    if "archive-request.invalid" in restrictions:
        return restrictions
    return ",".join(each for each in (REQUEST_DOMAIN_CHECK, restrictions) if each)


def remove_own_elements(value: str) -> str:
    """Return a list value of main.cf without the elements of an installation."""
    return OWN_LIST_ELEMENT.sub("", value).rstrip(", ")
