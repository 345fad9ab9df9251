"""The services of master.cf by which Postfix runs us, of either door.

Used by ways, installation, the checks and whoever looks for our launchers.
"""

from __future__ import annotations

from postfix_archive.core import gates
from postfix_archive.core.configuration import Configuration, Service

WORKER = "archive-lmtp"  # the launcher of the lmtp door


def is_door(service: Service) -> bool:
    """Tell whether a service runs one of our launchers."""
    path = service.argument("argv")
    return service.program == "pipe" and path.rpartition("/")[2] in (
        gates.STAMP,
        "archive",
    )


def is_client(service: Service) -> bool:
    """Tell whether this is the lmtp(8) that brings mail to our workers, on any way."""
    logged = service.options.get("syslog_name", "").endswith(f"/{gates.STAMP}")
    named = service.name == gates.transport(gates.number_in(service.name))
    return service.program == "lmtp" and named and logged


def is_worker(service: Service) -> bool:
    """Tell whether a service of spawn(8) runs the lmtp door's launcher."""
    path = service.argument("argv")
    return service.program == "spawn" and path.rpartition("/")[2] == WORKER


def is_launched(service: Service) -> bool:
    """Tell whether a service runs one of our launchers, by pipe(8) or spawn(8)."""
    return is_door(service) or is_worker(service)


def way_back(found: Configuration, number: int) -> str:
    """Return the port to which a further way hands back; "" for the one of archive.cf.

    It stands in the entry of pipe(8), or in those of the way's workers.
    """
    for each in found.services:
        ours = each.name == gates.transport(number)
        if ours or is_worker(each) and each.name.startswith(gates.socket(number)):
            if port := each.argument("handback-address"):
                return port
    return ""
