"""A service that does its work again and again until it is stopped.

Used by search.index_service and replicate.replication_service.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from postfix_archive.errors import ArchiveError
from postfix_archive.system.file_watch import Watch

MAX_RETRY_SECONDS = 60.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
Warn = Callable[[str], None]  # shows a warning


class ServiceLoop:
    """Runs work until SIGTERM or SIGINT, which it blocks. ``is_stopped`` tells."""

    def __init__(self, warn: Warn, poll_seconds: float) -> None:
        self._warn = warn
        self._poll_seconds = poll_seconds
        self.is_stopped = False

    def follow(self, work: Callable[[], None], watch: Watch) -> bool:
        """Work until a stop signal, or until a watched file changes.

        After an error it waits and tries again; the same error is shown once in a row.
        Returns whether it was stopped by a signal.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        failures, last_error = 0, ""
        while not (self.is_stopped or watch.is_changed):
            try:
                work()
                failures, last_error = 0, ""
            except ArchiveError as error:
                failures += 1
                if str(error) != last_error:
                    self._warn(f"{type(error).__name__}: {error}; retrying")
                last_error = str(error)
            delay = self._poll_seconds * 2 ** min(failures, 10)
            self.sleep(min(delay, max(MAX_RETRY_SECONDS, self._poll_seconds)))
        return self.is_stopped

    def sleep(self, seconds: float) -> None:
        """Sleep, at most until a stop signal, if follow() has blocked those."""
        if {*STOP_SIGNALS} <= signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            self.is_stopped |= signal.sigtimedwait(STOP_SIGNALS, seconds) is not None
