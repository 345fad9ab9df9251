"""One at a time: what two runs may not do at once for one record.

Used by front/archive_transport, so that two capsules of one message, which Postfix
has when a hand-back was refused and tried again, mail the copy once. The kernel lets go
of a turn when its process ends, however that ends.
"""

from __future__ import annotations

import posix as os
from fcntl import LOCK_EX, lockf

from postfix_archive.core import digest

NAME = "mailing"  # an empty file in archive_fallback_directory
MODE = 0o600
PLACES = 1 << 30  # bytes that can be locked, one a record: two hardly ever meet


class Turn:
    """The turn of one record, as long as this object is open.

    Waits for whoever has it; archive_time_limit ends that. Where the folder cannot be
    used nobody waits: a copy that is mailed twice is better than one that is not.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, folder: str, record_id: str) -> None:
        place = int(digest.hex_of(record_id.encode())[:8], 16) % PLACES
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._descriptor = -1
        try:
            self._descriptor = os.open(f"{folder}/{NAME}", flags, MODE)
            lockf(self._descriptor, LOCK_EX, 1, place)
        except OSError:
            pass

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
