"""The lmtp door's workers: one for each archive that main.cf and master.cf name.

Used by installation and the doctor. lmtp(8) brings mail to a socket, spawn(8) runs a
worker behind it, and the socket's name says which archive is asked for. So an archive=
without its service makes mail wait. Each way behind the archive has sockets of its own,
whose workers know where to hand back.
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

USUAL = "archive@example.com"  # whom the sample in master.cf.d archives for
SAMPLE = f"{gates.socket(1)}{USUAL}/unix"
# What a name in master.cf and postconf(1)'s command line take as it is.
NAME = re.compile(r"[A-Za-z0-9@._+,'-]+")
# Bytes of a socket's path below queue_directory (unix(7), sun_path). With a longer one
# in master.cf, master(8) ends at the next start or reload, and says so to nobody.
PATH_LIMIT = 107
# Seconds after which a worker ends itself, between two messages: front/lmtp.LIFE.
LIFE = 3600


def nexthops(
    found: Configuration, archive: str, services: Iterable[Service | None]
) -> list[str]:
    """Return each archive= that mail of these services may ask for, as written.

    archive is what main.cf is to say; None among the services is main.cf itself.
    """
    wanted = replace(found, main={**found.main, "archive": archive or ""})
    named: dict[str, None] = {}
    for each in services:
        asked = wanted.value("archive", each)
        with contextlib.suppress(RequestUnusable):  # its mail waits, as by pipe(8)
            if asked:
                request.from_nexthop(asked)
                named[asked] = None
    return list(named)


def entries(
    sample: str, found: Configuration, behind: Ways, number: int
) -> Iterator[str]:
    """Give the sample of master.cf.d for each archive that mail on this way asks for.

    Raises InstallRefused for an archive that cannot be the name of a service.
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
    """Return the entry of master.cf for the worker of one archive on one way."""
    name = f"{gates.socket(number)}{archive}"
    line = sample.replace(f"{gates.socket(1)}{USUAL} ", f"{name} ", 1)
    return line.replace(f"--nexthop {USUAL}", f"--nexthop {archive}", 1)


def refuse(archive: str, number: int) -> None:
    """Raise InstallRefused if this cannot be the name of a socket on this way."""
    said = (
        f"MODE=lmtp: archive = {archive} cannot be the name of a service in master.cf"
    )
    if not NAME.fullmatch(archive):
        raise InstallRefused(
            f"{said}, which takes letters, digits and . _ + - @ ' , only: give another"
            " address, or take MODE=pipe"
        )
    if len(archive) > longest(number):
        raise InstallRefused(
            f"{said}: its socket has room for {longest(number)} characters, and this"
            f" has {len(archive)}: give a shorter address, or take MODE=pipe"
        )


def longest(number: int) -> int:
    """Return how many characters an archive may have to be a socket on this way."""
    return PATH_LIMIT - len(f"private/{gates.socket(number)}")
