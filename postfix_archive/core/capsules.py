"""The capsules in Postfix's log: what became of each, by the archive id that it bears.

Used by reconciling. The link is the Message-ID that the stamp filter gives a capsule,
and counts only for queue files that came in by a port of the archive's own. With them
go queue files that bear no archive id: archive copies, and what Postfix makes itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from postfix_archive.core import delivery
from postfix_archive.core.errors import ALARM

NAMED = re.compile(r"message-id=<capsule\.(\d{8}-[0-9a-f]{40})@")
ASIDE = f"({ALARM} IN THE FALLBACK DIRECTORY"
ARCHIVE = "archive"  # the transport
DELETED = "deleted by postsuper -d"
EXPIRED = "expired in the queue"
RESCUED = "taken into the fallback directory"


class Capsules:
    """The capsules that are on their way, and the ends of those that got nowhere.

    ``ends`` has, by archive id, what a capsule came to other than being archived, and
    its queue id. ``mailed`` has the ids that the archive transport was done with; it is
    kept only where no store can be asked.
    """

    def __init__(self, *, stores: bool) -> None:
        self.ends: dict[str, tuple[str, str]] = {}
        self.mailed: set[str] = set()
        self._stores = stores
        self._open: dict[str, str] = {}  # queue id: archive id
        self._queue_ids: dict[str, str] = {}  # archive id: queue id

    @property
    def names(self) -> Collection[str]:
        """The queue ids of all that are on their way."""
        return self._open

    def has(self, queue_id: str) -> bool:
        """Tell whether a queue file is a capsule, or one of the others."""
        return queue_id in self._open

    def queue_id(self, archive_id: str) -> str:
        """Return the queue file of a capsule that is on its way, "" if none is."""
        return self._queue_ids.get(archive_id, "")

    def is_settled(self, archive_id: str) -> bool:
        """Tell whether the log leaves no doubt that its capsules were dealt with."""
        return archive_id not in self._queue_ids and archive_id not in self.ends

    def begin(self, queue_id: str) -> None:
        """Note a queue file that is no mail from outside."""
        self._open[queue_id] = ""

    def identify(self, queue_id: str, text: str) -> bool:
        """Read the line that tells its Message-ID; tell whether it is one of these."""
        if queue_id not in self._open:
            return False
        found = NAMED.match(text)
        if found is not None:
            self._open[queue_id] = found.group(1)
            self._queue_ids[found.group(1)] = queue_id
        return True

    def rename(self, old: str, new: str) -> bool:
        """Note that postsuper -r gave it another queue id; tell whether it is one."""
        if old not in self._open:
            return False
        archive_id = self._open[new] = self._open.pop(old)
        if archive_id:
            self._queue_ids[archive_id] = new
        return True

    def removed(self, queue_id: str) -> None:
        """Note that its queue file is gone, as it is when all is done."""
        archive_id = self._open.pop(queue_id, "")
        if self._queue_ids.get(archive_id) == queue_id:
            del self._queue_ids[archive_id]

    def deleted(self, queue_id: str) -> None:
        """Note that postsuper -d has deleted it."""
        self._ended(queue_id, DELETED)
        self.removed(queue_id)

    def expired(self, queue_id: str) -> None:
        """Note that Postfix has given it up."""
        self._ended(queue_id, EXPIRED)

    def attempted(self, queue_id: str, text: str) -> None:
        """Read a delivery attempt."""
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
