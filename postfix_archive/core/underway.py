"""The messages in Postfix's queue at one point in the log, by queue file.

Used by reconcile/log_scan. Tracks which queue files are one message, and drops a
message as soon as no later log line can concern it, so that memory does not grow with
the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator

from postfix_archive.core.accepted import Message

# Seconds of log time for which a message is kept after its last queue file was removed:
# the client that submitted it may log its queue id later.
LINGER = 120.0
# Messages with one Message-ID that a content filter may have reinjected.
NAMESAKES = 50
# Queue files that qmgr(8) has not seen: some it never sees, and only the newest count.
UNTAKEN = 50_000


class Underway:
    """The messages of the queue files known at ``now``.

    ``now`` is the time of the last log line, in seconds since 1970.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._open: dict[str, Message] = {}
        self._taken: dict[str, Message] = {}  # not yet seen by qmgr(8)
        self._lately: dict[str, Message] = {}  # queue file removed
        self._over: deque[tuple[float, Message]] = deque()
        self._named: dict[str, Message] = {}
        # Messages from this host with the Message-ID of an earlier message.
        self._back: dict[str, deque[Message]] = {}
        self._handed: dict[str, str] = {}  # orig_queue_id: queue id

    def open(self, queue_id: str) -> Message | None:
        """Return the message of a queue file that qmgr(8) has seen."""
        return self._open.get(queue_id)

    def taken(self, queue_id: str) -> Message | None:
        """Return the message of a queue file that qmgr(8) has not seen yet."""
        return self._taken.get(queue_id)

    def known(self, queue_id: str) -> Message | None:
        """Return the message of a queue file, also of one removed a moment ago."""
        found = self._open.get(queue_id) or self._taken.get(queue_id)
        return found or self._lately.get(queue_id)

    def begin(self, message: Message) -> None:
        """Add a message with a new queue file; short queue ids are reused."""
        self.close(message.queue_id)
        self._taken.pop(message.queue_id, None)
        self._taken[message.queue_id] = message
        if len(self._taken) > UNTAKEN:
            self.refuse(next(iter(self._taken)))

    def accept(self, queue_id: str) -> Message:
        """Mark an incoming message as accepted: qmgr(8) delivers it now."""
        message = self._taken.pop(queue_id)
        message.accepted = True
        self._open[queue_id] = message
        return message

    def refuse(self, queue_id: str) -> None:
        """Drop an incoming message that Postfix rejected."""
        message = self._taken.pop(queue_id, None)
        if message is not None:
            self._forget(message)

    def discard(self, message: Message) -> None:
        """Mark an incoming message as accepted and discarded by a rule."""
        if self._taken.get(message.queue_id) is message:
            self.accept(message.queue_id)
            self.close(message.queue_id)

    def at_cleanup(self, queue_id: str) -> Message | None:
        """Return the message that cleanup(8) writes; undo an uncertain DISCARD."""
        found = self._taken.get(queue_id) or self._open.get(queue_id)
        lately = self._lately.get(queue_id)
        if found is None and lately is not None and lately.unsure:
            lately.discarded, lately.unsure = "", False
            lately.accepted = False
            lately.files = 1
            self._taken[queue_id] = found = lately
        return found

    def close(self, queue_id: str) -> None:
        """Note that a queue file was removed."""
        message = self._open.pop(queue_id, None)
        if message is not None:
            message.root.files -= 1
            self._lately[message.queue_id] = message
            self._over.append((self.now, message))

    def rename(self, old: str, new: str) -> bool:
        """Change the queue id of a message; return whether the old one is known."""
        if old in self._taken:
            self.accept(old)
        message = self._open.pop(old, None)
        if message is None:
            return False
        message.root.ended = ""
        message.root.tried = False
        message.root.sent_on = self.now
        self._open[new] = message
        self._lately[message.queue_id] = message
        return True

    @property
    def names(self) -> Collection[str]:
        """The queue ids of all queue files that exist now."""
        return (*self._open, *self._taken)

    def identify(self, message: Message, message_id: str) -> None:
        """Set the Message-ID; a message from this host may be a reinjected one."""
        if message_id.endswith("=<>"):
            return
        message.message_id = message_id
        first = self._named.setdefault(message_id, message)
        if message.local and first is not message:
            back = self._back.setdefault(message_id, deque(maxlen=NAMESAKES))
            back.append(message)
            if first.root.filtered:
                self._bring_back(first, message)

    def filtered(self, message: Message) -> None:
        """Note a delivery to a content filter, which may have reinjected it already."""
        message.root.filtered = True
        for each in self._back.get(message.message_id, ()):
            self._bring_back(message, each)

    def _bring_back(self, first: Message, back: Message) -> None:
        both = first.root.stamped and back.root.stamped
        if back.into is None and not both and first.root is not back:
            back.by_name = True
            first.root.take_in(back)

    def part(self, message: Message) -> None:
        """Split off a message that was merged only by its Message-ID.

        Some mailers give one Message-ID to all messages that they send.
        """
        if message.by_name and message.root.stamped:
            message.root.files -= message.files
            message.into = None
        message.by_name = False

    def link(self, first: str, second: str) -> None:
        """Merge the messages of two queue files; the first is the older one."""
        older, newer = self.known(first), self.known(second)
        if older is not None and newer is not None:
            self._join(older, newer)

    def _join(self, older: Message, newer: Message) -> None:
        if older.root is not newer.root:
            older.root.take_in(newer.root)

    def handed_in(self, message: Message) -> None:
        """Remember a reinjected message until the stamp filter's log line names it."""
        if message.origin:
            self._handed[message.origin] = message.queue_id

    def claim_handed_in(self, queue_id: str) -> None:
        """Link the reinjected message where the filter's line is truncated."""
        self.link(queue_id, self._handed.get(queue_id, ""))

    def finished(self) -> Iterator[Message]:
        """Yield and drop the messages that no later log line can concern."""
        while self._over and self._over[0][0] + LINGER < self.now:
            _, message = self._over.popleft()
            if not message.root.is_over or self._is_in_hand(message):
                self._over.append((self.now, message))  # later lines may name it
                continue
            self._forget(message)
            if message.into is None and not message.is_given:
                message.is_given = True
                yield message

    def rest(self) -> Iterator[Message]:
        """Yield all messages that are left at the end of the log."""
        left = {id(each.root): each.root for _, each in self._over}
        for queue_id, each in self._open.items():
            each.root.now_in = queue_id
            left[id(each.root)] = each.root
        for each in left.values():
            if not each.is_given and not self._is_in_hand(each):
                yield each

    def _is_in_hand(self, message: Message) -> bool:
        """Return whether a stamp filter may still log that it reinjected this."""
        found = self.known(message.origin) if message.of_port else None
        return found is not None and not found.root.is_over

    def _forget(self, message: Message) -> None:
        self._handed.pop(message.queue_id, None)
        self._back.pop(message.message_id, None)
        for known, key in (
            (self._lately, message.queue_id),
            (self._named, message.message_id),
        ):
            if known.get(key) is message:
                del known[key]
