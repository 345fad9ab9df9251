"""The connection to the hand-back port that a worker keeps for many messages.

Used by front/stamp_filter. Postfix may end it between two messages, as it may with any
idle client: then there is a new one. A process that serves one message keeps nothing.
"""

from __future__ import annotations

from postfix_archive.back import handback


class Line:
    """The way to the hand-back port: a session, kept where there is a next message."""

    __slots__ = ("_keeps", "_kept")

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps
        self._kept: handback.Session | None = None

    def take(self, port: tuple[str, int]) -> handback.Session:
        """Return a session for one message, the kept one if it can still be used.

        Raises HandBackUnreachable and HandBackRefused.
        """
        kept, self._kept = self._kept, None
        if kept is not None and kept.port == port and kept.is_alive:
            return kept
        if kept is not None:
            kept.close()
        return handback.Session(port)

    def done(self, session: handback.Session) -> None:
        """Keep a session on which all went well, or end it."""
        if self._keeps:
            self._kept = session
        else:
            session.close()
