"""The lmtp door's workers: one for each archive that main.cf and master.cf name.

Used by installation and the doctor. lmtp(8) brings mail to a socket, spawn(8) runs a
worker behind it, and the socket's name says which archive is asked for. So an archive=
without its service makes mail wait.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from postfix_archive.core import gates, request
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import InstallRefused, RequestUnusable

SAMPLE = f"{gates.SOCKET}archive@example.com"  # as master.cf.d names it
# What a name in master.cf and postconf(1)'s command line take as it is.
NAME = re.compile(r"[A-Za-z0-9@._+,'-]+")
# Bytes: a socket's path has 107 (unix(7), sun_path), and private/archive. is in front.
LONGEST = 107 - len(f"private/{gates.SOCKET}")


def nexthops(found: Configuration, archive: str) -> list[str]:
    """Return each archive= that mail may ask for, as written; archive is main.cf's."""
    wanted = replace(found, main={**found.main, "archive": archive or ""})
    asked = [wanted.value("archive")]
    for service in wanted.services:
        asked.append(wanted.expanded(service.options.get("archive", ""), service))
    named: dict[str, None] = {}
    for each in filter(None, asked):
        with contextlib.suppress(RequestUnusable):  # its mail waits, as by pipe(8)
            request.from_nexthop(each)
            named[each] = None
    return list(named)


def entries(
    given: Mapping[str, str], found: Configuration, archive: str
) -> Iterator[str]:
    """Give the lines of master.cf.d with a worker for each archive, not the sample.

    Raises InstallRefused for an archive that cannot be the name of a service.
    """
    sample = given.get(f"{SAMPLE}/unix", "")
    yield from (line for line in given.values() if line != sample)
    if not sample:
        return
    usual = SAMPLE.removeprefix(gates.SOCKET)
    for each in nexthops(found, archive):
        if not NAME.fullmatch(each) or len(each) > LONGEST:
            raise InstallRefused(
                f"MODE=lmtp: archive = {each} cannot be the name of a service in"
                f" master.cf: give one of letters, digits and . _ + - @ , of at most"
                f" {LONGEST} characters, or take MODE=pipe"
            )
        yield sample.replace(usual, each)
