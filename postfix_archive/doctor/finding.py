"""One finding of the doctor: severity, place, possible harm, and the fix.

Used by the checks and cli.doctor. Severities are those of monitoring plugins
(Nagios Plugin Development Guidelines); the worst one is the exit code.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from postfix_archive import monitoring
from postfix_archive.doctor.host import File

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


def attribute_finding(check: str, file: File, harm: str, *command: str) -> Finding:
    """Return the finding that a file has a wrong owner or mode; command changes that.

    A symlink that another user can have made is not followed: it can lead anywhere.
    """
    fix = shlex.join([*command, file.path])
    if file.has_foreign_link:
        harm += "; the path leads through a symlink that another user can change"
        fix = f"ls -ld {shlex.quote(file.path)}, and replace the symlink by a directory"
    is_safe = not file.has_foreign_link
    return Finding(check, monitoring.CRITICAL, file.path, harm, fix, is_safe=is_safe)
