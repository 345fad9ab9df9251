"""What the doctor says of one thing that is wrong: how bad, why, and what mends it.

Used by the checks and by front/doctor. Severities are those of monitoring plugins
(Nagios Plugin Development Guidelines): the worst one is the exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3
ADVICE = OK  # worth knowing, and nothing can be lost by it
NAMES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong on this host."""

    check: str  # its lasting name, for monitoring: recipient-limit
    severity: int
    place: str  # file, parameter or service
    harm: str  # what can go wrong, in one sentence
    cure: str  # the exact command, or what to edit
    is_safe: bool = False  # doctor --fix may run the cure

    @property
    def severity_name(self) -> str:
        """ADVICE, WARNING or CRITICAL."""
        return NAMES[self.severity] if self.severity else "ADVICE"


def worst(findings: Iterable[Finding]) -> int:
    """Return the exit code of all of them: 0, 1 or 2."""
    return max((each.severity for each in findings), default=OK)
