"""Whether mail waits for the store at all: not for a while after it has in vain.

Used by front/through. The note is a file in archive_spool_directory, which is on a disk
of this host; the store's own, or that of the fallback directory, may be what hangs. A
note of somebody else counts for nothing, one that cannot be made is none.
"""

from __future__ import annotations

import posix as os

from postfix_archive.core import digest

PAUSE = 60  # seconds: mail does not wait for a store that is known to be slow
MODE = 0o600
DIGITS = 16  # of the store's name, so that each host's own stores are told apart


class Patience:
    """The note of one store, as one user keeps it."""

    __slots__ = ("path",)

    def __init__(self, spool_directory: str, store_directory: str) -> None:
        named = digest.hex_of(store_directory.encode())[:DIGITS]
        self.path = f"{spool_directory}/.postfix-archive-{named}.slow"

    def is_over(self, now: int) -> bool:
        """Tell whether mail has waited in vain lately; now is Unix time."""
        try:
            told = os.lstat(self.path)
        except OSError:
            return False
        return told.st_uid == os.geteuid() and abs(now - told.st_mtime) < PAUSE

    def lose(self) -> None:
        """Note that mail has waited in vain."""
        flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            opened = os.open(self.path, flags, MODE)
            try:
                os.utime(opened)
            finally:
                os.close(opened)
        except OSError:
            pass
