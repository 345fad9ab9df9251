"""All that the doctor looks at, in the order in which a postmaster wants to read it.

Used by front/doctor and by make install. A check is a function from the host as it was
observed to what is wrong with it; it looks at nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.core import (
    checks_archive,
    checks_place,
    checks_ports,
    checks_queue,
    checks_tables,
    checks_transports,
    checks_way,
)
from postfix_archive.core.finding import Finding
from postfix_archive.core.observed import Observed

Check = Callable[[Observed], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    *checks_way.CHECKS,
    *checks_tables.CHECKS,
    *checks_transports.CHECKS,
    *checks_ports.CHECKS,
    *checks_archive.CHECKS,
    *checks_place.CHECKS,
    *checks_queue.CHECKS,
)

LACKS = (((3, 9), "it does not tell the filter a client's ENVID (3.9 does)"),)


def examine(host: Observed) -> list[Finding]:
    """Return all findings, the worst first."""
    found = [finding for check in CHECKS for finding in check(host)]
    return sorted(found, key=lambda each: -each.severity)


def lacks(release: tuple[int, int]) -> list[str]:
    """Return what a release of Postfix lacks that a newer one would give us."""
    return [what for since, what in LACKS if release < since]
