"""The services of master.cf that run our launchers, in pipe and in lmtp mode.

Used by install, doctor and bypass.
"""

from __future__ import annotations

from postfix_archive.core import gates
from postfix_archive.core.configuration import Configuration, Service

WORKER = "archive-lmtp"  # launcher of lmtp mode


def is_door(service: Service) -> bool:
    """Tell whether a service runs one of our launchers by pipe(8)."""
    path = service.argument("argv")
    return service.program == "pipe" and path.rpartition("/")[2] in (
        gates.STAMP,
        "archive",
    )


def is_client(service: Service) -> bool:
    """Tell whether this is the lmtp(8) client of our workers, on any route."""
    logged = service.options.get("syslog_name", "").endswith(f"/{gates.STAMP}")
    named = service.name == gates.transport(gates.number_in(service.name))
    return service.program == "lmtp" and named and logged


def is_worker(service: Service) -> bool:
    """Tell whether a service runs our worker launcher by spawn(8)."""
    path = service.argument("argv")
    return service.program == "spawn" and path.rpartition("/")[2] == WORKER


def is_launched(service: Service) -> bool:
    """Tell whether a service runs one of our launchers, by pipe(8) or spawn(8)."""
    return is_door(service) or is_worker(service)


def way_back(found: Configuration, number: int) -> str:
    """Return the reinjection address of a route; "" if archive.cf has it.

    The entry of pipe(8), or of a worker of this route, has it as --handback-address.
    """
    for each in found.services:
        ours = each.name == gates.transport(number)
        if ours or is_worker(each) and each.name.startswith(gates.socket(number)):
            if port := each.argument("handback-address"):
                return port
    return ""
