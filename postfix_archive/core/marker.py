"""The marker by which journal importers know a report, and forged ones in mail.

Used by report and front/archive_transport. An importer that finds the marker inside the
original takes that for the report and drops the true recipients (tried on a widely used
one). It knows the marker by its letters' case, while everybody else reads a header
name in any case: so in copies that leave as mail, and only there, such lines of the
original stand in lower case. The store keeps the exact bytes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAME = b"X-MS-Journal-Report"
FORMS = ("hybrid", "journal")  # of archive_report_format: those that bear the marker
LINE = b"\n" + NAME


def is_in(original: Iterable[bytes]) -> bool:
    """Tell whether a line of the original begins like the marker."""
    held = b"\n"  # as if a line had ended before the first byte
    for piece in original:
        joined = held + piece
        if LINE in joined:
            return True
        held = joined[-len(LINE) + 1 :]
    return False


def lowered(original: Iterable[bytes]) -> Iterator[bytes]:
    """Give the original with such lines in lower case; its length stays the same."""
    first = True
    for piece in _replaced(original):
        if piece:
            yield piece[1:] if first else piece
            first = False


def _replaced(original: Iterable[bytes]) -> Iterator[bytes]:
    """Give a line end and the original; hold back what a line may yet begin with."""
    held = b"\n"
    for piece in original:
        joined = (held + piece).replace(LINE, LINE.lower())
        ready = max(0, len(joined) - len(LINE) + 1)
        yield joined[:ready]
        held = joined[ready:]
    yield held
