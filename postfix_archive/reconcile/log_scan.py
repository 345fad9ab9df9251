"""Finds the messages that Postfix accepted, and their captures, in the mail log.

Used by cli/reconcile. Reads the log line by line and believes only this host's own
daemons, not what remote hosts say. reconcile/totals checks whether the archive really
has a message; reconcile/causes says why it has not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from postfix_archive.maillog import delivery, log_line, report
from postfix_archive.maillog.delivery import Attempt
from postfix_archive.maillog.log_line import LogLine
from postfix_archive.message import queue_ids
from postfix_archive.reconcile import messages
from postfix_archive.reconcile.capsules import Capsules
from postfix_archive.reconcile.messages import Message, MessageTracker

REINJECTION_SERVICES = ("/archive-handback", "/archive-refused")
OWN_SERVICES = ("/archive-capsule", "/archive-copy", "/archive-relay")
CLIENT_PREFIX = "client="
ORIG_QUEUE_ID = ", orig_queue_id="
MESSAGE_ID = "message-id="
ACTIONS = ("filter: ", "redirect: ")
DISCARDS = ("discard: ", "milter-discard: ")
REJECTS = ("reject: ", "milter-reject: ")
POSTSUPER_ACTIONS = ("placed on hold", "released from hold", "requeued", "removed")
PICKUP = re.compile(r"uid=\d+ from=<.*>(?: orig_id=([0-9A-Za-z]+))?", re.DOTALL)
QUEUE_ACTIVE = re.compile(
    r"from=<(.*)>, size=\d+, nrcpt=(\d+) \(queue active\)", re.DOTALL
)
EXPIRED_TEXT = re.compile(
    r"from=<.*>, status=(?:force-)?expired, returned to sender", re.S
)
# Status of an address probe, which is not mail.
PROBE_STATUSES = ("deliverable", "undeliverable")
QUEUED_AS = "queued as "
NO_RELAY = "none"  # as relay: the transport is deferred, or the host unreachable
RENAMED = ": Renamed to match inode number: "  # postsuper(1), when Postfix starts


class LogScan:
    """Reads the log and yields the messages that were accepted.

    ``line_count`` counts lines about a queue file of this instance, ``queued_before``
    the messages that were queued before the log begins, ``unreadable_count`` the stamp
    filter's lines that are ambiguous. ``archiving_processes`` has, by service, daemon
    and pid, when mail from that process last reached a stamp filter.
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
        self.capsules = Capsules(has_store=has_store)
        self.line_count = self.queued_before = self.unreadable_count = 0
        self.archiving_processes: dict[tuple[str, str, str], float] = {}
        self._syslog_names = frozenset(syslog_names)
        self._service_prefixes = tuple(f"{each}/" for each in syslog_names)
        self._filters = filters
        self._tracker = MessageTracker()
        self._queued_before_ids: set[str] = set()
        self._has_renamed_files = False  # postsuper(1) has renamed queue files
        self._pending_actions: dict[str, str] = {}  # by pid, without queue id

    def read_line(self, text: str, timestamp: float) -> None:
        """Read one line, logged at a time in seconds since 1970."""
        self._tracker.now = max(self._tracker.now, timestamp)
        line = log_line.parse(text)
        if line is None:
            self._has_renamed_files |= RENAMED in text
        if line is None or not self._is_this_instance(line.service):
            return
        self.line_count += 1
        if line.text.startswith(delivery.ATTEMPT_PREFIX):
            self._read_attempt(line)
            return
        reader = READERS.get(line.daemon)
        if reader is not None:
            reader(self, line, timestamp)

    def pop_finished(self) -> Iterator[Message]:
        """Yield and drop the messages that no later log line can concern."""
        return self._tracker.pop_finished()

    def remaining(self) -> Iterator[Message]:
        """Yield the messages that are left at the end of the log."""
        return self._tracker.remaining()

    def accept_queued(self, queued_ids: Collection[str]) -> None:
        """Mark messages in Postfix's queue as accepted: qmgr(8) logs none on hold."""
        for queue_id in queued_ids:
            if self._tracker.incoming(queue_id) is not None:
                self._tracker.accept(queue_id)

    # --- smtpd(8), qmqpd(8), pickup(8) ------------------------------------------------

    def _read_smtpd(self, line: LogLine, timestamp: float) -> None:
        text = line.text
        if text.startswith(CLIENT_PREFIX):
            if line.queue_id != log_line.NO_QUEUE_ID:  # else: smtpd_proxy_filter
                self._read_client(line, timestamp)
        elif text.startswith(ACTIONS) or text.startswith(DISCARDS):
            message = self._tracker.incoming(line.queue_id)
            if message is None:
                self._pending_actions[line.pid] = text
            else:
                self._note_action(message, text)

    def _read_client(self, line: LogLine, timestamp: float) -> None:
        """Read ``client=localhost[127.0.0.1], orig_queue_id=…``: a new queue file."""
        self._forget(line.queue_id)
        if line.service.endswith(OWN_SERVICES):
            self.capsules.add(line.queue_id)
        else:
            self._add_from_client(line, timestamp)

    def _add_from_client(self, line: LogLine, timestamp: float) -> None:
        message = self._add(line, timestamp)
        message.is_reinjected = line.service.endswith(REINJECTION_SERVICES)
        client, _, rest = line.text.partition(ORIG_QUEUE_ID)
        message.orig_queue_id = rest.partition(",")[0]
        message.is_local = not message.is_reinjected and delivery.is_local_relay(client)
        action_text = self._pending_actions.pop(line.pid, "")
        message.is_discard_uncertain = action_text.startswith(DISCARDS)
        self._note_action(message, action_text)
        if message.is_reinjected:
            return
        self._tracker.link(message.orig_queue_id, message.queue_id)

    def _add(self, line: LogLine, timestamp: float) -> Message:
        message = Message(line.queue_id, timestamp, line.service, line.daemon, line.pid)
        self._tracker.add(message)
        return message

    def _forget(self, queue_id: str) -> None:
        """Forget an earlier queue file with this id: short ids are reused."""
        self._queued_before_ids.discard(queue_id)
        self.capsules.remove(queue_id)

    def _read_pickup(self, line: LogLine, timestamp: float) -> None:
        match = PICKUP.fullmatch(line.text)
        if match is None:
            return
        old_id = match.group(1)
        if old_id is None:
            self._forget(line.queue_id)
            self._add(line, timestamp).is_local = True
        elif not self._rename(old_id, line.queue_id):
            self._count_unknown(line.queue_id)

    # --- cleanup(8), qmgr(8), postsuper(1) --------------------------------------------

    def _read_cleanup(self, line: LogLine, timestamp: float) -> None:
        text, queue_id = line.text, line.queue_id
        message = self._tracker.in_cleanup(queue_id)
        if message is None:
            if text.startswith(MESSAGE_ID):
                if not self.capsules.read_message_id(queue_id, text):
                    self.capsules.add(queue_id)
        elif text.startswith(MESSAGE_ID):
            self._tracker.set_message_id(message, text)
        elif text.startswith(REJECTS):
            self._tracker.reject(queue_id)
        else:
            self._note_action(message, text)

    def _note_action(self, message: Message, text: str) -> None:
        """Note which action matched a message."""
        if text.startswith(ACTIONS):
            message.action_text = text
        elif text.startswith(DISCARDS):
            message.discard_text = text
            self._tracker.discard(message)

    def _read_qmgr(self, line: LogLine, timestamp: float) -> None:
        queue_id, text = line.queue_id, line.text
        if text == "removed":
            self._forget(queue_id)
            self._tracker.remove(queue_id)
        elif self._tracker.incoming(queue_id) is not None:
            match = QUEUE_ACTIVE.fullmatch(text)
            if match is not None:
                message = self._tracker.accept(queue_id)
                message.sender = match.group(1)
                message.recipient_count = int(match.group(2))
        elif EXPIRED_TEXT.fullmatch(text):
            self.capsules.note_expired(queue_id)
            self._set_end(queue_id, messages.EXPIRED)
        elif self._tracker.queued(queue_id) is None and not self.capsules.has(queue_id):
            self._count_unknown(queue_id)

    def _count_unknown(self, queue_id: str) -> None:
        """Count a message that was queued before the log begins, unless renamed."""
        if queue_id in self._queued_before_ids:
            return
        if not self._has_renamed_files or not self._rename(
            self._former_id(queue_id), queue_id
        ):
            self._queued_before_ids.add(queue_id)
            self.queued_before += 1

    def _former_id(self, queue_id: str) -> str:
        """Return the known queue id that a file had before, "" if there is none."""
        new_id = queue_id.encode()
        known_ids = (*self._tracker.queue_ids, *self.capsules.queue_ids)
        return next((e for e in known_ids if queue_ids.is_same(e.encode(), new_id)), "")

    def _rename(self, old_id: str, new_id: str) -> bool:
        return self.capsules.rename(old_id, new_id) or self._tracker.rename(
            old_id, new_id
        )

    def _read_postsuper(self, line: LogLine, timestamp: float) -> None:
        if line.text not in POSTSUPER_ACTIONS:
            return
        self.accept_queued([line.queue_id])
        if line.text == "removed":
            self.capsules.note_deleted(line.queue_id)
            self._set_end(line.queue_id, messages.DELETED)
            self._forget(line.queue_id)
            self._tracker.remove(line.queue_id)

    def _set_end(self, queue_id: str, end: str) -> None:
        message = self._tracker.queued(queue_id)
        if message is not None and not message.root.is_stamped:
            message.root.end = end

    # --- delivery agents --------------------------------------------------------------

    def _read_attempt(self, line: LogLine) -> None:
        if self.capsules.has(line.queue_id):
            self.capsules.read_attempt(line.queue_id, line.text)
            return
        message = self._tracker.find(line.queue_id)  # may be deleted already
        if message is None or not self._is_informative(message.root, line):
            return
        attempt = delivery.parse(line.text)
        if attempt is None:
            self.unreadable_count += delivery.can_name_stamp_filter(line.text)
        elif delivery.is_stamp_filter(attempt.relay):
            self._read_stamp_filter(message, attempt)
        else:
            self._read_delivery(message, line, attempt)

    def _is_informative(self, message: Message, line: LogLine) -> bool:
        """Return whether an attempt can tell anything new: parsing is expensive."""
        if (
            not message.is_stamped
            and not message.relay
            or delivery.can_name_stamp_filter(line.text)
        ):
            return True
        return bool(self._filters) and (
            not message.is_content_filtered or QUEUED_AS in line.text
        )

    def _read_stamp_filter(self, message: Message, attempt: Attempt) -> None:
        """Read the stamp filter's report: ``id=… as=…``."""
        self._tracker.split_off(message)
        root = message.root
        if message.merged_into is None:
            process = (message.service, message.daemon, message.pid)
            self.archiving_processes[process] = self._tracker.now
        if attempt.status != "sent":
            root.has_failed_capture = True
            return
        filter_report = report.parse(attempt.reply)
        root.is_stamped = True
        root.end = ""
        if filter_report.archive_id:
            root.add_archive_id(filter_report.archive_id)
        if filter_report.reinjected_as:
            self._tracker.link(message.queue_id, filter_report.reinjected_as)

    def _read_delivery(self, message: Message, line: LogLine, attempt: Attempt) -> None:
        root = message.root
        is_relay_known = attempt.relay != NO_RELAY or attempt.status == "bounced"
        if is_relay_known and not root.is_stamped:
            root.relay = root.relay or attempt.relay
        if attempt.status in PROBE_STATUSES:
            message.is_accepted = False
        if attempt.status != "sent":
            return
        is_content_filter = any(
            delivery.is_relay_of(each, attempt.relay) for each in self._filters
        )
        if is_content_filter:
            self._tracker.note_content_filter(message)
        if attempt.queued_as and (
            is_content_filter or delivery.is_local_relay(attempt.relay)
        ):
            self._tracker.link(message.queue_id, attempt.queued_as)

    def _is_this_instance(self, service: str) -> bool:
        return service in self._syslog_names or service.startswith(
            self._service_prefixes
        )


READERS: dict[str, Callable[[LogScan, LogLine, float], None]] = {
    "smtpd": LogScan._read_smtpd,
    "qmqpd": LogScan._read_smtpd,
    "pickup": LogScan._read_pickup,
    "cleanup": LogScan._read_cleanup,
    "qmgr": LogScan._read_qmgr,
    "postsuper": LogScan._read_postsuper,
}
