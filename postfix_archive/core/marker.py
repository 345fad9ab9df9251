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

MARKER = b"X-MS-Journal-Report"
MARKED_FORMATS = ("hybrid", "journal")  # values of archive_report_format
MARKER_LINE = b"\n" + MARKER


def has_marker(original: Iterable[bytes]) -> bool:
    """Return whether a line of the original begins like the marker."""
    buffer = b"\n"  # as if a line had ended before the first byte
    for piece in original:
        joined = buffer + piece
        if MARKER_LINE in joined:
            return True
        buffer = joined[-len(MARKER_LINE) + 1 :]
    return False


def lowercase_markers(original: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the original with such lines in lower case; its size does not change."""
    is_first = True
    for piece in _replace_markers(original):
        if piece:
            yield piece[1:] if is_first else piece
            is_first = False


def _replace_markers(original: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a line end and the original; buffer what may be the start of a marker."""
    buffer = b"\n"
    for piece in original:
        joined = (buffer + piece).replace(MARKER_LINE, MARKER_LINE.lower())
        safe_length = max(0, len(joined) - len(MARKER_LINE) + 1)
        yield joined[:safe_length]
        buffer = joined[safe_length:]
    yield buffer
