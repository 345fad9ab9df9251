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
from typing import Any

from postfix_archive.core import delivery, gates, queuefile, trace
from postfix_archive.core.delivery import Attempt
from postfix_archive.core.logline import Line
from postfix_archive.core.queuefile import Entry, QueueFile

CLIENT = "client="
ORIGIN = ", orig_queue_id="
REQUEUED_FROM = " orig_id="
MESSAGE_ID = "message-id=<"
ARCHIVED_AS = "archived as "
LOCAL_CLIENTS = ("[127.", "[::1]", "[unknown]")
LOOPBACK = ("[127.", "[::1]", "[private/", "[public/", "[/")
# Capsules and copies: mail of the archive itself.
COPIES = ("/archive-capsule", "/archive-copy", "/archive-relay")
ASIDE = tuple(f"{each}-cleanup" for each in COPIES)
LINGER = 600.0  # seconds for which what nobody asks for is kept: a link may come late


class Passage:
    """All queue files that the log has told of and that may matter still.

    ``changed`` are the keys of those that the last lines changed, and ``dropped`` those
    that were forgotten, for whoever writes them down. ``not_understood`` counts lines
    that look like delivery attempts and could not be read for sure.
    """

    def __init__(self, filters: tuple[str, ...] = ()) -> None:
        """Begin; filters are the content filters of this host, transport:nexthop."""
        self._filters = filters
        self.files: dict[str, QueueFile] = {}
        self.now = 0.0  # the newest time in the log
        self.changed: set[str] = set()
        self.dropped: set[str] = set()
        self.not_understood = 0
        self._current: dict[str, str] = {}  # queue id -> key
        self._by_message_id: dict[str, list[str]] = {}
        self._by_archive_id: dict[str, str] = {}
        self._serial = 0

    # --- what the log says ----------------------------------------------------------

    def take(self, line: Line, at: float) -> None:
        """Take in one line, written at that time (seconds since 1970)."""
        self.now = max(self.now, at)
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
        if line.daemon == "pickup":
            if not line.text.startswith("uid="):
                return
        elif not line.text.startswith(CLIENT):
            if line.text.startswith("hold: "):
                self._held(line, at)
            return
        file = self._new(line.queue_id, at)
        file.came = line.daemon
        file.service = line.service
        file.is_aside = line.service.endswith(COPIES)
        if line.daemon == "pickup":
            file.is_local = True
            self._requeued_from(file, line.text)
            return
        client, _, rest = line.text.partition(ORIGIN)
        file.is_local = any(mark in client for mark in LOCAL_CLIENTS)
        if rest:
            self._child(self.current(rest.partition(",")[0]), file)

    def _requeued_from(self, file: QueueFile, text: str) -> None:
        """``uid=… from=<…> orig_id=…``: postsuper -r; the sender cannot write the end."""
        _, mark, before = text.rpartition(REQUEUED_FROM)
        old = self.current(before) if mark and before.isalnum() else None
        if old is not None and old.end == queuefile.REQUEUED:
            self._child(old, file)

    def _messaged(self, line: Line, at: float) -> None:
        """cleanup(8) says the Message-ID, or that the message is on hold."""
        if line.text.startswith("hold: ") or line.text.startswith("milter-hold: "):
            self._held(line, at)
        if not line.text.startswith(MESSAGE_ID):
            return
        file = self.current(line.queue_id)
        if file is None or file.end in queuefile.ENDS:
            file = self._new(line.queue_id, at)  # of a bounce, or forwarded by local(8)
        file.message_id = line.text[len(MESSAGE_ID) - 1 :]
        self._by_message_id.setdefault(file.message_id, []).append(file.key)
        self._touch(file)

    def _queued(self, line: Line, at: float) -> None:
        """qmgr(8): it has the message, it gives up, it is done."""
        if line.text == "removed":
            self._ended(line.queue_id, queuefile.REMOVED, at)
        elif line.text.startswith("from=<"):
            file = self._file(line.queue_id, at)
            file.is_seen = True
            if line.text.endswith("expired, returned to sender"):
                file.expired = at
            else:
                file.count = _number(line.text.rpartition(", nrcpt=")[2])
            self._touch(file)

    def _superseded(self, line: Line, at: float) -> None:
        """postsuper(1), for the postmaster."""
        if line.text == "removed":
            self._ended(line.queue_id, queuefile.DELETED, at)
        elif line.text == "requeued":
            self._ended(line.queue_id, queuefile.REQUEUED, at)
        elif line.text == "placed on hold":
            self._held(line, at)
        elif line.text == "released from hold":
            file = self._file(line.queue_id, at)
            file.is_held = False
            self._touch(file)

    def _held(self, line: Line, at: float) -> None:
        file = self._file(line.queue_id, at)
        file.is_held = True
        self._touch(file)

    def _attempted(self, line: Line, at: float) -> None:
        """Any delivery agent: what became of one recipient."""
        attempt = delivery.read(line.text)
        if attempt is None:
            self.not_understood += 1
            return
        if attempt.status in ("deliverable", "undeliverable"):
            return  # a probe
        file = self._file(line.queue_id, at)
        original = attempt.original if attempt.original != attempt.recipient else ""
        entry = file.entry(attempt.recipient, original)
        entry.add(attempt, line.daemon, at)
        self._link(file, entry, attempt)
        self._touch(file)

    # --- links ----------------------------------------------------------------------

    def _link(self, file: QueueFile, entry: Entry, attempt: Attempt) -> None:
        """Note in which queue file of this host a recipient goes on, if in one."""
        if attempt.status != "sent":
            return
        if entry.daemon == "pipe" and attempt.relay.startswith(gates.STAMP):
            self._captured(file, attempt)
        elif entry.daemon not in ("local", "smtp", "lmtp"):
            return
        elif entry.daemon != "local" and not self._is_here(attempt):
            return
        other = self.current(attempt.queued_as) if attempt.queued_as else None
        if other is None or other is file or not self._can_follow(file, other, entry):
            return
        if other.key not in entry.links:
            entry.links.append(other.key)
        if not other.parent:
            other.parent = file.key
            self._touch(other)

    def _can_follow(self, file: QueueFile, other: QueueFile, entry: Entry) -> bool:
        """Tell whether a queue file can be what became of another one."""
        if other.begun < file.begun or other.parent not in ("", file.key):
            return False
        if entry.daemon == "local":
            return other.came == ""
        return other.came != "" and (other.is_local or other.parent == file.key)

    def _captured(self, file: QueueFile, attempt: Attempt) -> None:
        """``… (delivered via archive-stamp service (archived as …; queued as …))``"""
        _, mark, rest = attempt.reply.partition(ARCHIVED_AS)
        archive_id = rest[:49]
        if mark and trace.is_archive_id(archive_id):
            file.archive_id = archive_id
            self._by_archive_id[archive_id] = file.key

    def _is_here(self, attempt: Attempt) -> bool:
        """Tell whether the other side is on this host."""
        here = any(mark in attempt.relay for mark in LOOPBACK)
        return here or self.is_filter(attempt.relay)

    def is_filter(self, relay: str) -> bool:
        """Tell whether a relay, as a log line has it, is a content filter."""
        return any(_is_relay(each, relay) for each in self._filters)

    def came_back(self, file: QueueFile, entry: Entry) -> list[QueueFile]:
        """Return the queue files in which a filter gave this recipient's message back.

        By what they say of themselves, else by the Message-ID, when just one can be.
        """
        said = [self.files[key] for key in entry.links if key in self.files]
        if said:
            return said
        told = [self.files[key] for key in file.children if key in self.files]
        if told:
            return told
        alike = [
            self.files[key]
            for key in self._by_message_id.get(file.message_id, ())
            if key in self.files and key != file.key
        ]
        alike = [
            each
            for each in alike
            if each.is_local
            and each.came
            and each.parent in ("", file.key)
            and each.begun >= file.begun
            and not each.archive_id
        ]
        return alike if file.message_id and len(alike) == 1 else []

    # --- queue files ----------------------------------------------------------------

    def current(self, queue_id: str) -> QueueFile | None:
        """Return the newest queue file of that name, if the log told of one."""
        return self.files.get(self._current.get(queue_id, ""))

    def captured_as(self, archive_id: str) -> QueueFile | None:
        """Return the queue file of which the stamp filter made that capture."""
        return self.files.get(self._by_archive_id.get(archive_id, ""))

    def _file(self, queue_id: str, at: float) -> QueueFile:
        """Return the queue file; a log may begin in the middle of its life."""
        return self.current(queue_id) or self._new(queue_id, at)

    def _new(self, queue_id: str, at: float) -> QueueFile:
        self._serial += 1
        file = QueueFile(f"{queue_id}.{self._serial}", queue_id, at)
        self.files[file.key] = file
        self._current[queue_id] = file.key
        self._touch(file)
        return file

    def _child(self, parent: QueueFile | None, child: QueueFile) -> None:
        if parent is None or parent.begun > child.begun:
            return
        parent.children.append(child.key)
        child.parent = parent.key
        self._touch(parent)

    def _ended(self, queue_id: str, how: str, at: float) -> None:
        file = self.current(queue_id)
        if file is None or file.end in queuefile.ENDS:
            return
        file.end = how
        file.ended = at
        self._touch(file)
        if file.is_aside and how != queuefile.REQUEUED:
            self._drop(file)

    def _touch(self, file: QueueFile) -> None:
        self.changed.add(file.key)

    def forget(self, wanted: set[str]) -> None:
        """Drop what is gone for a while and not wanted (keys), nor leads to what is."""
        old = self.now - LINGER
        for key, file in list(self.files.items()):
            if key not in wanted and file.end in queuefile.ENDS and file.ended < old:
                self._drop(file)

    def reached(self, file: QueueFile) -> set[str]:
        """Return the keys of all queue files in which this one goes on, and its own."""
        found = {file.key}
        left = [file]
        while left:
            for key in self._next(left.pop()):
                if key not in found and key in self.files:
                    found.add(key)
                    left.append(self.files[key])
        return found

    def _next(self, file: QueueFile) -> Iterator[str]:
        yield from file.children
        for each in file.entries:
            yield from each.links
            if self.is_filter(each.relay):
                yield from (other.key for other in self.came_back(file, each))

    def _drop(self, file: QueueFile) -> None:
        del self.files[file.key]
        if self._current.get(file.queue_id) == file.key:
            del self._current[file.queue_id]
        alike = self._by_message_id.get(file.message_id, [])
        if file.key in alike:
            alike.remove(file.key)
            if not alike:
                del self._by_message_id[file.message_id]
        self._by_archive_id.pop(file.archive_id, None)
        self.changed.discard(file.key)
        self.dropped.add(file.key)

    # --- written down, and back ---------------------------------------------------------

    def words(self, key: str) -> dict[str, Any] | None:
        """Return one queue file in the types of JSON, None if it is forgotten."""
        file = self.files.get(key)
        return file.words() if file else None

    def load(self, told: dict[str, Any]) -> None:
        """Take in what words() gave; in the order in which the files began."""
        file = queuefile.from_words(told)
        self.files[file.key] = file
        self._current[file.queue_id] = file.key
        self._serial = max(self._serial, int(file.key.rpartition(".")[2]))
        self.now = max(self.now, file.begun, file.ended)
        if file.message_id:
            self._by_message_id.setdefault(file.message_id, []).append(file.key)
        if file.archive_id:
            self._by_archive_id[file.archive_id] = file.key


def _number(text: str) -> int:
    digits = text.partition(" ")[0]
    return int(digits) if digits.isdigit() and len(digits) < 10 else 0


def _is_relay(content_filter: str, relay: str) -> bool:
    """Tell whether ``smtp:[127.0.0.1]:10024`` is logged as ``127.0.0.1[…]:10024``."""
    transport, _, nexthop = content_filter.partition(":")
    if relay == transport:
        return True
    place = nexthop.removeprefix("unix:").removeprefix("inet:")
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        return bool(place) and relay.endswith(f"[{place}]")
    name, _, rest = relay.partition("[")
    bare = host.strip("[]")
    return relay.endswith(f"]:{port}") and bare in (name, rest.partition("]")[0])


READERS: dict[str, Callable[[Passage, Line, float], None]] = {
    "smtpd": Passage._taken,
    "qmqpd": Passage._taken,
    "pickup": Passage._taken,
    "cleanup": Passage._messaged,
    "qmgr": Passage._queued,
    "oqmgr": Passage._queued,
    "postsuper": Passage._superseded,
}
