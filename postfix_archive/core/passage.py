"""Follows messages through the queue files of this host, by the mail log.

Used by outcomes.resolver and outcomes.follower. One queue file leads to another: the
stamp filter reinjects, a content filter reinjects, local(8) forwards, postsuper -r
requeues. Three things link them: the origin that the second one's log line names
(orig_queue_id=, orig_id=), the reply that the first one got (queued as, forwarded as),
and, for filters that log neither, the Message-ID. Only log lines of this host's own
daemons count: a queue id in a remote host's reply is not trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.core import delivery, queuefile, relays, trace
from postfix_archive.core.delivery import Attempt
from postfix_archive.core.logline import Line
from postfix_archive.core.queuefile import Entry, QueueFile
from postfix_archive.core.queuefiles import QueueFiles

PICKUP = "pickup"
CLIENT = "client="
ORIGIN = ", orig_queue_id="
REQUEUED_FROM = " orig_id="
MESSAGE_ID = "message-id=<"
ARCHIVED_AS = "archived as "
LOCAL_CLIENTS = ("[127.", "[::1]", "[unknown]")
HANDBACK = "/archive-handback"
EXPIRED = "expired, returned to sender"  # also force-expired, by postsuper -e
DISCARDED = ("discard: ", "milter-discard: ")
# Mail of the archive itself.
COPIES = ("/archive-capsule", "/archive-copy", "/archive-relay")
ASIDE = tuple(f"{name}-cleanup" for name in COPIES)


class Passage:
    """Parses log lines one by one and links the queue files in them.

    ``unparsed_count`` counts lines that look like delivery attempts and are ambiguous.
    """

    def __init__(self, filters: tuple[str, ...] = ()) -> None:
        """Begin; filters are the content filters of this host, as transport:nexthop."""
        self.queue = QueueFiles()
        self.not_understood = 0
        self._filters = filters

    # --- log lines ------------------------------------------------------------------

    def take(self, line: Line, at: float) -> None:
        """Process one line, logged at this Unix time."""
        self.queue.now = max(self.queue.now, at)
        if line.service.endswith(ASIDE):
            return
        if line.text.startswith(delivery.BEGINNING):
            self._attempted(line, at)
            return
        reader = READERS.get(line.daemon)
        if reader is not None:
            reader(self, line, at)

    def _taken(self, line: Line, at: float) -> None:
        """A new queue file: smtpd(8) and qmqpd(8) log client=, pickup(8) logs uid=."""
        if line.daemon == PICKUP:
            if not line.text.startswith("uid="):
                return
        elif not line.text.startswith(CLIENT):
            if line.text.startswith("hold: "):
                self._held(line, at)
            return
        file = self.queue.begin(line.queue_id, at)
        file.came = line.daemon
        file.service = line.service
        file.is_aside = line.service.endswith(COPIES)
        if line.daemon == PICKUP:
            file.is_local = True
            self._requeued_from(file, line.text)
            return
        client, _, rest = line.text.partition(ORIGIN)
        file.is_local = any(mark in client for mark in LOCAL_CLIENTS)
        if rest:
            self.queue.child(self.queue.current(rest.partition(",")[0]), file)

    def _requeued_from(self, file: QueueFile, text: str) -> None:
        """Parse ``uid=… from=<…> orig_id=…``; the sender cannot choose the end."""
        _, mark, before = text.rpartition(REQUEUED_FROM)
        old = self.queue.current(before) if mark and before.isalnum() else None
        if old is not None and old.end == queuefile.REQUEUED:
            self.queue.child(old, file)

    def _messaged(self, line: Line, at: float) -> None:
        """cleanup(8) logs the Message-ID, or a HOLD or DISCARD action."""
        if line.text.startswith("hold: ") or line.text.startswith("milter-hold: "):
            self._held(line, at)
        if line.text.startswith(DISCARDED):
            self.queue.get(line.queue_id, at)
            self.queue.end(line.queue_id, queuefile.DISCARDED, at)
        if not line.text.startswith(MESSAGE_ID):
            return
        file = self.queue.current(line.queue_id)
        if file is None or file.end in queuefile.ENDS:
            # A bounce, or a message that local(8) forwards.
            file = self.queue.begin(line.queue_id, at)
        self.queue.message_id(file, line.text[len(MESSAGE_ID) - 1 :])

    def _queued(self, line: Line, at: float) -> None:
        """qmgr(8) logs that a message is active, expired or removed."""
        if line.text == "removed":
            self.queue.end(line.queue_id, queuefile.REMOVED, at)
        elif line.text.startswith("from=<"):
            file = self.queue.get(line.queue_id, at)
            if line.text.endswith(EXPIRED):
                # The sender chooses the end of a truncated line.
                file.expired = 0.0 if delivery.may_be_cut(line.text) else at
            else:
                file.count = _number(line.text.rpartition(", nrcpt=")[2])
            self.queue.touch(file)

    def _superseded(self, line: Line, at: float) -> None:
        """postsuper(1) logs what the postmaster did with a queue file."""
        if line.text == "removed":
            self.queue.end(line.queue_id, queuefile.DELETED, at)
        elif line.text == "requeued":
            self.queue.end(line.queue_id, queuefile.REQUEUED, at)
        elif line.text == "placed on hold":
            self._held(line, at)
        elif line.text == "released from hold":
            file = self.queue.get(line.queue_id, at)
            file.is_held = False
            self.queue.touch(file)

    def _held(self, line: Line, at: float) -> None:
        file = self.queue.get(line.queue_id, at)
        file.is_held = True
        self.queue.touch(file)

    def _attempted(self, line: Line, at: float) -> None:
        """Any delivery agent: one delivery attempt for one recipient."""
        attempt = delivery.read(line.text)
        if attempt is None:
            self.not_understood += 1
            return
        if attempt.status in ("deliverable", "undeliverable"):
            return  # address verification, sendmail -bv
        file = self.queue.get(line.queue_id, at)
        original = attempt.original if attempt.original != attempt.recipient else ""
        entry = file.entry(attempt.recipient, original)
        entry.add(attempt, line.daemon, at)
        self._link(file, entry, attempt)
        self.queue.touch(file)

    # --- links ----------------------------------------------------------------------

    def _link(self, file: QueueFile, entry: Entry, attempt: Attempt) -> None:
        """Record in which queue file of this host the delivery continues, if any."""
        if attempt.status != "sent":
            return
        if entry.daemon in ("pipe", "lmtp") and relays.is_stamp(attempt.relay):
            self._captured(file, attempt)
        elif entry.daemon not in ("local", "smtp", "lmtp"):
            return
        elif entry.daemon != "local" and not self._is_here(attempt.relay):
            return
        other = self.queue.current(attempt.queued_as) if attempt.queued_as else None
        if other is None or other is file or not self._can_follow(file, other, entry):
            return
        if other.key not in entry.links:
            entry.links.append(other.key)
        if not other.parent:
            other.parent = file.key
            self.queue.touch(other)

    def _can_follow(self, file: QueueFile, other: QueueFile, entry: Entry) -> bool:
        """Tell whether a queue file can continue another one."""
        family = {"", file.key, *(before.key for before in self._ancestors(file))}
        if other.begun < file.begun or other.parent not in family:
            return False
        if entry.daemon == "local":
            return other.came == ""
        return other.came != "" and (other.is_local or other.parent != "")

    def _captured(self, file: QueueFile, attempt: Attempt) -> None:
        """Parse ``… archived as …; queued as …``, the same in pipe and lmtp mode."""
        _, mark, rest = attempt.reply.partition(ARCHIVED_AS)
        archive_id = rest[:49]
        if mark and trace.is_archive_id(archive_id):
            self.queue.captured(file, archive_id)

    def _is_here(self, relay: str) -> bool:
        """Tell whether a relay is on this host."""
        return relays.is_here(relay) or self.is_filter(relay)

    def is_filter(self, relay: str) -> bool:
        """Tell whether a relay, as logged, is a content filter."""
        return any(relays.is_same(each, relay) for each in self._filters)

    def came_back(self, file: QueueFile, entry: Entry) -> list[QueueFile]:
        """Return the queue files in which a filter reinjected this recipient's message.

        By the origin in their log lines, else by the Message-ID if only one matches. Of
        several, those with the recipient: a filter may reinject in pieces.
        """
        said = self.queue.named(entry.links)
        told = {child.key: child for child in (*said, *self.offspring(file))}
        if told:
            mine = _for(sorted(told.values(), key=_serial), entry.recipient) or said
            mine = mine or list(told.values())
            return list(self._up_to_next(mine, entry.recipient))
        alike = [
            other
            for other in self.queue.alike(file)
            if other.is_local
            and other.came
            and other.parent in ("", file.key)
            and other.begun >= file.begun
            and not other.archive_id
        ]
        alike = _for(alike, entry.recipient) or alike
        return alike if len(alike) == 1 else []

    def _up_to_next(
        self, files: list[QueueFile], recipient: str
    ) -> Iterator[QueueFile]:
        """Yield the queue files up to the next filter: that reinjects the others."""
        for file in files:
            yield file
            entries = file.entries_of(recipient)
            if any(self.is_filter(entry.relay) for entry in entries):
                return

    def offspring(self, file: QueueFile) -> list[QueueFile]:
        """Return the reinjected queue files that name this one as their origin.

        Or one before it: smtp(8) passes on the orig_queue_id that it got itself. A
        message that postsuper -r requeued is not reinjected.
        """
        found = self.queue.named(file.children)
        for before in self._ancestors(file):
            found += [
                child
                for child in self.queue.named(before.children)
                if child.serial > file.serial and not child.service.endswith(HANDBACK)
            ]
        return [child for child in found if child.came != PICKUP]

    def _ancestors(self, file: QueueFile) -> Iterator[QueueFile]:
        seen = {file.key}
        while file.parent and file.parent not in seen:
            seen.add(file.parent)
            before = self.queue.by_key.get(file.parent)
            if before is None:
                return
            yield before
            file = before

    def reached(self, file: QueueFile) -> set[str]:
        """Return the keys of this queue file and of all that continue it."""
        found = {file.key}
        left = [file]
        while left:
            for other in self._next(left.pop()):
                if other.key not in found:
                    found.add(other.key)
                    left.append(other)
        return found

    def _next(self, file: QueueFile) -> Iterator[QueueFile]:
        yield from self.queue.named(file.children)
        for entry in file.entries:
            yield from self.queue.named(entry.links)
            if self.is_filter(entry.relay):
                yield from self.came_back(file, entry)


def _for(files: list[QueueFile], recipient: str) -> list[QueueFile]:
    """Return the queue files with a delivery attempt for a recipient."""
    return [file for file in files if file.entries_of(recipient)]


def _serial(file: QueueFile) -> int:
    return file.serial


def _number(text: str) -> int:
    digits = text.partition(" ")[0]
    return int(digits) if digits.isdigit() and len(digits) < 10 else 0


READERS: dict[str, Callable[[Passage, Line, float], None]] = {
    "smtpd": Passage._taken,
    "qmqpd": Passage._taken,
    PICKUP: Passage._taken,
    "cleanup": Passage._messaged,
    "qmgr": Passage._queued,
    "oqmgr": Passage._queued,
    "postsuper": Passage._superseded,
}
