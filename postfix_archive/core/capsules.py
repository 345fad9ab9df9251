"""The capsules in the mail log, by archive id, and what became of each.

Used by reconcile/log_scan. A capsule is known by the Message-ID that the stamp filter
gives it, which counts only for queue files from one of the archive's own services.
Also tracks queue files without an archive id that are no accepted mail: archive copies
and mail that Postfix itself makes.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from postfix_archive.core import delivery
from postfix_archive.core.errors import ALARM

NAMED = re.compile(r"message-id=<capsule\.(\d{8}-[0-9a-f]{40})@")
ASIDE = f"({ALARM} IN THE FALLBACK DIRECTORY"
ARCHIVE = "archive"
DELETED = "deleted by postsuper -d"
EXPIRED = "expired in the queue"
RESCUED = "moved to the fallback directory"


class Capsules:
    """The capsules in the queue, and why others left it without being archived.

    ``ends`` maps an archive id to the reason and the queue id of such a capsule.
    ``mailed`` has the archive ids that the archive transport has delivered; it is
    filled only without a store, since a store's journal is the better evidence.
    """

    def __init__(self, *, stores: bool) -> None:
        self.ends: dict[str, tuple[str, str]] = {}
        self.mailed: set[str] = set()
        self._stores = stores
        self._open: dict[str, str] = {}  # queue id: archive id
        self._queue_ids: dict[str, str] = {}  # archive id: queue id

    @property
    def names(self) -> Collection[str]:
        """The queue ids of all that are in the queue."""
        return self._open

    def has(self, queue_id: str) -> bool:
        """Return whether a queue file is a capsule or other mail of our own."""
        return queue_id in self._open

    def queue_id(self, archive_id: str) -> str:
        """Return the queue id of a capsule in the queue, "" if there is none."""
        return self._queue_ids.get(archive_id, "")

    def is_settled(self, archive_id: str) -> bool:
        """Return whether no capsule with this id waits or was lost."""
        return archive_id not in self._queue_ids and archive_id not in self.ends

    def begin(self, queue_id: str) -> None:
        """Add a queue file that is not mail from outside."""
        self._open[queue_id] = ""

    def identify(self, queue_id: str, text: str) -> bool:
        """Read the log text with a Message-ID; return whether the file is ours."""
        if queue_id not in self._open:
            return False
        found = NAMED.match(text)
        if found is not None:
            self._open[queue_id] = found.group(1)
            self._queue_ids[found.group(1)] = queue_id
        return True

    def rename(self, old: str, new: str) -> bool:
        """Change a queue id after postsuper -r; return whether the old one is known."""
        if old not in self._open:
            return False
        archive_id = self._open[new] = self._open.pop(old)
        if archive_id:
            self._queue_ids[archive_id] = new
        return True

    def removed(self, queue_id: str) -> None:
        """Drop a queue file that was removed, as after the last delivery."""
        archive_id = self._open.pop(queue_id, "")
        if self._queue_ids.get(archive_id) == queue_id:
            del self._queue_ids[archive_id]

    def deleted(self, queue_id: str) -> None:
        """Note that postsuper -d deleted it."""
        self._ended(queue_id, DELETED)
        self.removed(queue_id)

    def expired(self, queue_id: str) -> None:
        """Note that it expired in the queue."""
        self._ended(queue_id, EXPIRED)

    def attempted(self, queue_id: str, text: str) -> None:
        """Read the log text of a delivery attempt."""
        if not self._open.get(queue_id):
            return
        attempt = delivery.read(text)
        if attempt is None or attempt.status != "sent":
            return
        if ASIDE in attempt.reply:
            self._ended(queue_id, RESCUED)
        elif attempt.relay == ARCHIVE:
            self.ends.pop(self._open[queue_id], None)
            if not self._stores:
                self.mailed.add(self._open[queue_id])
        elif not attempt.relay.startswith(ARCHIVE):
            self._ended(queue_id, f"sent to {attempt.relay}")

    def _ended(self, queue_id: str, how: str) -> None:
        archive_id = self._open.get(queue_id)
        if archive_id:
            self.ends[archive_id] = (how, queue_id)
