"""Decodes message content after DATA, received in pieces of any size.

Used by intake/lmtp_session. Removes dot-stuffing, finds the end of the data and detects
line ends other than CRLF. Returns canonical message bytes; buffers four bytes at most.
"""

from __future__ import annotations

END_OF_DATA = b"\r\n.\r\n"  # RFC 5321 4.1.1.4: only this ends the data


class DataDecoder:
    """Decodes the content of one message.

    ``is_complete`` is true once the end of data was read; ``rest`` then has the bytes
    that the client sent after it. ``has_bare_lf`` is true if a line ended without CR:
    the next server may see a different end of data in such a message.
    """

    __slots__ = ("_buffer", "_virtual_bytes", "has_bare_lf", "is_complete", "rest")

    def __init__(self) -> None:
        self._buffer = b"\r\n"  # as if a line had ended just before the first byte
        self._virtual_bytes = 2  # bytes of the buffer that were never sent
        self.is_complete = False
        self.has_bare_lf = False
        self.rest = b""

    def decode(self, data: bytes) -> bytes:
        """Return the canonical bytes that are complete with this data, maybe none."""
        joined = self._buffer + data
        end = joined.find(END_OF_DATA)
        if end >= 0:
            self.is_complete = True
            self.rest = joined[end + len(END_OF_DATA) :]
            self._buffer = b""
            return self._unstuff(joined[: end + 2])
        length = _partial_end_length(joined)
        self._buffer = joined[len(joined) - length :]
        return self._unstuff(joined[: len(joined) - length])

    def _unstuff(self, data: bytes) -> bytes:
        """Return data without the first dot of each line (RFC 5321 4.5.2)."""
        if not data:
            return b""
        if data.count(b"\n") != data.count(b"\r\n"):
            self.has_bare_lf = True
        virtual_bytes, self._virtual_bytes = self._virtual_bytes, 0
        return data.replace(b"\r\n.", b"\r\n")[virtual_bytes:]


def _partial_end_length(text: bytes) -> int:
    """Return how many bytes at the end of text may be the start of END_OF_DATA."""
    for length in range(len(END_OF_DATA) - 1, 0, -1):
        if text.endswith(END_OF_DATA[:length]):
            return length
    return 0
