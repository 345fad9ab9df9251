"""A lock for one record of an archive.

Used by archive_transport/transport. Postfix may hold two capsules of one message, after
a reinjection that was refused and retried; the lock makes sure that only one of them
mails the copy. The kernel releases the lock when its process ends, however it ends.
"""

from __future__ import annotations

import posix as os
from fcntl import LOCK_EX, lockf

from postfix_archive.core import digest

LOCK_FILE = "mailing"  # an empty file in archive_fallback_directory
LOCK_FILE_MODE = 0o600
# Byte range to lock in, one byte a record. Two records with the same byte are rare and
# only wait for each other.
LOCK_RANGE = 1 << 30


class RecordLock:
    """Holds the lock of one record until the context ends.

    Waits for another holder, at most until archive_time_limit. Goes on without a lock
    if the directory cannot be used: a copy mailed twice is better than one not mailed.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, directory: str, record_id: str) -> None:
        offset = int(digest.sha256_hex(record_id.encode())[:8], 16) % LOCK_RANGE
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._descriptor = -1
        try:
            self._descriptor = os.open(
                f"{directory}/{LOCK_FILE}", flags, LOCK_FILE_MODE
            )
            lockf(self._descriptor, LOCK_EX, 1, offset)
        except OSError:
            pass

    def __enter__(self) -> RecordLock:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
