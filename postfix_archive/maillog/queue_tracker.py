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

from postfix_archive.maillog import delivery, queue_file, report
from postfix_archive.maillog.delivery import Attempt
from postfix_archive.maillog.log_line import LogLine
from postfix_archive.maillog.queue_file import QueueFile, QueueFiles, RecipientEntry

PICKUP = "pickup"
CLIENT_PREFIX = "client="
ORIG_QUEUE_ID_FIELD = ", orig_queue_id="
ORIG_ID_FIELD = " orig_id="
MESSAGE_ID_PREFIX = "message-id=<"
LOCAL_CLIENTS = ("[127.", "[::1]", "[unknown]")
REINJECTION_SUFFIX = "/archive-handback"
EXPIRED_SUFFIX = "expired, returned to sender"  # also force-expired, by postsuper -e
DISCARD_PREFIXES = ("discard: ", "milter-discard: ")
# Mail of the archive itself.
ARCHIVE_SUFFIXES = ("/archive-capsule", "/archive-copy", "/archive-relay")
ARCHIVE_CLEANUP_SUFFIXES = tuple(f"{name}-cleanup" for name in ARCHIVE_SUFFIXES)


class QueueTracker:
    """Parses log lines one by one and links the queue files in them.

    ``unparsed_count`` counts lines that look like delivery attempts and are ambiguous.
    """

    def __init__(self, filters: tuple[str, ...] = ()) -> None:
        """Begin; filters are the content filters of this host, as transport:nexthop."""
        self.queue_files = QueueFiles()
        self.unparsed_count = 0
        self._filters = filters

    # --- log lines ------------------------------------------------------------------

    def process(self, line: LogLine, at: float) -> None:
        """Process one line, logged at this Unix time."""
        self.queue_files.now = max(self.queue_files.now, at)
        if line.service.endswith(ARCHIVE_CLEANUP_SUFFIXES):
            return
        if line.text.startswith(delivery.ATTEMPT_PREFIX):
            self._process_attempt(line, at)
            return
        handler = HANDLERS.get(line.daemon)
        if handler is not None:
            handler(self, line, at)

    def _process_client(self, line: LogLine, at: float) -> None:
        """A new queue file: smtpd(8) and qmqpd(8) log client=, pickup(8) logs uid=."""
        if line.daemon == PICKUP:
            if not line.text.startswith("uid="):
                return
        elif not line.text.startswith(CLIENT_PREFIX):
            if line.text.startswith("hold: "):
                self._set_held(line, at)
            return
        file = self.queue_files.begin(line.queue_id, at)
        file.came = line.daemon
        file.service = line.service
        file.is_aside = line.service.endswith(ARCHIVE_SUFFIXES)
        if line.daemon == PICKUP:
            file.is_local = True
            self._link_requeued(file, line.text)
            return
        client, _, origin = line.text.partition(ORIG_QUEUE_ID_FIELD)
        file.is_local = any(mark in client for mark in LOCAL_CLIENTS)
        if origin:
            self.queue_files.link_child(
                self.queue_files.current(origin.partition(",")[0]), file
            )

    def _link_requeued(self, file: QueueFile, text: str) -> None:
        """Parse ``uid=… from=<…> orig_id=…``; the sender cannot choose the end."""
        _, mark, old_queue_id = text.rpartition(ORIG_ID_FIELD)
        old_file = (
            self.queue_files.current(old_queue_id)
            if mark and old_queue_id.isalnum()
            else None
        )
        if old_file is not None and old_file.end == queue_file.REQUEUED:
            self.queue_files.link_child(old_file, file)

    def _process_cleanup(self, line: LogLine, at: float) -> None:
        """cleanup(8) logs the Message-ID, or a HOLD or DISCARD action."""
        if line.text.startswith("hold: ") or line.text.startswith("milter-hold: "):
            self._set_held(line, at)
        if line.text.startswith(DISCARD_PREFIXES):
            self.queue_files.get_or_begin(line.queue_id, at)
            self.queue_files.end(line.queue_id, queue_file.DISCARDED, at)
        if not line.text.startswith(MESSAGE_ID_PREFIX):
            return
        file = self.queue_files.current(line.queue_id)
        if file is None or file.end in queue_file.END_REASONS:
            # A bounce, or a message that local(8) forwards.
            file = self.queue_files.begin(line.queue_id, at)
        self.queue_files.set_message_id(file, line.text[len(MESSAGE_ID_PREFIX) - 1 :])

    def _process_qmgr(self, line: LogLine, at: float) -> None:
        """qmgr(8) logs that a message is active, expired or removed."""
        if line.text == "removed":
            self.queue_files.end(line.queue_id, queue_file.REMOVED, at)
        elif line.text.startswith("from=<"):
            file = self.queue_files.get_or_begin(line.queue_id, at)
            if line.text.endswith(EXPIRED_SUFFIX):
                # The sender chooses the end of a truncated line.
                file.expired = 0.0 if delivery.can_be_truncated(line.text) else at
            else:
                file.count = _parse_count(line.text.rpartition(", nrcpt=")[2])
            self.queue_files.touch(file)

    def _process_postsuper(self, line: LogLine, at: float) -> None:
        """postsuper(1) logs what the postmaster did with a queue file."""
        if line.text == "removed":
            self.queue_files.end(line.queue_id, queue_file.DELETED, at)
        elif line.text == "requeued":
            self.queue_files.end(line.queue_id, queue_file.REQUEUED, at)
        elif line.text == "placed on hold":
            self._set_held(line, at)
        elif line.text == "released from hold":
            file = self.queue_files.get_or_begin(line.queue_id, at)
            file.is_held = False
            self.queue_files.touch(file)

    def _set_held(self, line: LogLine, at: float) -> None:
        file = self.queue_files.get_or_begin(line.queue_id, at)
        file.is_held = True
        self.queue_files.touch(file)

    def _process_attempt(self, line: LogLine, at: float) -> None:
        """Any delivery agent: one delivery attempt for one recipient."""
        attempt = delivery.parse(line.text)
        if attempt is None:
            self.unparsed_count += 1
            return
        if attempt.status in ("deliverable", "undeliverable"):
            return  # address verification, sendmail -bv
        file = self.queue_files.get_or_begin(line.queue_id, at)
        original = attempt.original if attempt.original != attempt.recipient else ""
        entry = file.get_or_add_entry(attempt.recipient, original)
        entry.add(attempt, line.daemon, at)
        self._link_next(file, entry, attempt)
        self.queue_files.touch(file)

    # --- links ----------------------------------------------------------------------

    def _link_next(
        self, file: QueueFile, entry: RecipientEntry, attempt: Attempt
    ) -> None:
        """Record in which queue file of this host the delivery continues, if any."""
        if attempt.status != "sent":
            return
        queued_as = attempt.queued_as
        if entry.daemon in ("pipe", "lmtp") and delivery.is_stamp_filter(attempt.relay):
            queued_as = self._read_report(file, attempt)
        elif entry.daemon not in ("local", "smtp", "lmtp"):
            return
        elif entry.daemon != "local" and not self._is_local_relay(attempt.relay):
            return
        other = self.queue_files.current(queued_as) if queued_as else None
        if other is None or other is file or not self._can_follow(file, other, entry):
            return
        if other.key not in entry.links:
            entry.links.append(other.key)
        if not other.parent:
            other.parent = file.key
            self.queue_files.touch(other)

    def _can_follow(
        self, file: QueueFile, other: QueueFile, entry: RecipientEntry
    ) -> bool:
        """Tell whether a queue file can continue another one."""
        family = {"", file.key, *(before.key for before in self._ancestors(file))}
        if other.begun < file.begun or other.parent not in family:
            return False
        if entry.daemon == "local":
            return other.came == ""
        return other.came != "" and (other.is_local or other.parent != "")

    def _read_report(self, file: QueueFile, attempt: Attempt) -> str:
        """Read the stamp filter's report; return the queue id that it reports."""
        filter_report = report.parse(attempt.reply)
        if filter_report.archive_id:
            self.queue_files.set_archive_id(file, filter_report.archive_id)
        return filter_report.reinjected_as

    def _is_local_relay(self, relay: str) -> bool:
        """Tell whether a relay is on this host."""
        return delivery.is_local_relay(relay) or self.is_content_filter(relay)

    def is_content_filter(self, relay: str) -> bool:
        """Tell whether a relay, as logged, is a content filter."""
        return any(delivery.is_relay_of(each, relay) for each in self._filters)

    def reinjected_files(
        self, file: QueueFile, entry: RecipientEntry
    ) -> list[QueueFile]:
        """Return the queue files in which a filter reinjected this recipient's message.

        By the origin in their log lines, else by the Message-ID if only one matches. Of
        several, those with the recipient: a filter may reinject in pieces.
        """
        linked = self.queue_files.find_by_keys(entry.links)
        children = {
            child.key: child for child in (*linked, *self.reinjected_children(file))
        }
        if children:
            candidates = (
                _with_recipient(sorted(children.values(), key=_serial), entry.recipient)
                or linked
            )
            candidates = candidates or list(children.values())
            return list(self._until_next_filter(candidates, entry.recipient))
        same_message_id = [
            other
            for other in self.queue_files.find_same_message_id(file)
            if other.is_local
            and other.came
            and other.parent in ("", file.key)
            and other.begun >= file.begun
            and not other.archive_id
        ]
        same_message_id = (
            _with_recipient(same_message_id, entry.recipient) or same_message_id
        )
        return same_message_id if len(same_message_id) == 1 else []

    def _until_next_filter(
        self, files: list[QueueFile], recipient: str
    ) -> Iterator[QueueFile]:
        """Yield the queue files up to the next filter: that reinjects the others."""
        for file in files:
            yield file
            entries = file.entries_of(recipient)
            if any(self.is_content_filter(entry.relay) for entry in entries):
                return

    def reinjected_children(self, file: QueueFile) -> list[QueueFile]:
        """Return the reinjected queue files that name this one as their origin.

        Or one before it: smtp(8) passes on the orig_queue_id that it got itself. A
        message that postsuper -r requeued is not reinjected.
        """
        children = self.queue_files.find_by_keys(file.children)
        for ancestor in self._ancestors(file):
            children += [
                child
                for child in self.queue_files.find_by_keys(ancestor.children)
                if child.serial > file.serial
                and not child.service.endswith(REINJECTION_SUFFIX)
            ]
        return [child for child in children if child.came != PICKUP]

    def _ancestors(self, file: QueueFile) -> Iterator[QueueFile]:
        seen = {file.key}
        while file.parent and file.parent not in seen:
            seen.add(file.parent)
            parent = self.queue_files.by_key.get(file.parent)
            if parent is None:
                return
            yield parent
            file = parent

    def reachable_keys(self, file: QueueFile) -> set[str]:
        """Return the keys of this queue file and of all that continue it."""
        keys = {file.key}
        pending = [file]
        while pending:
            for other in self._next_files(pending.pop()):
                if other.key not in keys:
                    keys.add(other.key)
                    pending.append(other)
        return keys

    def _next_files(self, file: QueueFile) -> Iterator[QueueFile]:
        yield from self.queue_files.find_by_keys(file.children)
        for entry in file.entries:
            yield from self.queue_files.find_by_keys(entry.links)
            if self.is_content_filter(entry.relay):
                yield from self.reinjected_files(file, entry)


def _with_recipient(files: list[QueueFile], recipient: str) -> list[QueueFile]:
    """Return the queue files with a delivery attempt for a recipient."""
    return [file for file in files if file.entries_of(recipient)]


def _serial(file: QueueFile) -> int:
    return file.serial


def _parse_count(text: str) -> int:
    digits = text.partition(" ")[0]
    return int(digits) if digits.isdigit() and len(digits) < 10 else 0


HANDLERS: dict[str, Callable[[QueueTracker, LogLine, float], None]] = {
    "smtpd": QueueTracker._process_client,
    "qmqpd": QueueTracker._process_client,
    PICKUP: QueueTracker._process_client,
    "cleanup": QueueTracker._process_cleanup,
    "qmgr": QueueTracker._process_qmgr,
    "oqmgr": QueueTracker._process_qmgr,
    "postsuper": QueueTracker._process_postsuper,
}
