"""All queue files in the mail log that may still matter.

Used by maillog.queue_tracker (adds), outcomes.resolver (reads) and
outcomes.follower_state (saves).
"""

from __future__ import annotations

from typing import Any

from postfix_archive.core import queuefile
from postfix_archive.core.queuefile import QueueFile

LINGER = 600.0  # seconds: a later log line may still link to an ended queue file


class QueueFiles:
    """Queue files by key, queue id, Message-ID and archive id.

    ``changed_keys`` are those that changed since they were last saved, ``dropped_keys``
    those that were removed since. ``now`` is the latest Unix time in the log.
    """

    def __init__(self) -> None:
        self.by_key: dict[str, QueueFile] = {}
        self.changed: set[str] = set()
        self.dropped: set[str] = set()
        self.now = 0.0
        self._current: dict[str, str] = {}  # queue id -> key
        self._by_message_id: dict[str, list[str]] = {}
        self._by_archive_id: dict[str, str] = {}
        self._serial = 0

    def current(self, queue_id: str) -> QueueFile | None:
        """Return the newest queue file with a queue id, None if the log has none."""
        return self.by_key.get(self._current.get(queue_id, ""))

    def captured_as(self, archive_id: str) -> QueueFile | None:
        """Return the queue file that the stamp filter captured with this archive id."""
        return self.by_key.get(self._by_archive_id.get(archive_id, ""))

    def named(self, keys: list[str]) -> list[QueueFile]:
        """Return the queue files with these keys that are still known."""
        return [self.by_key[key] for key in keys if key in self.by_key]

    def alike(self, file: QueueFile) -> list[QueueFile]:
        """Return the other queue files with the same Message-ID."""
        if not file.message_id:
            return []
        keys = self._by_message_id.get(file.message_id, [])
        return self.named([key for key in keys if key != file.key])

    def get(self, queue_id: str, at: float) -> QueueFile:
        """Return the current queue file; begin one if the log starts after it did."""
        return self.current(queue_id) or self.begin(queue_id, at)

    def begin(self, queue_id: str, at: float) -> QueueFile:
        """Return a new queue file with this queue id, begun at this Unix time."""
        self._serial += 1
        file = QueueFile(f"{queue_id}.{self._serial}", queue_id, at)
        self.by_key[file.key] = file
        self._current[queue_id] = file.key
        self.touch(file)
        return file

    def end(self, queue_id: str, how: str, at: float) -> None:
        """Record why (one of END_REASONS) and when a queue file ended."""
        file = self.current(queue_id)
        if file is None or file.end:
            return
        file.end = how
        file.ended = at
        self.touch(file)
        if file.is_aside and how != queuefile.REQUEUED:
            self._drop(file)

    def touch(self, file: QueueFile) -> None:
        """Record that a queue file has changed."""
        self.changed.add(file.key)

    def child(self, parent: QueueFile | None, child: QueueFile) -> None:
        """Link a queue file to the one that its own log line names as its origin."""
        if parent is None or parent.begun > child.begun:
            return
        parent.children.append(child.key)
        child.parent = parent.key
        self.touch(parent)

    def message_id(self, file: QueueFile, message_id: str) -> None:
        """Set the Message-ID of a queue file."""
        file.message_id = message_id
        self._by_message_id.setdefault(message_id, []).append(file.key)
        self.touch(file)

    def captured(self, file: QueueFile, archive_id: str) -> None:
        """Set the archive id of a queue file that the stamp filter captured."""
        file.archive_id = archive_id
        self._by_archive_id[archive_id] = file.key
        self.touch(file)

    def forget(self, wanted: set[str]) -> None:
        """Remove what ended KEEP_ENDED seconds ago, except the needed keys."""
        old = self.now - LINGER
        for key, file in list(self.by_key.items()):
            if key not in wanted and file.end and file.ended < old:
                self._drop(file)

    def words(self, key: str) -> dict[str, Any] | None:
        """Return one queue file in JSON types, None if it has been removed."""
        file = self.by_key.get(key)
        return file.words() if file else None

    def load(self, told: dict[str, Any]) -> None:
        """Restore a queue file that as_dict() saved; call in the order of beginning."""
        file = queuefile.from_words(told)
        self.by_key[file.key] = file
        self._current[file.queue_id] = file.key
        self._serial = max(self._serial, file.serial)
        self.now = max(self.now, file.begun, file.ended)
        if file.message_id:
            self._by_message_id.setdefault(file.message_id, []).append(file.key)
        if file.archive_id:
            self._by_archive_id[file.archive_id] = file.key

    def _drop(self, file: QueueFile) -> None:
        del self.by_key[file.key]
        if self._current.get(file.queue_id) == file.key:
            del self._current[file.queue_id]
        keys = self._by_message_id.get(file.message_id, [])
        if file.key in keys:
            keys.remove(file.key)
            if not keys:
                del self._by_message_id[file.message_id]
        if self._by_archive_id.get(file.archive_id) == file.key:
            del self._by_archive_id[file.archive_id]
        self.changed.discard(file.key)
        self.dropped.add(file.key)
