"""One queue file as the mail log describes it: recipients, links, how it ended.

Used by maillog.queue_tracker. A short queue id names many queue files one after the
other: each is a QueueFile of its own here, with a key that is never used again.
as_dict() and from_dict() save and restore it, so that a reader of the log may be killed
at any time; the field names are keys of that saved state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from postfix_archive.maillog import delivery
from postfix_archive.maillog.delivery import Attempt

REMOVED = "removed"  # by qmgr(8), when delivery is complete
DELETED = "deleted"  # by postsuper -d
REQUEUED = "requeued"  # by postsuper -r: another queue file continues it
DISCARDED = "discarded"  # by a DISCARD action: accepted, but never queued
END_REASONS = (REMOVED, DELETED, REQUEUED, DISCARDED)


@dataclass
class RecipientEntry:
    """The last delivery attempt for one recipient of a queue file.

    ``links`` are the keys of queue files on this host that continue the delivery.
    ``at`` is Unix time. ``delivered``: local(8) delivered to a mailbox or command of
    this recipient.
    """

    recipient: str
    original: str
    daemon: str = ""
    relay: str = ""
    dsn: str = ""
    status: str = ""
    reply: str = ""
    at: float = 0.0
    tries: int = 0
    links: list[str] = field(default_factory=list)
    delivered: bool = False

    def add(self, attempt: Attempt, daemon: str, at: float) -> None:
        """Add a delivery attempt.

        local(8) may log status=sent twice, when .forward keeps a copy: one try, both
        count as deliveries.
        """
        self.tries += not (attempt.status == self.status == "sent")
        if daemon == "local" and attempt.status == "sent":
            self.delivered |= not attempt.reply.startswith(delivery.FORWARDED_AS)
        self.at = at
        self.daemon = daemon
        self.relay = attempt.relay
        self.dsn = attempt.dsn
        self.status = attempt.status
        self.reply = attempt.reply


@dataclass
class QueueFile:
    """One queue file; all times are Unix times.

    ``came`` is the daemon that received it (smtpd, qmqpd, pickup), "" if it was created
    on this host. ``is_local``: the client is on this host. ``is_aside``: mail of the
    archive itself (capsule or archive copy). ``parent`` is the key of the queue file
    that it continues, ``children`` those that name it as their origin. ``count`` is
    qmgr(8)'s number of recipients. ``end`` is one of END_REASONS or "", ``expired``
    when qmgr(8) returned it to the sender. ``is_told``: all outcomes are in the
    journals. ``archive_id`` is that of its capture, if the stamp filter captured it.
    """

    key: str
    queue_id: str
    begun: float = 0.0
    came: str = ""
    service: str = ""
    is_local: bool = False
    is_aside: bool = False
    parent: str = ""
    message_id: str = ""
    count: int = 0
    is_held: bool = False
    end: str = ""
    ended: float = 0.0
    expired: float = 0.0
    is_told: bool = False
    archive_id: str = ""
    entries: list[RecipientEntry] = field(default_factory=list)
    children: list[str] = field(default_factory=list)

    @property
    def serial(self) -> int:
        """Its number in the order in which queue files began."""
        return int(self.key.rpartition(".")[2])

    def get_or_add_entry(self, recipient: str, original: str) -> RecipientEntry:
        """Return the entry of a recipient; add one if there is none."""
        for entry in self.entries:
            if entry.recipient == recipient and entry.original == original:
                return entry
        self.entries.append(RecipientEntry(recipient, original))
        return self.entries[-1]

    def entries_of(self, address: str) -> list[RecipientEntry]:
        """Return the entries whose recipient or original recipient is this address."""
        return [
            entry
            for entry in self.entries
            if address in (entry.recipient, entry.original)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return all non-empty fields in JSON types."""
        fields = {name: value for name, value in vars(self).items() if value}
        fields["entries"] = [
            {name: value for name, value in vars(entry).items() if value}
            for entry in self.entries
        ]
        return fields


def from_dict(fields: dict[str, Any]) -> QueueFile:
    """Return the queue file that as_dict() saved."""
    entries = [
        RecipientEntry(**{"recipient": "", "original": "", **entry})
        for entry in fields.get("entries", ())
    ]
    return QueueFile(**{**fields, "entries": entries})


KEEP_ENDED = 600.0  # seconds: a later log line may still link to an ended queue file


class QueueFiles:
    """Queue files by key, queue id, Message-ID and archive id.

    ``changed_keys`` are those that changed since they were last saved, ``dropped_keys``
    those that were removed since. ``now`` is the latest Unix time in the log.
    """

    def __init__(self) -> None:
        self.by_key: dict[str, QueueFile] = {}
        self.changed_keys: set[str] = set()
        self.dropped_keys: set[str] = set()
        self.now = 0.0
        self._current: dict[str, str] = {}  # queue id -> key
        self._by_message_id: dict[str, list[str]] = {}
        self._by_archive_id: dict[str, str] = {}
        self._serial = 0

    def current(self, queue_id: str) -> QueueFile | None:
        """Return the newest queue file with a queue id, None if the log has none."""
        return self.by_key.get(self._current.get(queue_id, ""))

    def find_by_archive_id(self, archive_id: str) -> QueueFile | None:
        """Return the queue file that the stamp filter captured with this archive id."""
        return self.by_key.get(self._by_archive_id.get(archive_id, ""))

    def find_by_keys(self, keys: list[str]) -> list[QueueFile]:
        """Return the queue files with these keys that are still known."""
        return [self.by_key[key] for key in keys if key in self.by_key]

    def find_same_message_id(self, file: QueueFile) -> list[QueueFile]:
        """Return the other queue files with the same Message-ID."""
        if not file.message_id:
            return []
        keys = self._by_message_id.get(file.message_id, [])
        return self.find_by_keys([key for key in keys if key != file.key])

    def get_or_begin(self, queue_id: str, at: float) -> QueueFile:
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

    def end(self, queue_id: str, reason: str, at: float) -> None:
        """Record why (one of END_REASONS) and when a queue file ended."""
        file = self.current(queue_id)
        if file is None or file.end:
            return
        file.end = reason
        file.ended = at
        self.touch(file)
        if file.is_aside and reason != REQUEUED:
            self._drop(file)

    def touch(self, file: QueueFile) -> None:
        """Record that a queue file has changed."""
        self.changed_keys.add(file.key)

    def link_child(self, parent: QueueFile | None, child: QueueFile) -> None:
        """Link a queue file to the one that its own log line names as its origin."""
        if parent is None or parent.begun > child.begun:
            return
        parent.children.append(child.key)
        child.parent = parent.key
        self.touch(parent)

    def set_message_id(self, file: QueueFile, message_id: str) -> None:
        """Set the Message-ID of a queue file."""
        file.message_id = message_id
        self._by_message_id.setdefault(message_id, []).append(file.key)
        self.touch(file)

    def set_archive_id(self, file: QueueFile, archive_id: str) -> None:
        """Set the archive id of a queue file that the stamp filter captured."""
        file.archive_id = archive_id
        self._by_archive_id[archive_id] = file.key
        self.touch(file)

    def prune(self, needed_keys: set[str]) -> None:
        """Remove what ended KEEP_ENDED seconds ago, except the needed keys."""
        limit = self.now - KEEP_ENDED
        for key, file in list(self.by_key.items()):
            if key not in needed_keys and file.end and file.ended < limit:
                self._drop(file)

    def as_dict(self, key: str) -> dict[str, Any] | None:
        """Return one queue file in JSON types, None if it has been removed."""
        file = self.by_key.get(key)
        return file.as_dict() if file else None

    def restore(self, fields: dict[str, Any]) -> None:
        """Restore a queue file that as_dict() saved; call in the order of beginning."""
        file = from_dict(fields)
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
        self.changed_keys.discard(file.key)
        self.dropped_keys.add(file.key)
