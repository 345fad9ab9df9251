"""Follows messages through the queue files of this host, as Postfix's log tells it.

Used by front/outcomes by way of resolving, and by nobody else. One queue file begets
another: the stamp filter hands back, a content filter re-injects, local(8) forwards,
postsuper -r requeues. Three things link them: what the second says of where it came
from (orig_queue_id=, orig_id=), what the first was told (queued as, forwarded as), and
for filters that say neither, the Message-ID. Only what a host's own daemons say
counts: a remote host that names a queue id of ours is not believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.core import delivery, gates, queuefile, relays, trace
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
# Capsules and copies: mail of the archive itself.
HANDBACK = "/archive-handback"
EXPIRED = "expired, returned to sender"  # also force-expired, by postsuper -e
DISCARDED = ("discard: ", "milter-discard: ")
COPIES = ("/archive-capsule", "/archive-copy", "/archive-relay")
ASIDE = tuple(f"{each}-cleanup" for each in COPIES)


class Passage:
    """Takes in the log, line by line, and links the queue files in it.

    ``not_understood`` counts lines that look like delivery attempts and could not be
    read for sure.
    """

    def __init__(self, filters: tuple[str, ...] = ()) -> None:
        """Begin; filters are the content filters of this host, transport:nexthop."""
        self.queue = QueueFiles()
        self.not_understood = 0
        self._filters = filters

    # --- what the log says ----------------------------------------------------------

    def take(self, line: Line, at: float) -> None:
        """Take in one line, written at that time (seconds since 1970)."""
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
        """smtpd(8) or qmqpd(8) names its client, pickup(8) a user: a new queue file."""
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
        """``uid=… from=<…> orig_id=…``; the sender cannot write the end."""
        _, mark, before = text.rpartition(REQUEUED_FROM)
        old = self.queue.current(before) if mark and before.isalnum() else None
        if old is not None and old.end == queuefile.REQUEUED:
            self.queue.child(old, file)

    def _messaged(self, line: Line, at: float) -> None:
        """cleanup(8) says the Message-ID, or that the message is on hold."""
        if line.text.startswith("hold: ") or line.text.startswith("milter-hold: "):
            self._held(line, at)
        if line.text.startswith(DISCARDED):
            self.queue.get(line.queue_id, at)
            self.queue.end(line.queue_id, queuefile.DISCARDED, at)
        if not line.text.startswith(MESSAGE_ID):
            return
        file = self.queue.current(line.queue_id)
        if file is None or file.end in queuefile.ENDS:
            # Of a bounce, or forwarded by local(8).
            file = self.queue.begin(line.queue_id, at)
        self.queue.message_id(file, line.text[len(MESSAGE_ID) - 1 :])

    def _queued(self, line: Line, at: float) -> None:
        """qmgr(8): it has the message, it gives up, it is done."""
        if line.text == "removed":
            self.queue.end(line.queue_id, queuefile.REMOVED, at)
        elif line.text.startswith("from=<"):
            file = self.queue.get(line.queue_id, at)
            if line.text.endswith(EXPIRED):
                # Of a cut line the sender has chosen the end.
                file.expired = 0.0 if delivery.may_be_cut(line.text) else at
            else:
                file.count = _number(line.text.rpartition(", nrcpt=")[2])
            self.queue.touch(file)

    def _superseded(self, line: Line, at: float) -> None:
        """postsuper(1), for the postmaster."""
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
        """Any delivery agent: what became of one recipient."""
        attempt = delivery.read(line.text)
        if attempt is None:
            self.not_understood += 1
            return
        if attempt.status in ("deliverable", "undeliverable"):
            return  # a probe
        file = self.queue.get(line.queue_id, at)
        original = attempt.original if attempt.original != attempt.recipient else ""
        entry = file.entry(attempt.recipient, original)
        entry.add(attempt, line.daemon, at)
        self._link(file, entry, attempt)
        self.queue.touch(file)

    # --- links ----------------------------------------------------------------------

    def _link(self, file: QueueFile, entry: Entry, attempt: Attempt) -> None:
        """Note in which queue file of this host a recipient goes on, if in one."""
        if attempt.status != "sent":
            return
        if entry.daemon == "pipe" and attempt.relay.startswith(gates.STAMP):
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
        """Tell whether a queue file can be what became of another one."""
        family = {"", file.key, *(each.key for each in self._ancestors(file))}
        if other.begun < file.begun or other.parent not in family:
            return False
        if entry.daemon == "local":
            return other.came == ""
        return other.came != "" and (other.is_local or other.parent != "")

    def _captured(self, file: QueueFile, attempt: Attempt) -> None:
        """``… (delivered via archive-stamp service (archived as …; queued as …))``"""
        _, mark, rest = attempt.reply.partition(ARCHIVED_AS)
        archive_id = rest[:49]
        if mark and trace.is_archive_id(archive_id):
            self.queue.captured(file, archive_id)

    def _is_here(self, relay: str) -> bool:
        """Tell whether the other side is on this host."""
        return relays.is_here(relay) or self.is_filter(relay)

    def is_filter(self, relay: str) -> bool:
        """Tell whether a relay, as a log line has it, is a content filter."""
        return any(relays.is_same(each, relay) for each in self._filters)

    def came_back(self, file: QueueFile, entry: Entry) -> list[QueueFile]:
        """Return the queue files in which a filter gave this recipient's message back.

        By what they say of themselves, else by the Message-ID, when just one can be.
        Of several those that have the recipient: a filter may give back in pieces.
        """
        said = self.queue.named(entry.links)
        told = {each.key: each for each in (*said, *self.offspring(file))}
        if told:
            mine = _for(sorted(told.values(), key=_serial), entry.recipient) or said
            mine = mine or list(told.values())
            return list(self._up_to_next(mine, entry.recipient))
        alike = [
            each
            for each in self.queue.alike(file)
            if each.is_local
            and each.came
            and each.parent in ("", file.key)
            and each.begun >= file.begun
            and not each.archive_id
        ]
        alike = _for(alike, entry.recipient) or alike
        return alike if len(alike) == 1 else []

    def _up_to_next(
        self, files: list[QueueFile], recipient: str
    ) -> Iterator[QueueFile]:
        """Give the queue files before the next filter: those after it are its own."""
        for each in files:
            yield each
            if any(self.is_filter(one.relay) for one in each.entries_of(recipient)):
                return

    def offspring(self, file: QueueFile) -> list[QueueFile]:
        """Return the queue files given back that say they come from this one.

        Or from one before it: smtp(8) hands on the queue id that it was told itself.
        What postsuper -r has requeued was given back by nobody.
        """
        found = self.queue.named(file.children)
        for before in self._ancestors(file):
            found += [
                each
                for each in self.queue.named(before.children)
                if each.serial > file.serial and not each.service.endswith(HANDBACK)
            ]
        return [each for each in found if each.came != PICKUP]

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
        """Return the keys of all queue files in which this one goes on, and its own."""
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
        for each in file.entries:
            yield from self.queue.named(each.links)
            if self.is_filter(each.relay):
                yield from self.came_back(file, each)


def _for(files: list[QueueFile], recipient: str) -> list[QueueFile]:
    """Return those in which a recipient was tried."""
    return [each for each in files if each.entries_of(recipient)]


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
