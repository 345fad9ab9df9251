"""The model of queue files in the mail log: which one continues which.

Filled in by maillog.queue_tracker; read by outcomes, reconcile and doctor. One queue
file leads to another: the stamp filter reinjects, a content filter reinjects, local(8)
forwards, postsuper -r requeues. Three things link them: the origin that the second
one's log line names (orig_queue_id=, orig_id=), the reply that the first one got
(queued as, forwarded as), and, for filters that log neither, the Message-ID. Only log
lines of this host's own daemons count: a queue id in a remote host's reply is not
trusted.
"""

from __future__ import annotations

from collections.abc import Iterator

from postfix_archive.maillog import delivery, queue_file
from postfix_archive.maillog.queue_file import QueueFile, QueueFiles, RecipientEntry

# Seconds after which pipe(8) has killed a stamp filter process, so that it reports no
# more: archive-stamp_time_limit in master.cf.d/00-main.cf.
MAX_REPORT_DELAY = 1000.0


class QueueModel:
    """The queue files that the log names, and the links between them."""

    def __init__(self, filters: tuple[str, ...] = ()) -> None:
        """Begin; filters are the content filters of this host, as transport:nexthop."""
        self.queue_files = QueueFiles()
        self._filters = filters

    def link_next(self, file: QueueFile, entry: RecipientEntry, queue_id: str) -> None:
        """Record that the delivery of an entry continues in the file with an id."""
        other = self.queue_files.current(queue_id) if queue_id else None
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
        if other.begun < file.begun or other.is_archive_mail:
            return False
        if entry.daemon == "local":
            is_possible = not other.is_received
        else:
            is_possible = other.is_received and (
                other.is_local or other.parent != "" or self.is_filter(entry.relay)
            )
        if not is_possible or other.parent in ("", file.key):
            return is_possible
        return any(other.parent == each.key for each in self._ancestors(file))

    def is_filter(self, relay: str) -> bool:
        """Tell whether a relay, as logged, is the stamp filter or a content filter."""
        return delivery.is_stamp_filter(relay) or self.is_content_filter(relay)

    def is_content_filter(self, relay: str) -> bool:
        """Tell whether a relay, as logged, is a content filter."""
        return any(
            delivery.is_relay_of(content_filter, relay)
            for content_filter in self._filters
        )

    def can_be_reported(self, file: QueueFile) -> bool:
        """Tell whether a stamp filter may still report that it reinjected this one.

        A local user can name any origin, also one that stays in the queue for days.
        """
        is_recent = self.queue_files.now - file.begun < MAX_REPORT_DELAY
        return file.is_reinjected and not file.is_reported and is_recent

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
            and other.is_received
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
        message that postsuper -r requeued is not reinjected, nor is what came to a
        reinjection port of the archive and no stamp filter reports: any local user can
        name an origin there.
        """
        children = self.queue_files.find_by_keys(file.children)
        for ancestor in self._ancestors(file):
            children += [
                child
                for child in self.queue_files.find_by_keys(ancestor.children)
                if child.serial > file.serial and not child.is_reinjected
            ]
        return [
            child
            for child in children
            if child.daemon != queue_file.PICKUP
            and (child.is_reported or not child.is_reinjected)
        ]

    def first_file(self, file: QueueFile) -> QueueFile:
        """Return the queue file that a captured one continues, or itself.

        Content filters made it of that one, or postsuper -r. In native mode mail is
        captured behind content filters, and again after postsuper -r; only the first
        queue file has all recipients, as they were before this host's mappings.
        """
        for ancestor in self._ancestors(file):
            is_requeued = ancestor.end == queue_file.REQUEUED
            if not (is_requeued or ancestor.is_content_filtered):
                break
            file = ancestor
        return file

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
        for entry in file.entries.values():
            yield from self.queue_files.find_by_keys(entry.links)
            if self.is_content_filter(entry.relay):
                yield from self.reinjected_files(file, entry)


def _with_recipient(files: list[QueueFile], recipient: str) -> list[QueueFile]:
    """Return the queue files with a delivery attempt for a recipient."""
    return [file for file in files if file.entries_of(recipient)]


def _serial(file: QueueFile) -> int:
    return file.serial
