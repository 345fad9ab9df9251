"""Reads the content that follows DATA, in pieces cut anywhere.

Used by lmtp. Takes off the dots that the client has doubled, finds the end, and says
whether a line ended otherwise than by CRLF. What it gives is the canonical form of
core/wire. Of the content itself it holds four bytes at most.
"""

from __future__ import annotations

END = b"\r\n.\r\n"  # RFC 5321 4.1.1.4: nothing else ends a message


class Content:
    """The content of one message on its way in.

    ``ended`` is true once the end was read, and ``rest`` then holds what the client
    has sent behind it. ``bare_lf`` is true when a line ended without CR: whoever reads
    such a message next may see another end in it than we do.
    """

    __slots__ = ("_held", "_virtual", "bare_lf", "ended", "rest")

    def __init__(self) -> None:
        self._held = b"\r\n"  # as if a line had ended just before the first byte
        self._virtual = 2  # so many bytes of what is held were never sent
        self.ended = False
        self.bare_lf = False
        self.rest = b""

    def taken(self, sent: bytes) -> bytes:
        """Return what these bytes add to the canonical message, maybe nothing."""
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
        """Return bytes with the first dot of each line taken off (RFC 5321 4.5.2)."""
        if not stuffed:
            return b""
        if stuffed.count(b"\n") != stuffed.count(b"\r\n"):
            self.bare_lf = True
        virtual, self._virtual = self._virtual, 0
        return stuffed.replace(b"\r\n.", b"\r\n")[virtual:]


def _length_of_begun_end(text: bytes) -> int:
    """Return how many bytes at the end of text could begin the end of a message."""
    for length in range(len(END) - 1, 0, -1):
        if text.endswith(END[:length]):
            return length
    return 0
