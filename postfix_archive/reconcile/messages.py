"""A message that Postfix accepted, and what the mail log says about it.

Filled in by reconcile/log_scan and classified by reconcile/causes. One message can have
several queue files, one after the other: the one in which it arrived, the one that the
stamp filter reinjected, the one that another content filter reinjected, and the one
after postsuper -r.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator

DELETED = "deleted"  # by postsuper -d
EXPIRED = "expired"


class Message:
    """A message, identified by the queue file in which it arrived.

    ``time`` is when it arrived and ``queued_time`` when it entered the queue last
    (postsuper -r requeues it), both in seconds since 1970. ``service`` (syslog_name)
    and ``daemon`` are as logged. ``archive_ids`` are those that the stamp filter
    logged.
    """

    __slots__ = (
        "is_accepted",
        "action_text",
        "archive_ids",
        "is_merged_by_message_id",
        "daemon",
        "discard_text",
        "end",
        "queue_file_count",
        "is_content_filtered",
        "merged_into",
        "is_yielded",
        "is_local",
        "message_id",
        "current_queue_id",
        "is_reinjected",
        "orig_queue_id",
        "pid",
        "queue_id",
        "recipient_count",
        "sender",
        "queued_time",
        "service",
        "is_stamped",
        "time",
        "has_failed_capture",
        "is_discard_uncertain",
        "relay",
    )

    def __init__(
        self, queue_id: str, time: float, service: str, daemon: str, pid: str
    ) -> None:
        self.queue_id = queue_id
        self.time = time
        self.queued_time = time
        self.service = service
        self.daemon = daemon
        self.pid = pid
        self.sender = ""
        self.recipient_count = 0
        self.message_id = ""
        self.is_local = False  # from this host, as mail that a content filter reinjects
        self.is_reinjected = False  # it arrived at a reinjection service
        self.orig_queue_id = ""  # orig_queue_id= as the client gave it (XFORWARD IDENT)
        self.is_accepted = False  # qmgr(8) has seen it, or a DISCARD rule matched
        self.queue_file_count = 1  # queue files that hold it now
        self.archive_ids: tuple[str, ...] = ()
        self.is_stamped = False  # a stamp filter has reinjected it
        self.has_failed_capture = False  # a delivery to the stamp filter failed
        self.is_content_filtered = False  # sent to another content filter
        self.action_text = ""  # log text of a FILTER or REDIRECT action
        self.discard_text = ""  # log text of a DISCARD action
        self.is_discard_uncertain = False  # perhaps of another message
        self.end = ""  # DELETED or EXPIRED, before it was archived
        self.relay = ""  # relay= of its first delivery other than to a stamp filter
        self.is_yielded = False  # pop_finished() has yielded it
        self.current_queue_id = ""  # of its queue file when the log ends
        self.merged_into: Message | None = None  # same message, older queue file
        self.is_merged_by_message_id = False  # merged by Message-ID alone

    @property
    def root(self) -> Message:
        """The message into which this one is merged; itself if it is not."""
        message = self
        while message.merged_into is not None:
            message = message.merged_into
        return message

    @property
    def has_left_queue(self) -> bool:
        """True if no queue file holds it any more."""
        return self.queue_file_count <= 0

    def add_archive_id(self, archive_id: str) -> None:
        """Add an archive id under which a stamp filter captured it."""
        if archive_id not in self.archive_ids:
            self.archive_ids += (archive_id,)

    def merge(self, other: Message) -> None:
        """Merge another message, which is the same one, into this one."""
        other.merged_into = self
        self.queue_file_count += other.queue_file_count
        for archive_id in other.archive_ids:
            self.add_archive_id(archive_id)
        self.is_stamped |= other.is_stamped
        self.has_failed_capture |= other.has_failed_capture
        self.is_content_filtered |= other.is_content_filtered
        self.is_accepted |= other.is_accepted
        self.action_text = self.action_text or other.action_text


# Seconds of log time for which a message is kept after its last queue file was removed:
# the client that submitted it may log its queue id later.
KEEP_SECONDS = 120.0
# Messages with one Message-ID that a content filter may have reinjected.
MAX_SAME_MESSAGE_ID = 50
# Queue files that qmgr(8) has not seen: some it never sees, and only the newest count.
MAX_INCOMING = 50_000


class MessageTracker:
    """The messages of the queue files known at ``now``.

    ``now`` is the time of the last log line, in seconds since 1970.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._queued: dict[str, Message] = {}
        self._incoming: dict[str, Message] = {}  # not yet seen by qmgr(8)
        self._recent: dict[str, Message] = {}  # queue file removed
        self._removed: deque[tuple[float, Message]] = deque()
        self._first_by_message_id: dict[str, Message] = {}
        # Messages from this host with the Message-ID of an earlier message.
        self._later_by_message_id: dict[str, deque[Message]] = {}

    def queued(self, queue_id: str) -> Message | None:
        """Return the message of a queue file that qmgr(8) has seen."""
        return self._queued.get(queue_id)

    def incoming(self, queue_id: str) -> Message | None:
        """Return the message of a queue file that qmgr(8) has not seen yet."""
        return self._incoming.get(queue_id)

    def find(self, queue_id: str) -> Message | None:
        """Return the message of a queue file, also of one removed a moment ago."""
        message = self._queued.get(queue_id) or self._incoming.get(queue_id)
        return message or self._recent.get(queue_id)

    def add(self, message: Message) -> None:
        """Add a message with a new queue file; short queue ids are reused."""
        self.remove(message.queue_id)
        self._incoming.pop(message.queue_id, None)
        self._incoming[message.queue_id] = message
        if len(self._incoming) > MAX_INCOMING:
            self.reject(next(iter(self._incoming)))

    def accept(self, queue_id: str) -> Message:
        """Mark an incoming message as accepted: qmgr(8) delivers it now."""
        message = self._incoming.pop(queue_id)
        message.is_accepted = True
        self._queued[queue_id] = message
        return message

    def reject(self, queue_id: str) -> None:
        """Drop an incoming message that Postfix rejected."""
        message = self._incoming.pop(queue_id, None)
        if message is not None:
            self._forget(message)

    def discard(self, message: Message) -> None:
        """Mark an incoming message as accepted and discarded by a rule."""
        if self._incoming.get(message.queue_id) is message:
            self.accept(message.queue_id)
            self.remove(message.queue_id)

    def in_cleanup(self, queue_id: str) -> Message | None:
        """Return the message that cleanup(8) writes; undo an uncertain DISCARD."""
        message = self._incoming.get(queue_id) or self._queued.get(queue_id)
        recent = self._recent.get(queue_id)
        if message is None and recent is not None and recent.is_discard_uncertain:
            recent.discard_text, recent.is_discard_uncertain = "", False
            recent.is_accepted = False
            recent.queue_file_count = 1
            self._incoming[queue_id] = message = recent
        return message

    def remove(self, queue_id: str) -> None:
        """Note that a queue file was removed."""
        message = self._queued.pop(queue_id, None)
        if message is not None:
            message.root.queue_file_count -= 1
            self._recent[message.queue_id] = message
            self._removed.append((self.now, message))

    def rename(self, old_id: str, new_id: str) -> bool:
        """Change the queue id of a message; return whether the old one is known."""
        if old_id in self._incoming:
            self.accept(old_id)
        message = self._queued.pop(old_id, None)
        if message is None:
            return False
        message.root.end = ""
        message.root.has_failed_capture = False
        message.root.queued_time = self.now
        self._queued[new_id] = message
        self._recent[message.queue_id] = message
        return True

    @property
    def queue_ids(self) -> Collection[str]:
        """The queue ids of all queue files that exist now."""
        return (*self._queued, *self._incoming)

    def set_message_id(self, message: Message, message_id: str) -> None:
        """Set the Message-ID; a message from this host may be a reinjected one."""
        if message_id.endswith("=<>"):
            return
        message.message_id = message_id
        first = self._first_by_message_id.setdefault(message_id, message)
        if message.is_local and first is not message:
            later = self._later_by_message_id.setdefault(
                message_id, deque(maxlen=MAX_SAME_MESSAGE_ID)
            )
            later.append(message)
            if first.root.is_content_filtered:
                self._merge_later(first, message)

    def note_content_filter(self, message: Message) -> None:
        """Note a delivery to a content filter, which may have reinjected it already."""
        message.root.is_content_filtered = True
        for later in self._later_by_message_id.get(message.message_id, ()):
            self._merge_later(message, later)

    def _merge_later(self, first: Message, later: Message) -> None:
        are_both_stamped = first.root.is_stamped and later.root.is_stamped
        if (
            later.merged_into is None
            and not are_both_stamped
            and first.root is not later
        ):
            later.is_merged_by_message_id = True
            first.root.merge(later)

    def split_off(self, message: Message) -> None:
        """Split off a message that was merged only by its Message-ID.

        Some mailers give one Message-ID to all messages that they send.
        """
        if message.is_merged_by_message_id and message.root.is_stamped:
            message.root.queue_file_count -= message.queue_file_count
            message.merged_into = None
        message.is_merged_by_message_id = False

    def link(self, older_id: str, newer_id: str) -> None:
        """Merge the messages of two queue files; the first is the older one."""
        older, newer = self.find(older_id), self.find(newer_id)
        if older is not None and newer is not None:
            self._merge(older, newer)

    def _merge(self, older: Message, newer: Message) -> None:
        if older.root is not newer.root:
            older.root.merge(newer.root)

    def pop_finished(self) -> Iterator[Message]:
        """Yield and drop the messages that no later log line can concern."""
        while self._removed and self._removed[0][0] + KEEP_SECONDS < self.now:
            _, message = self._removed.popleft()
            if not message.root.has_left_queue or self._is_claim_pending(message):
                self._removed.append((self.now, message))  # later lines may name it
                continue
            self._forget(message)
            if message.merged_into is None and not message.is_yielded:
                message.is_yielded = True
                yield message

    def remaining(self) -> Iterator[Message]:
        """Yield all messages that are left at the end of the log."""
        messages = {id(message.root): message.root for _, message in self._removed}
        for queue_id, message in self._queued.items():
            message.root.current_queue_id = queue_id
            messages[id(message.root)] = message.root
        for message in messages.values():
            if not message.is_yielded and not self._is_claim_pending(message):
                yield message

    def _is_claim_pending(self, message: Message) -> bool:
        """Return whether a stamp filter may still log that it reinjected this."""
        original = self.find(message.orig_queue_id) if message.is_reinjected else None
        return original is not None and not original.root.has_left_queue

    def _forget(self, message: Message) -> None:
        self._later_by_message_id.pop(message.message_id, None)
        for index, key in (
            (self._recent, message.queue_id),
            (self._first_by_message_id, message.message_id),
        ):
            if index.get(key) is message:
                del index[key]
