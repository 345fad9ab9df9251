"""Decodes message content after DATA, received in pieces of any size.

Used by intake/lmtp_session. Removes dot-stuffing, finds the end of the data and detects
line ends other than CRLF. Returns canonical message bytes; buffers four bytes at most.
"""

from __future__ import annotations

END = b"\r\n.\r\n"  # RFC 5321 4.1.1.4: only this ends the data


class Content:
    """Decodes the content of one message.

    ``is_complete`` is true once the end of data was read; ``rest`` then has the bytes
    that the client sent after it. ``has_bare_lf`` is true if a line ended without CR:
    the next server may see a different end of data in such a message.
    """

    __slots__ = ("_held", "_virtual", "bare_lf", "ended", "rest")

    def __init__(self) -> None:
        self._held = b"\r\n"  # as if a line had ended just before the first byte
        self._virtual = 2  # bytes of the buffer that were never sent
        self.ended = False
        self.bare_lf = False
        self.rest = b""

    def taken(self, sent: bytes) -> bytes:
        """Return the canonical bytes that are complete with this data, maybe none."""
        joined = self._held + sent
        end = joined.find(END)
        if end >= 0:
            self.ended = True
            self.rest = joined[end + len(END) :]
            self._held = b""
            return self._plain(joined[: end + 2])
        keep = _length_of_begun_end(joined)
        self._held = joined[len(joined) - keep :]
        return self._plain(joined[: len(joined) - keep])

    def _plain(self, stuffed: bytes) -> bytes:
        """Return data without the first dot of each line (RFC 5321 4.5.2)."""
        if not stuffed:
            return b""
        if stuffed.count(b"\n") != stuffed.count(b"\r\n"):
            self.bare_lf = True
        virtual, self._virtual = self._virtual, 0
        return stuffed.replace(b"\r\n.", b"\r\n")[virtual:]


def _length_of_begun_end(text: bytes) -> int:
    """Return how many bytes at the end of text may be the start of END_OF_DATA."""
    for length in range(len(END) - 1, 0, -1):
        if text.endswith(END[:length]):
            return length
    return 0
