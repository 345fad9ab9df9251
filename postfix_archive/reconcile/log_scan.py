"""Finds the messages that Postfix accepted, and their captures, in the mail log.

Used by reconcile/reconciliation. Reads the log line by line into the model of queue
files and takes from it what is finished, so that memory does not grow with the log.
reconcile/totals checks whether the archive really has a message; reconcile/causes says
why it has not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from postfix_archive.maillog.queue_tracker import QueueTracker
from postfix_archive.reconcile import messages
from postfix_archive.reconcile.capsules import Capsules
from postfix_archive.reconcile.messages import Group, Message

# Seconds of log time for which a message is kept after its last queue file was removed:
# the client that submitted it may log its queue id later.
KEEP_SECONDS = 120.0


class LogScan:
    """Reads the log and yields the messages that were accepted.

    ``archiving_processes`` has, by service, daemon and pid, when mail from that process
    last reached a stamp filter. ``last_line_time`` is the Unix time of the last line
    about a queue file of this instance, 0 if there is none.
    """

    def __init__(
        self,
        syslog_names: Collection[str],
        filters: tuple[str, ...],
        *,
        has_store: bool,
    ) -> None:
        """Initialise.

        syslog_names are those of this instance and its services, filters its content
        filters as transport:nexthop.
        """
        self.tracker = QueueTracker(filters, syslog_names)
        self.capsules = Capsules(has_store=has_store)
        self.archiving_processes: dict[tuple[str, str, str], float] = {}
        self.last_line_time = 0.0
        self._files = self.tracker.queue_files

    @property
    def line_count(self) -> int:
        """How many lines are about a queue file of this instance."""
        return self.tracker.line_count

    @property
    def queued_before(self) -> int:
        """How many messages were queued before the log begins."""
        return self.tracker.queued_before

    @property
    def unreadable_count(self) -> int:
        """How many lines of the stamp filter are ambiguous."""
        return self.tracker.unparsed_report_count

    def read_line(self, text: str, timestamp: float) -> None:
        """Read one line, logged at a time in seconds since 1970."""
        line_count = self.tracker.line_count
        file = self.tracker.read(text, timestamp)
        if self.tracker.line_count > line_count:
            self.last_line_time = timestamp
        if file is None:
            return
        if file.is_archive_mail:
            self.capsules.update(file)
        elif (file.is_captured or file.has_failed_capture) and not file.parent:
            process = (file.service, file.daemon, file.pid)
            self.archiving_processes[process] = self._files.now

    def pop_finished(self) -> Iterator[Message]:
        """Yield and drop the messages that no later log line can concern."""
        for file in self._files.take_ended(KEEP_SECONDS):
            if not messages.is_message(file):
                self._files.drop(file)
                continue
            group = messages.group_of(self.tracker, file)
            if self._can_change(group):
                self._files.put_back(file)  # later lines may name it
                continue
            if not messages.is_from_before(self.tracker, group):
                yield messages.to_message(self.tracker, group)
            for each in group.values():
                self._files.drop(each)
        self._files.changed_keys.clear()
        self._files.dropped_keys.clear()

    def remaining(self) -> Iterator[Message]:
        """Yield the messages that are left at the end of the log."""
        seen: set[str] = set()
        for file in self._files.by_key.values():
            if file.key in seen or not messages.is_message(file):
                continue
            group = messages.group_of(self.tracker, file)
            group = {key: each for key, each in group.items() if key not in seen}
            seen |= group.keys()
            if messages.is_from_before(self.tracker, group):
                continue
            if not messages.is_claim_pending(self.tracker, group):
                yield messages.to_message(self.tracker, group)

    def accept_queued(self, queued_ids: Collection[str]) -> None:
        """Mark messages in Postfix's queue as accepted: qmgr(8) logs none on hold."""
        for queue_id in queued_ids:
            file = self._files.current(queue_id)
            if file is not None and not file.end:
                self._files.set_queued(file)

    def _can_change(self, group: Group) -> bool:
        limit = self._files.now - KEEP_SECONDS
        return (
            any(each.ended >= limit for each in group.values())
            or not messages.has_left_queue(self.tracker, group)
            or messages.is_claim_pending(self.tracker, group)
            or messages.has_unreported_reinjection(self.tracker, group)
        )
