"""Run all checks on an inspected host and format their findings.

Used by cli.doctor and make install. A check is a function that gets a Host and yields a
Finding for each mistake; it does no I/O.
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
from postfix_archive.core.observed import Host

Check = Callable[[Host], Iterator[Finding]]
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

# Release of Postfix -> what older ones do not support.
LIMITATIONS = (
    ((3, 9), "the filter does not get a client's ENVID (needs Postfix 3.9)"),
)


def run(host: Host) -> list[Finding]:
    """Return all findings, the worst first."""
    findings = [each for check in CHECKS for each in check(host)]
    return sorted(findings, key=lambda each: -each.severity)


def format_report(host: Host, findings: list[Finding]) -> str:
    """Return the findings as text; the first line is for a monitoring system."""
    lines = [_summary(host, findings)]
    for item in findings:
        lines += [
            f"{item.severity_name} {item.check}: {item.place}",
            f"    {item.harm}",
            f"    fix: {item.cure}",
        ]
    return "\n".join(lines)


def _summary(host: Host, findings: list[Finding]) -> str:
    worst_severity = finding.worst_severity(findings)
    if not worst_severity:
        return (
            f"OK: postfix-archive in {host.config.directory}, Postfix"
            f" {host.config.raw('mail_version')}"
            + "".join(f"; {each}" for each in limitations(host.config.version))
        )
    counts = [
        f"{sum(each.severity == severity for each in findings)} {name}"
        for severity, name in (
            (finding.CRITICAL, "critical"),
            (finding.WARNING, "warning"),
        )
    ]
    return (
        f"{finding.STATUS_NAMES[worst_severity]}: postfix-archive: {', '.join(counts)}"
    )


def limitations(release: tuple[int, int]) -> list[str]:
    """Return the limitations of a release of Postfix, as text."""
    return [text for since, text in LIMITATIONS if release < since]
