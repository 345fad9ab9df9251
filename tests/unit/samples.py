"""Samples that the unit tests share, and what a line on a terminal may hold.

Lines that Postfix has really logged, with what each is to be read as beside it:

postfix_log/VERSION.log is what tests/sample_log.py made with that version. On the same
line of VERSION.expected stands the daemon; or, of a delivery attempt, status, DSN,
recipient and original recipient; - is a line about no queue file, and ? an attempt
that could be read in two ways. postfix_log/forms has lines as syslog daemons write
them.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

LOG_DIRECTORY = Path(__file__).parent / "postfix_log"
VERSIONS = ["3.5", "3.7", "3.10", "3.11"]


def read_lines(path: Path) -> list[str]:
    """Return the lines of a log."""
    return path.read_text("utf-8", "surrogateescape").rstrip("\n").split("\n")


def expected(version: str) -> list[tuple[str, str]]:
    """Return each sample line of a version, and what stands beside it."""
    expected_lines = read_lines(LOG_DIRECTORY / f"{version}.expected")
    return list(
        zip(read_lines(LOG_DIRECTORY / f"{version}.log"), expected_lines, strict=True)
    )


BIDI = frozenset(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))


def is_safe_line(text: str) -> bool:
    """Return whether nothing in text moves the cursor, ends the line or reorders it."""
    categories = set(map(unicodedata.category, text))
    return not categories & {"Cc", "Cs", "Zl", "Zp"} and BIDI.isdisjoint(text)
