"""The header field by which journal importers recognise an archive copy.

Used by archive_copy and archive_transport/transport. An importer that finds this marker
inside the original takes the original for the report and drops the true recipients
(tried with a widely used one). Importers match the marker case-sensitively; for all
others a header name has no case. Therefore such lines of the original are in lower case
in copies that are sent as mail, and only there: the store keeps the exact bytes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAME = b"X-MS-Journal-Report"
FORMS = ("hybrid", "journal")  # values of archive_report_format
LINE = b"\n" + NAME


def is_in(original: Iterable[bytes]) -> bool:
    """Return whether a line of the original begins like the marker."""
    held = b"\n"  # as if a line had ended before the first byte
    for piece in original:
        joined = held + piece
        if LINE in joined:
            return True
        held = joined[-len(LINE) + 1 :]
    return False


def lowered(original: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the original with such lines in lower case; its size does not change."""
    first = True
    for piece in _replaced(original):
        if piece:
            yield piece[1:] if first else piece
            first = False


def _replaced(original: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a line end and the original; buffer what may be the start of a marker."""
    held = b"\n"
    for piece in original:
        joined = (held + piece).replace(LINE, LINE.lower())
        ready = max(0, len(joined) - len(LINE) + 1)
        yield joined[:ready]
        held = joined[ready:]
    yield held
