"""The services of master.cf by which Postfix runs us, of either door.

Used by ways, installation, the checks and whoever looks for our launchers.
"""

from __future__ import annotations

from postfix_archive.core import gates
from postfix_archive.core.configuration import Service

WORKER = "archive-lmtp"  # the launcher of the lmtp door


def is_door(service: Service) -> bool:
    """Tell whether a service runs one of our launchers."""
    path = service.argument("argv")
    return service.program == "pipe" and path.rpartition("/")[2] in (
        gates.STAMP,
        "archive",
    )


def is_client(service: Service) -> bool:
    """Tell whether this is the lmtp(8) that brings mail to our workers."""
    named = service.options.get("syslog_name", "").endswith(f"/{gates.STAMP}")
    return service.program == "lmtp" and service.name == gates.STAMP and named


def is_worker(service: Service) -> bool:
    """Tell whether a service of spawn(8) runs the lmtp door's launcher."""
    path = service.argument("argv")
    return service.program == "spawn" and path.rpartition("/")[2] == WORKER


def is_launched(service: Service) -> bool:
    """Tell whether a service runs one of our launchers, by pipe(8) or spawn(8)."""
    return is_door(service) or is_worker(service)
