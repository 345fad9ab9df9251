"""Run all checks on an inspected host and format their findings.

Used by cli.doctor and make install. A check is a function that gets a Host and yields a
Finding for each mistake; it does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive import monitoring
from postfix_archive.doctor import (
    check_archive,
    check_capture,
    check_header_rewriting,
    check_lmtp,
    check_ports,
    check_queue,
    check_routing,
    check_store,
    check_tables,
    check_transports,
    check_workers,
)
from postfix_archive.doctor.finding import Finding, worst_severity
from postfix_archive.doctor.host import Host

Check = Callable[[Host], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    *check_routing.CHECKS,
    *check_header_rewriting.CHECKS,
    *check_capture.CHECKS,
    *check_tables.CHECKS,
    *check_transports.CHECKS,
    *check_lmtp.CHECKS,
    *check_workers.CHECKS,
    *check_ports.CHECKS,
    *check_archive.CHECKS,
    *check_store.CHECKS,
    *check_queue.CHECKS,
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
        fix = "fix" if item.severity else "optional, nothing has to be done"
        lines += [
            f"{item.severity_name} {item.check}: {item.place}",
            f"    {item.harm}",
            f"    {fix}: {item.fix}",
        ]
    return "\n".join(lines)


def _summary(host: Host, findings: list[Finding]) -> str:
    worst = worst_severity(findings)
    if not worst:
        return (
            f"OK: postfix-archive in {host.config.directory}, Postfix"
            f" {host.config.raw('mail_version')}"
            + "".join(f"; {each}" for each in limitations(host.config.version))
        )
    counts = [
        f"{sum(each.severity == severity for each in findings)} {name}"
        for severity, name in (
            (monitoring.CRITICAL, "critical"),
            (monitoring.WARNING, "warning"),
        )
    ]
    return f"{monitoring.STATUS_NAMES[worst]}: postfix-archive: {', '.join(counts)}"


def limitations(release: tuple[int, int]) -> list[str]:
    """Return the limitations of a release of Postfix, as text."""
    return [text for since, text in LIMITATIONS if release < since]
