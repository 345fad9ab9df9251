"""One queue file as the mail log describes it, and the table of all that are known.

Used by maillog.queue_model and its readers. A short queue id names many queue files one
after the other: each is a QueueFile of its own here, with a key that is never used
again. as_dict() and from_dict() save and restore it, so that a reader of the log may be
killed at any time; the field names are keys of that saved state
(outcomes.follower_state, STATE_VERSION).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from postfix_archive.maillog import delivery
from postfix_archive.maillog.delivery import Attempt
from postfix_archive.postfix import archive_services

REMOVED = "removed"  # by qmgr(8), when delivery is complete
DELETED = "deleted"  # by postsuper -d
REQUEUED = "requeued"  # by postsuper -r: another queue file continues it
DISCARDED = "discarded"  # by a DISCARD action: accepted, but never queued
REJECTED = "rejected"  # by cleanup(8), or the client went away: never accepted

PICKUP, CLEANUP = "pickup", "cleanup"
RECEIVING_DAEMONS = ("smtpd", "qmqpd", PICKUP)


@dataclass(slots=True)
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


@dataclass(slots=True)
class QueueFile:
    """One queue file; all times are Unix times.

    ``daemon`` is the one that received it: smtpd, qmqpd or pickup; cleanup, if Postfix
    made it (a bounce, mail that local(8) forwards); "", if the log begins after it did.
    ``service`` (syslog_name) and ``pid`` are that daemon's. ``client`` is its IP
    address, or uid=N. ``is_local``: it is on this host. ``is_archive_mail``: a capsule
    or archive copy; ``capsule_id`` is the archive id of a capsule. ``orig_queue_id`` is
    the origin that its own line names, ``parent`` the key of the queue file that it
    continues, ``children`` are those that name it as their origin. ``is_queued``:
    qmgr(8) has seen it. ``count`` is qmgr(8)'s number of recipients. ``action_text``
    and ``discard_text`` are log texts of FILTER, REDIRECT and DISCARD actions;
    ``is_discard_uncertain``: perhaps of another message. ``relay`` is that of its first
    delivery other than to the stamp filter. ``end`` is why it ended or "", ``expired``
    when qmgr(8) returned it to the sender. ``is_settled``: all outcomes are in the
    journals.

    ``is_captured``: delivered to the stamp filter, which reported ``archive_ids``.
    ``is_reported``: a stamp filter has reported that it reinjected this one.
    """

    key: str
    queue_id: str
    begun: float = 0.0
    daemon: str = ""
    service: str = ""
    pid: str = ""
    client: str = ""
    is_local: bool = False
    is_archive_mail: bool = False
    capsule_id: str = ""
    orig_queue_id: str = ""
    parent: str = ""
    message_id: str = ""
    sender: str = ""
    count: int = 0
    is_queued: bool = False
    is_held: bool = False
    is_probe: bool = False  # address verification: no mail
    action_text: str = ""
    discard_text: str = ""
    is_discard_uncertain: bool = False
    relay: str = ""
    is_content_filtered: bool = False  # sent to a content filter other than ours
    is_captured: bool = False
    has_failed_capture: bool = False  # a delivery to the stamp filter failed
    has_unreadable_report: bool = False  # an ambiguous line, perhaps of a stamp filter
    is_reported: bool = False
    end: str = ""
    ended: float = 0.0
    expired: float = 0.0
    is_settled: bool = False
    archive_ids: list[str] = field(default_factory=list)
    entries: dict[tuple[str, str], RecipientEntry] = field(default_factory=dict)
    children: list[str] = field(default_factory=list)

    @property
    def serial(self) -> int:
        """Its number in the order in which queue files began."""
        return int(self.key.rpartition(".")[2])

    @property
    def first_queue_id(self) -> str:
        """The queue id with which it began; postsuper(1) may rename it at start."""
        return self.key.rpartition(".")[0]

    @property
    def archive_id(self) -> str:
        """The archive id of its last capture, "" if there is none."""
        return self.archive_ids[-1] if self.archive_ids else ""

    @property
    def is_received(self) -> bool:
        """True if Postfix received it; false if it made it, or it is unknown."""
        return self.daemon in RECEIVING_DAEMONS

    @property
    def is_reinjected(self) -> bool:
        """True if it arrived at one of the archive's reinjection ports."""
        return self.service.endswith(archive_services.REINJECTION_SUFFIXES)

    def get_or_add_entry(self, recipient: str, original: str) -> RecipientEntry:
        """Return the entry of a recipient; add one if there is none."""
        entry = self.entries.get((recipient, original))
        if entry is None:
            entry = RecipientEntry(recipient, original)
            self.entries[recipient, original] = entry
        return entry

    def entries_of(self, address: str) -> list[RecipientEntry]:
        """Return the entries whose recipient or original recipient is this address."""
        return [entry for key, entry in self.entries.items() if address in key]

    def as_dict(self) -> dict[str, Any]:
        """Return all non-empty fields in JSON types."""
        values = _non_empty_fields(self, FILE_FIELDS)
        values["entries"] = [
            _non_empty_fields(entry, ENTRY_FIELDS) for entry in self.entries.values()
        ]
        return values


FILE_FIELDS = tuple(each.name for each in fields(QueueFile))
ENTRY_FIELDS = tuple(each.name for each in fields(RecipientEntry))


def _non_empty_fields(item: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(item, name))}


def from_dict(values: dict[str, Any]) -> QueueFile:
    """Return the queue file that as_dict() saved."""
    file = QueueFile(**{**values, "entries": {}})
    for saved in values.get("entries", ()):
        entry = RecipientEntry(**{"recipient": "", "original": "", **saved})
        file.entries[entry.recipient, entry.original] = entry
    return file


KEEP_ENDED = 600.0  # seconds: a later log line may still link to an ended queue file
# Queue files that qmgr(8) has not seen: some it never sees, and only the newest count.
MAX_INCOMING = 50_000


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
        self._incoming: dict[str, None] = {}  # keys of those not seen by qmgr(8)
        self._ended: deque[tuple[float, str]] = deque()  # when, key
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

    def find_by_message_id(self, message_id: str) -> list[QueueFile]:
        """Return the queue files with a Message-ID, in the order of its log lines."""
        return self.find_by_keys(self._by_message_id.get(message_id, []))

    def find_same_message_id(self, file: QueueFile) -> list[QueueFile]:
        """Return the other queue files with the same Message-ID."""
        files = self.find_by_message_id(file.message_id)
        return [other for other in files if other is not file]

    def get_or_begin(self, queue_id: str, at: float) -> QueueFile:
        """Return the current queue file; begin one if the log starts after it did."""
        return self.current(queue_id) or self.begin(queue_id, at)

    def begin(self, queue_id: str, at: float) -> QueueFile:
        """Return a new queue file with this queue id, begun at this Unix time."""
        earlier = self.current(queue_id)
        if earlier is not None and not earlier.end:  # the log lacks the line of its end
            self.end(earlier, REMOVED if earlier.is_queued else REJECTED, at)
        self._serial += 1
        file = QueueFile(f"{queue_id}.{self._serial}", queue_id, at)
        self.by_key[file.key] = file
        self._current[queue_id] = file.key
        self.touch(file)
        self._add_incoming(file)
        return file

    def _add_incoming(self, file: QueueFile) -> None:
        self._incoming[file.key] = None
        if len(self._incoming) > MAX_INCOMING:
            oldest = self.by_key[next(iter(self._incoming))]
            self.end(oldest, REJECTED, self.now)

    def set_queued(self, file: QueueFile) -> None:
        """Record that qmgr(8) has seen a queue file: Postfix has accepted it."""
        file.is_queued = True
        self._incoming.pop(file.key, None)
        self.touch(file)

    def set_held(self, file: QueueFile) -> None:
        """Record that a queue file is on hold, where qmgr(8) does not see it."""
        file.is_held = True
        self._incoming.pop(file.key, None)
        self.touch(file)

    def end(self, file: QueueFile, reason: str, at: float) -> None:
        """Record why and when a queue file ended."""
        if file.end:
            return
        file.end = reason
        file.ended = at
        self._incoming.pop(file.key, None)
        self._ended.append((at, file.key))
        self.touch(file)
        if file.is_archive_mail and reason != REQUEUED:
            self.drop(file)

    def undo_end(self, file: QueueFile) -> None:
        """Record that a queue file has not ended."""
        file.end, file.ended = "", 0.0
        self._add_incoming(file)
        self.touch(file)

    def rename(self, file: QueueFile, queue_id: str) -> None:
        """Give a queue file another queue id; the first one still finds it."""
        file.queue_id = queue_id
        self._current[queue_id] = file.key
        self.touch(file)

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
        if message_id:
            self._by_message_id.setdefault(message_id, []).append(file.key)
        self.touch(file)

    def add_archive_id(self, file: QueueFile, archive_id: str) -> None:
        """Add an archive id with which the stamp filter captured a queue file."""
        if archive_id not in file.archive_ids:
            file.archive_ids.append(archive_id)
        self._by_archive_id[archive_id] = file.key
        self.touch(file)

    def take_ended(self, age: float) -> Iterator[QueueFile]:
        """Yield each queue file that ended more than age seconds ago, once.

        The caller drops it or puts it back.
        """
        limit = self.now - age
        while self._ended and self._ended[0][0] < limit:
            file = self.by_key.get(self._ended.popleft()[1])
            if file is not None and file.end:
                yield file

    def put_back(self, file: QueueFile) -> None:
        """Let take_ended() yield a queue file again, as if it had ended now."""
        self._ended.append((self.now, file.key))

    def prune(self, needed_keys: set[str]) -> None:
        """Remove what ended KEEP_ENDED seconds ago, except the needed keys."""
        for file in list(self.take_ended(KEEP_ENDED)):
            if file.key in needed_keys:
                self._ended.appendleft((file.ended, file.key))
            else:
                self.drop(file)

    def as_dict(self, key: str) -> dict[str, Any] | None:
        """Return one queue file in JSON types, None if it has been removed."""
        file = self.by_key.get(key)
        return file.as_dict() if file else None

    def restore(self, file: QueueFile) -> None:
        """Add a queue file that was saved; call in the order of beginning."""
        self.by_key[file.key] = file
        for queue_id in (file.first_queue_id, file.queue_id):
            self._current[queue_id] = file.key
        self._serial = max(self._serial, file.serial)
        self.now = max(self.now, file.begun, file.ended)
        if file.message_id:
            self._by_message_id.setdefault(file.message_id, []).append(file.key)
        for archive_id in file.archive_ids:
            self._by_archive_id[archive_id] = file.key
        if file.end:
            self._ended.append((file.ended, file.key))
        elif not (file.is_queued or file.is_held):
            self._incoming[file.key] = None

    def drop(self, file: QueueFile) -> None:
        """Remove a queue file about which the log says no more."""
        del self.by_key[file.key]
        self._incoming.pop(file.key, None)
        for queue_id in {file.first_queue_id, file.queue_id}:
            if self._current.get(queue_id) == file.key:
                del self._current[queue_id]
        keys = self._by_message_id.get(file.message_id, [])
        if file.key in keys:
            keys.remove(file.key)
            if not keys:
                del self._by_message_id[file.message_id]
        for archive_id in file.archive_ids:
            if self._by_archive_id.get(archive_id) == file.key:
                del self._by_archive_id[archive_id]
        self.changed_keys.discard(file.key)
        self.dropped_keys.add(file.key)
