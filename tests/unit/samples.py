"""Lines that Postfix has really logged, with what each is to be read as beside it.

postfix_log/VERSION.log is what tests/sample_log.py made with that version. On the same
line of VERSION.expected stands the daemon; or, of a delivery attempt, status, DSN,
recipient and original recipient; - is a line about no queue file, and ? an attempt
that could be read in two ways. postfix_log/forms has lines as syslog daemons write
them.
"""

from __future__ import annotations

from pathlib import Path

LOGS = Path(__file__).parent / "postfix_log"
VERSIONS = ["3.5", "3.7", "3.10", "3.11"]


def lines(path: Path) -> list[str]:
    """Return the lines of a log."""
    return path.read_text("utf-8", "surrogateescape").rstrip("\n").split("\n")


def expected(version: str) -> list[tuple[str, str]]:
    """Return each sample line of a version, and what stands beside it."""
    said = lines(LOGS / f"{version}.expected")
    return list(zip(lines(LOGS / f"{version}.log"), said, strict=True))
