"""The services of master.cf that run our launchers, in pipe and in lmtp mode.

Used by install, doctor and bypass.
"""

from __future__ import annotations

from postfix_archive.core import gates
from postfix_archive.core.configuration import Configuration, Service

WORKER_LAUNCHER = "archive-lmtp"  # launcher of lmtp mode


def is_pipe_service(service: Service) -> bool:
    """Tell whether a service runs one of our launchers by pipe(8)."""
    path = service.argument("argv")
    return service.program == "pipe" and path.rpartition("/")[2] in (
        gates.STAMP_TRANSPORT,
        "archive",
    )


def is_lmtp_client(service: Service) -> bool:
    """Tell whether this is the lmtp(8) client of our workers, on any route."""
    has_syslog_name = service.options.get("syslog_name", "").endswith(
        f"/{gates.STAMP_TRANSPORT}"
    )
    has_transport_name = service.name == gates.transport_name(
        gates.route_number(service.name)
    )
    return service.program == "lmtp" and has_transport_name and has_syslog_name


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
        is_stamp_filter = service.name == gates.transport_name(number)
        if (
            is_stamp_filter
            or is_worker_service(service)
            and service.name.startswith(gates.socket_prefix(number))
        ):
            if address := service.argument("handback-address"):
                return address
    return ""
