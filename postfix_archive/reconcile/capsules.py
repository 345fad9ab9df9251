"""The capsules in the mail log, by archive id, and what became of each.

Used by reconcile/log_scan. A capsule is known by the Message-ID that the stamp filter
gives it, which counts only for queue files from one of the archive's own services.
Also tracks queue files without an archive id that are no accepted mail: archive copies
and mail that Postfix itself makes.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from postfix_archive.maillog import delivery, report

CAPSULE_MESSAGE_ID = re.compile(r"message-id=<capsule\.(\d{8}-[0-9a-f]{40})@")
ARCHIVE_TRANSPORT = "archive"
DELETED = "deleted by postsuper -d"
EXPIRED = "expired in the queue"
RESCUED = "moved to the fallback directory"


class Capsules:
    """The capsules in the queue, and why others left it without being archived.

    ``ends`` maps an archive id to the reason and the queue id of such a capsule.
    ``mailed`` has the archive ids that the archive transport has delivered; it is
    filled only without a store, since a store's journal is the better evidence.
    """

    def __init__(self, *, has_store: bool) -> None:
        self.ends: dict[str, tuple[str, str]] = {}
        self.mailed: set[str] = set()
        self._has_store = has_store
        self._archive_ids: dict[str, str] = {}  # queue id: archive id
        self._queue_ids: dict[str, str] = {}  # archive id: queue id

    @property
    def queue_ids(self) -> Collection[str]:
        """The queue ids of all that are in the queue."""
        return self._archive_ids

    def has(self, queue_id: str) -> bool:
        """Return whether a queue file is a capsule or other mail of our own."""
        return queue_id in self._archive_ids

    def queue_id(self, archive_id: str) -> str:
        """Return the queue id of a capsule in the queue, "" if there is none."""
        return self._queue_ids.get(archive_id, "")

    def is_settled(self, archive_id: str) -> bool:
        """Return whether no capsule with this id waits or was lost."""
        return archive_id not in self._queue_ids and archive_id not in self.ends

    def add(self, queue_id: str) -> None:
        """Add a queue file that is not mail from outside."""
        self._archive_ids[queue_id] = ""

    def read_message_id(self, queue_id: str, text: str) -> bool:
        """Read the log text with a Message-ID; return whether the file is ours."""
        if queue_id not in self._archive_ids:
            return False
        match = CAPSULE_MESSAGE_ID.match(text)
        if match is not None:
            self._archive_ids[queue_id] = match.group(1)
            self._queue_ids[match.group(1)] = queue_id
        return True

    def rename(self, old_id: str, new_id: str) -> bool:
        """Change a queue id after postsuper -r; return whether the old one is known."""
        if old_id not in self._archive_ids:
            return False
        archive_id = self._archive_ids[new_id] = self._archive_ids.pop(old_id)
        if archive_id:
            self._queue_ids[archive_id] = new_id
        return True

    def remove(self, queue_id: str) -> None:
        """Drop a queue file that was removed, as after the last delivery."""
        archive_id = self._archive_ids.pop(queue_id, "")
        if self._queue_ids.get(archive_id) == queue_id:
            del self._queue_ids[archive_id]

    def note_deleted(self, queue_id: str) -> None:
        """Note that postsuper -d deleted it."""
        self._set_end(queue_id, DELETED)
        self.remove(queue_id)

    def note_expired(self, queue_id: str) -> None:
        """Note that it expired in the queue."""
        self._set_end(queue_id, EXPIRED)

    def read_attempt(self, queue_id: str, text: str) -> None:
        """Read the log text of a delivery attempt."""
        if not self._archive_ids.get(queue_id):
            return
        attempt = delivery.parse(text)
        if attempt is None or attempt.status != "sent":
            return
        if report.FALLBACK in report.parse(attempt.reply).alarms:
            self._set_end(queue_id, RESCUED)
        elif attempt.relay == ARCHIVE_TRANSPORT:
            self.ends.pop(self._archive_ids[queue_id], None)
            if not self._has_store:
                self.mailed.add(self._archive_ids[queue_id])
        elif not attempt.relay.startswith(ARCHIVE_TRANSPORT):
            self._set_end(queue_id, f"sent to {attempt.relay}")

    def _set_end(self, queue_id: str, reason: str) -> None:
        archive_id = self._archive_ids.get(queue_id)
        if archive_id:
            self.ends[archive_id] = (reason, queue_id)
