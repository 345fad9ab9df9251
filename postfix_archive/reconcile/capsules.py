"""The capsules in the mail log, by archive id, and what became of each.

Used by reconcile/log_scan. A capsule is known by the Message-ID that the stamp filter
gives it, which counts only for queue files from one of the archive's own services.
"""

from __future__ import annotations

from postfix_archive.maillog import queue_file, report
from postfix_archive.maillog.queue_file import QueueFile

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
        self._queued: dict[str, QueueFile] = {}  # by archive id

    def queue_id(self, archive_id: str) -> str:
        """Return the queue id of a capsule in the queue, "" if there is none."""
        file = self._queued.get(archive_id)
        return file.queue_id if file is not None else ""

    def is_settled(self, archive_id: str) -> bool:
        """Return whether no capsule with this id waits or was lost."""
        return archive_id not in self._queued and archive_id not in self.ends

    def update(self, file: QueueFile) -> None:
        """Take over what the log has just said about a queue file of the archive."""
        archive_id = file.capsule_id
        if not archive_id or file.end == queue_file.REQUEUED:
            return
        reason = _loss_reason(file)
        if reason:
            self.ends[archive_id] = (reason, file.queue_id)
        elif _is_archived(file):
            self.ends.pop(archive_id, None)
            if not self._has_store:
                self.mailed.add(archive_id)
        queued = self._queued.get(archive_id)
        if not file.end and (queued is None or queued.serial < file.serial):
            self._queued[archive_id] = file  # postsuper -r: the newer one continues it
        elif file.end and queued is file:
            del self._queued[archive_id]


def _is_archived(file: QueueFile) -> bool:
    return any(
        entry.status == "sent" and entry.relay == ARCHIVE_TRANSPORT
        for entry in file.entries.values()
    )


def _loss_reason(file: QueueFile) -> str:
    """Return why a capsule is not archived, "" if it is or waits."""
    for entry in file.entries.values():
        if entry.status != "sent":
            continue
        if report.FALLBACK in report.parse(entry.reply).alarms:
            return RESCUED
        if not entry.relay.startswith(ARCHIVE_TRANSPORT):
            return f"sent to {entry.relay}"
    if _is_archived(file):
        return ""
    if file.end == queue_file.DELETED:
        return DELETED
    return EXPIRED if file.expired else ""
