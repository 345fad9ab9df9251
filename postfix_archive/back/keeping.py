"""Cache of the connection to the reinjection port, for LMTP workers.

Used by stamp_filter/capture. Postfix may close an idle connection between two messages;
then there is a new one. In pipe mode nothing is cached.
"""

from __future__ import annotations

from postfix_archive.back import handback


class Line:
    """Keeps one session with the reinjection port for the next message, if enabled."""

    __slots__ = ("_keeps", "_kept")

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps
        self._kept: handback.Session | None = None

    def take(self, port: tuple[str, int]) -> handback.Session:
        """Return a session for one message, the cached one if it is still alive.

        Raises PostfixUnreachable and PostfixRefused.
        """
        kept, self._kept = self._kept, None
        if kept is not None and kept.port == port and kept.is_alive:
            return kept
        if kept is not None:
            kept.close()
        return handback.Session(port)

    def done(self, session: handback.Session) -> None:
        """Cache a session without errors for the next message, or close it."""
        if self._keeps:
            self._kept = session
        else:
            session.close()
