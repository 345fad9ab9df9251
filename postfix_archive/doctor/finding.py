"""One finding of the doctor: severity, place, possible harm, and the fix.

Used by the checks and cli.doctor. Severities are those of monitoring plugins
(Nagios Plugin Development Guidelines); the worst one is the exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from postfix_archive import monitoring

ADVICE = monitoring.OK  # counts as OK: no mail and no evidence is at risk


@dataclass(frozen=True)
class Finding:
    """One mistake on this host. The fields are the JSON keys of doctor --json."""

    check: str  # stable name, for monitoring: recipient-limit
    severity: int
    place: str  # file, parameter or service
    harm: str  # what can go wrong, in one sentence
    fix: str  # the exact command, or what to edit
    is_safe: bool = False  # doctor --fix may run the command

    @property
    def severity_name(self) -> str:
        """ADVICE, WARNING or CRITICAL."""
        return monitoring.STATUS_NAMES[self.severity] if self.severity else "ADVICE"


def worst_severity(findings: Iterable[Finding]) -> int:
    """Return the highest severity, which is the exit code: 0, 1 or 2."""
    return max((each.severity for each in findings), default=monitoring.OK)
