"""Worker services of lmtp mode: one for each archive value in main.cf and master.cf.

Used by install/plan and doctor. lmtp(8) connects to a UNIX-domain socket on which
spawn(8) runs a worker; the name of the socket is the archive value. Mail for an archive
value without a service is deferred. Each route has sockets of its own, whose workers
reinject to the port of that route.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from postfix_archive.core import gates, request
from postfix_archive.core.configuration import Configuration, Service
from postfix_archive.core.errors import InstallRefused, RequestUnusable
from postfix_archive.core.ways import Ways

USUAL = "archive@example.com"  # in the sample of master.cf.d
SAMPLE = f"{gates.socket(1)}{USUAL}/unix"
# A service name that master.cf and the command line of postconf(1) take unquoted.
NAME = re.compile(r"[A-Za-z0-9@._+,'-]+")
# Bytes of a socket path below queue_directory (unix(7), sun_path). With a longer one in
# master.cf, master(8) exits at the next start or reload and logs nothing.
PATH_LIMIT = 107
# Seconds after which a worker exits between two messages; see intake/lmtp_worker.
LIFE = 3600


def nexthops(
    found: Configuration, archive: str, services: Iterable[Service | None]
) -> list[str]:
    """Return each distinct archive value of these master.cf entries, expanded.

    archive: the value planned for main.cf. None in entries stands for main.cf itself.
    """
    wanted = replace(found, main={**found.main, "archive": archive or ""})
    named: dict[str, None] = {}
    for each in services:
        asked = wanted.value("archive", each)
        with contextlib.suppress(RequestUnusable):  # mail is deferred, as in pipe mode
            if asked:
                request.from_nexthop(asked)
                named[asked] = None
    return list(named)


def entries(
    sample: str, found: Configuration, behind: Ways, number: int
) -> Iterator[str]:
    """Yield a worker entry, from the sample of master.cf.d, for each archive value.

    number: of the route. Raises InstallRefused for a value that cannot be a service
    name.
    """
    on_way: list[Service | None] = []
    for each in found.services:
        named = "archive" in each.options if number == 1 else each in behind.through
        if named and behind.number(each) == number:
            on_way.append(each)
    if number == 1:
        on_way.insert(0, None)
    elif behind.wish.on_request:
        yield entry(sample, number, request.ON_REQUEST)
    for archive in nexthops(found, behind.wish.archive, on_way):
        refuse(archive, number)
        yield entry(sample, number, archive)


def entry(sample: str, number: int, archive: str) -> str:
    """Return the master.cf entry of the worker for one archive value and route."""
    name = f"{gates.socket(number)}{archive}"
    line = sample.replace(f"{gates.socket(1)}{USUAL} ", f"{name} ", 1)
    return line.replace(f"--nexthop {USUAL}", f"--nexthop {archive}", 1)


def refuse(archive: str, number: int) -> None:
    """Raise InstallRefused if an archive value cannot be part of a socket name."""
    said = f"MODE=lmtp: archive = {archive} cannot be a service name in master.cf"
    if not NAME.fullmatch(archive):
        raise InstallRefused(
            f"{said}: only letters, digits and . _ + - @ ' , are allowed; use another"
            " address or MODE=pipe"
        )
    if len(archive) > longest(number):
        raise InstallRefused(
            f"{said}: it has {len(archive)} characters, the socket path allows"
            f" {longest(number)}; use a shorter address or MODE=pipe"
        )


def longest(number: int) -> int:
    """Return the maximum length of an archive value on a route, in characters."""
    return PATH_LIMIT - len(f"private/{gates.socket(number)}")
