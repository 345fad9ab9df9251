"""Worker services of lmtp mode: one for each archive value in main.cf and master.cf.

Used by install/install_plan and doctor. lmtp(8) connects to a UNIX-domain socket on
which spawn(8) runs a worker; the name of the socket is the archive value. Mail for an
archive value without a service is deferred. Each route has sockets of its own, whose
workers reinject to the port of that route.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import replace

from postfix_archive.errors import InstallRefused, RequestInvalid
from postfix_archive.message import request
from postfix_archive.postfix import archive_services
from postfix_archive.postfix.configuration import Configuration, Service

SAMPLE_ARCHIVE = "archive@example.com"  # in the sample of master.cf.d
SAMPLE_KEY = f"{archive_services.socket_prefix(1)}{SAMPLE_ARCHIVE}/unix"
# A service name that master.cf and the command line of postconf(1) take unquoted.
SERVICE_NAME = re.compile(r"[A-Za-z0-9@._+,'-]+")
# Bytes of a socket path below queue_directory (unix(7), sun_path). With a longer one in
# master.cf, master(8) exits at the next start or reload and logs nothing.
SOCKET_PATH_LIMIT = 107
# Seconds after which a worker exits between two messages; see intake/lmtp_worker.
WORKER_LIFETIME = 3600


def archive_values(
    config: Configuration, archive: str, entries: Iterable[Service | None]
) -> list[str]:
    """Return each distinct archive value of these master.cf entries, expanded.

    archive: the value planned for main.cf. None in entries stands for main.cf itself.
    """
    planned = replace(config, main={**config.main, "archive": archive or ""})
    unique: dict[str, None] = {}
    for service in entries:
        value = planned.value("archive", service)
        with contextlib.suppress(RequestInvalid):  # mail is deferred, as in pipe mode
            if value:
                request.from_nexthop(value)
                unique[value] = None
    return list(unique)


def worker_entry(sample: str, number: int, archive: str) -> str:
    """Return the master.cf entry of the worker for one archive value and route."""
    name = f"{archive_services.socket_prefix(number)}{archive}"
    line = sample.replace(
        f"{archive_services.socket_prefix(1)}{SAMPLE_ARCHIVE} ", f"{name} ", 1
    )
    return line.replace(f"--nexthop {SAMPLE_ARCHIVE}", f"--nexthop {archive}", 1)


def check_archive(archive: str, number: int) -> None:
    """Raise InstallRefused if an archive value cannot be part of a socket name."""
    problem = f"MODE=lmtp: archive = {archive} cannot be a service name in master.cf"
    if not SERVICE_NAME.fullmatch(archive):
        raise InstallRefused(
            f"{problem}: only letters, digits and . _ + - @ ' , are allowed; use"
            " another address or MODE=pipe"
        )
    if len(archive) > archive_length_limit(number):
        raise InstallRefused(
            f"{problem}: it has {len(archive)} characters, the socket path allows"
            f" {archive_length_limit(number)}; use a shorter address or MODE=pipe"
        )


def archive_length_limit(number: int) -> int:
    """Return the maximum length of an archive value on a route, in characters."""
    return SOCKET_PATH_LIMIT - len(f"private/{archive_services.socket_prefix(number)}")
