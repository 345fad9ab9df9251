"""All that the doctor looks at, in the order in which a postmaster wants to read it.

Used by front/doctor and by make install. A check is a function from the host as it was
observed to what is wrong with it; it looks at nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.core import (
    checks_archive,
    checks_lmtp,
    checks_outcomes,
    checks_place,
    checks_ports,
    checks_queue,
    checks_rescue,
    checks_tables,
    checks_transports,
    checks_way,
    checks_workers,
    finding,
)
from postfix_archive.core.finding import Finding
from postfix_archive.core.observed import Observed

Check = Callable[[Observed], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    *checks_way.CHECKS,
    *checks_tables.CHECKS,
    *checks_transports.CHECKS,
    *checks_lmtp.CHECKS,
    *checks_workers.CHECKS,
    *checks_ports.CHECKS,
    *checks_archive.CHECKS,
    *checks_place.CHECKS,
    *checks_queue.CHECKS,
    *checks_rescue.CHECKS,
    *checks_outcomes.CHECKS,
)

LACKS = (((3, 9), "it does not tell the filter a client's ENVID (3.9 does)"),)


def examine(host: Observed) -> list[Finding]:
    """Return all findings, the worst first."""
    found = [each for check in CHECKS for each in check(host)]
    return sorted(found, key=lambda each: -each.severity)


def report(host: Observed, found: list[Finding]) -> str:
    """Return what a person reads, and a monitoring system in its first line."""
    lines = [_summary(host, found)]
    for each in found:
        lines += [
            f"{each.severity_name} {each.check}: {each.place}",
            f"    {each.harm}",
            f"    mend: {each.cure}",
        ]
    return "\n".join(lines)


def _summary(host: Observed, found: list[Finding]) -> str:
    worst = finding.worst(found)
    if not worst:
        return (
            f"OK: postfix-archive in {host.found.directory}, Postfix"
            f" {host.found.raw('mail_version')}"
            + "".join(f"; {each}" for each in lacks(host.found.version))
        )
    counts = [
        f"{sum(each.severity == severity for each in found)} {word}"
        for severity, word in (
            (finding.CRITICAL, "critical"),
            (finding.WARNING, "warning"),
        )
    ]
    return f"{finding.NAMES[worst]}: postfix-archive: {', '.join(counts)}"


def lacks(release: tuple[int, int]) -> list[str]:
    """Return what a release of Postfix lacks that a newer one would give us."""
    return [what for since, what in LACKS if release < since]
