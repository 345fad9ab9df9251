"""Cache of the connection to the reinjection port, for LMTP workers.

Used by stamp_filter/capture. Postfix may close an idle connection between two messages;
then there is a new one. In pipe mode nothing is cached.
"""

from __future__ import annotations

from postfix_archive.back import handback


class ConnectionCache:
    """Keeps one session with the reinjection port for the next message, if enabled."""

    __slots__ = ("_is_enabled", "_session")

    def __init__(self, *, is_enabled: bool) -> None:
        self._is_enabled = is_enabled
        self._session: handback.Session | None = None

    def take(self, port: tuple[str, int]) -> handback.Session:
        """Return a session for one message, the cached one if it is still alive.

        Raises PostfixUnreachable and PostfixRefused.
        """
        session, self._session = self._session, None
        if session is not None and session.port == port and session.is_alive:
            return session
        if session is not None:
            session.close()
        return handback.Session(port)

    def put_back(self, session: handback.Session) -> None:
        """Cache a session without errors for the next message, or close it."""
        if self._is_enabled:
            self._session = session
        else:
            session.close()
