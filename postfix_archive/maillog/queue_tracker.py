"""Reads the mail log into the model of queue files, line by line.

Used by outcomes, reconcile and doctor. The only place that interprets what Postfix logs
about a queue file: every reader takes its facts from the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from postfix_archive.maillog import delivery, log_line, queue_file, report
from postfix_archive.maillog.delivery import Attempt
from postfix_archive.maillog.log_line import LogLine
from postfix_archive.maillog.queue_file import (
    CLEANUP,
    PICKUP,
    QueueFile,
    RecipientEntry,
)
from postfix_archive.maillog.queue_model import QueueModel
from postfix_archive.message import queue_ids
from postfix_archive.postfix.archive_services import ARCHIVE_MAIL_SUFFIXES

CLIENT_PREFIX = "client="
UID_PREFIX = "uid="
# smtpd(8): what may stand in between, sasl_username= and sasl_sender=, is the client's.
CLIENT_WITH_ORIGIN = re.compile(
    r"client=[^\s,]+, orig_queue_id=([0-9A-Za-z]+)(?:, orig_client=.*)?", re.DOTALL
)
ORIG_ID_FIELD = " orig_id="
MESSAGE_ID_PREFIX = "message-id="
NO_MESSAGE_ID = "<>"
CAPSULE_MESSAGE_ID = re.compile(r"message-id=<capsule\.(\d{8}-[0-9a-f]{40})@")
LOCAL_CLIENTS = ("[127.", "[::1]", "[unknown]")
FROM_PREFIX = "from=<"
QUEUE_ACTIVE = re.compile(
    r"from=<(.*)>, size=\d+, nrcpt=(\d{1,9}) \(queue active\)", re.DOTALL
)
EXPIRED_SUFFIX = "expired, returned to sender"  # also force-expired, by postsuper -e
ACTION_PREFIXES = ("filter: ", "redirect: ")
DISCARD_PREFIXES = ("discard: ", "milter-discard: ")
HOLD_PREFIXES = ("hold: ", "milter-hold: ")
REJECT_PREFIXES = ("reject: ", "milter-reject: ")
RENAMED = ": Renamed to match inode number: "  # postsuper(1), when Postfix starts
ARCHIVE_CLEANUP_SUFFIXES = tuple(f"{name}-cleanup" for name in ARCHIVE_MAIL_SUFFIXES)
PROBE_STATUSES = ("deliverable", "undeliverable")  # address verification, -bv
NO_RELAY = "none"  # as relay: the transport is deferred, or the host unreachable
TRANSPORT_DAEMONS = ("pipe", "lmtp")  # which deliver to the stamp filter
LINKING_DAEMONS = ("smtp", "lmtp", "pipe")


class QueueTracker(QueueModel):
    """A model that reads log lines.

    ``line_count`` counts lines about a queue file of this instance, ``queued_before``
    the messages that were queued before the log begins, ``unparsed_count`` the lines
    that look like delivery attempts and are ambiguous, ``unparsed_report_count`` those
    of them that can be the stamp filter's.
    """

    def __init__(
        self, filters: tuple[str, ...] = (), syslog_names: Collection[str] = ()
    ) -> None:
        """Begin; filters are the content filters of this host, as transport:nexthop.

        syslog_names are those of this instance and its services; none: read the lines
        of all instances.
        """
        super().__init__(filters)
        self.line_count = self.queued_before = 0
        self.unparsed_count = self.unparsed_report_count = 0
        self._syslog_names = frozenset(syslog_names)
        self._service_prefixes = tuple(f"{name}/" for name in syslog_names)
        self._has_renamed_files = False  # postsuper(1) has renamed queue files
        self._pending_actions: dict[str, str] = {}  # by pid, without queue id

    def read(self, text: str, at: float) -> QueueFile | None:
        """Read one line, logged at this Unix time; return the queue file it is about.

        None if the line tells nothing of a known queue file of this instance.
        """
        line = log_line.parse(text)
        if line is None:
            self._has_renamed_files |= RENAMED in text
            self.queue_files.now = max(self.queue_files.now, at)
            return None
        return self.process(line, at)

    def process(self, line: LogLine, at: float) -> QueueFile | None:
        """Process one parsed line; as read()."""
        self.queue_files.now = max(self.queue_files.now, at)
        if self._syslog_names and not self._is_this_instance(line.service):
            return None
        self.line_count += 1
        if line.text.startswith(delivery.ATTEMPT_PREFIX):
            return self._process_attempt(line, at)
        handler = HANDLERS.get(line.daemon)
        return handler(self, line, at) if handler is not None else None

    def _is_this_instance(self, service: str) -> bool:
        return service in self._syslog_names or service.startswith(
            self._service_prefixes
        )

    # --- smtpd(8), qmqpd(8), pickup(8) ------------------------------------------------

    def _process_smtpd(self, line: LogLine, at: float) -> QueueFile | None:
        """smtpd(8) and qmqpd(8) log a new queue file, or an action of a table."""
        text = line.text
        if text.startswith(CLIENT_PREFIX):
            if line.queue_id == log_line.NO_QUEUE_ID:  # smtpd_proxy_filter
                return None
            return self._begin_from_client(line, at)
        if text.startswith(ACTION_PREFIXES) or text.startswith(DISCARD_PREFIXES):
            file = self.queue_files.current(line.queue_id)
            if file is not None and not file.is_queued and not file.end:
                self._set_action(file, text, at)
                return file
            self._pending_actions[line.pid] = text
        elif text.startswith(HOLD_PREFIXES):
            return self._set_held(line, at)
        return None

    def _begin_from_client(self, line: LogLine, at: float) -> QueueFile:
        """Parse ``client=localhost[127.0.0.1], orig_queue_id=…, orig_client=…``."""
        file = self._begin_received(line, at)
        file.is_archive_mail = line.service.endswith(ARCHIVE_MAIL_SUFFIXES)
        if file.is_archive_mail:
            return file
        client = line.text.partition(",")[0]
        file.client = client.partition("[")[2].partition("]")[0]
        file.is_local = any(mark in client for mark in LOCAL_CLIENTS)
        origin = CLIENT_WITH_ORIGIN.fullmatch(line.text)
        if origin is not None:
            file.orig_queue_id = origin.group(1)
            parent = self.queue_files.current(file.orig_queue_id)
            self.queue_files.link_child(parent, file)
        action_text = self._pending_actions.pop(line.pid, "")
        if action_text:
            file.is_discard_uncertain = action_text.startswith(DISCARD_PREFIXES)
            self._set_action(file, action_text, at)
        return file

    def _begin_received(self, line: LogLine, at: float) -> QueueFile:
        file = self.queue_files.begin(line.queue_id, at)
        file.daemon, file.service, file.pid = line.daemon, line.service, line.pid
        return file

    def _process_pickup(self, line: LogLine, at: float) -> QueueFile | None:
        """Parse ``uid=… from=<…> orig_id=…``; the sender cannot choose the end."""
        if not line.text.startswith(UID_PREFIX):
            return None
        _, mark, old_queue_id = line.text.rpartition(ORIG_ID_FIELD)
        is_requeued = bool(mark) and old_queue_id.isalnum()
        if not is_requeued or delivery.can_be_truncated(line.text):
            file = self._begin_received(line, at)
            file.client = line.text.partition(" ")[0]
            file.is_local = True
            return file
        old_file = self._find(old_queue_id)
        file = self._begin_received(line, at)
        file.is_local = True
        file.orig_queue_id = old_queue_id
        self._link_requeued(old_file, file, at)
        return file

    def _link_requeued(
        self, old_file: QueueFile | None, file: QueueFile, at: float
    ) -> None:
        if old_file is None or old_file.end not in ("", queue_file.REQUEUED):
            self.queued_before += 1
            return
        self.queue_files.set_queued(old_file)
        self.queue_files.end(old_file, queue_file.REQUEUED, at)
        file.is_archive_mail = old_file.is_archive_mail
        file.capsule_id = old_file.capsule_id
        self.queue_files.link_child(old_file, file)

    def _set_action(self, file: QueueFile, text: str, at: float) -> None:
        """Record a FILTER, REDIRECT or DISCARD action for a message."""
        if text.startswith(DISCARD_PREFIXES):
            file.discard_text = text
            self.queue_files.end(file, queue_file.DISCARDED, at)
        else:
            file.action_text = text
            self.queue_files.touch(file)

    def _set_held(self, line: LogLine, at: float) -> QueueFile | None:
        if line.queue_id == log_line.NO_QUEUE_ID:
            return None
        file = self.queue_files.get_or_begin(line.queue_id, at)
        self.queue_files.set_held(file)
        return file

    # --- cleanup(8), qmgr(8), postsuper(1) --------------------------------------------

    def _process_cleanup(self, line: LogLine, at: float) -> QueueFile | None:
        """cleanup(8) logs the Message-ID, or an action of a table or milter."""
        text = line.text
        file = self.queue_files.current(line.queue_id)
        if file is not None and file.is_discard_uncertain and file.end:
            # The action was for a transaction that the client gave up.
            file.discard_text, file.is_discard_uncertain = "", False
            self.queue_files.undo_end(file)
        if text.startswith(MESSAGE_ID_PREFIX):
            return self._process_message_id(line, file, at)
        if text.startswith(HOLD_PREFIXES):
            return self._set_held(line, at)
        if text.startswith(DISCARD_PREFIXES):
            file = self.queue_files.get_or_begin(line.queue_id, at)
        if file is None:
            return None
        if text.startswith(REJECT_PREFIXES):
            self.queue_files.end(file, queue_file.REJECTED, at)
        elif text.startswith(ACTION_PREFIXES) or text.startswith(DISCARD_PREFIXES):
            self._set_action(file, text, at)
        return file

    def _process_message_id(
        self, line: LogLine, file: QueueFile | None, at: float
    ) -> QueueFile:
        if file is None or file.end not in ("", queue_file.DISCARDED):
            # A bounce, or a message that local(8) forwards.
            file = self.queue_files.begin(line.queue_id, at)
            file.daemon = CLEANUP
            file.is_archive_mail = line.service.endswith(ARCHIVE_CLEANUP_SUFFIXES)
        if file.is_archive_mail:
            capsule = CAPSULE_MESSAGE_ID.match(line.text)
            if capsule is not None:
                file.capsule_id = capsule.group(1)
                self.queue_files.touch(file)
            return file
        message_id = line.text[len(MESSAGE_ID_PREFIX) :]
        self.queue_files.set_message_id(
            file, message_id if message_id != NO_MESSAGE_ID else ""
        )
        return file

    def _process_qmgr(self, line: LogLine, at: float) -> QueueFile | None:
        """qmgr(8) logs that a message is active, expired or removed."""
        text = line.text
        if text == "removed":
            return self._end(line, queue_file.REMOVED, at)
        if not text.startswith(FROM_PREFIX):
            return None
        file = self._find(line.queue_id) or self.queue_files.begin(line.queue_id, at)
        if text.endswith(EXPIRED_SUFFIX):
            # The sender chooses the end of a truncated line.
            file.expired = 0.0 if delivery.can_be_truncated(text) else at
        else:
            active = QUEUE_ACTIVE.fullmatch(text)
            if active is not None:
                file.sender, file.count = active.group(1), int(active.group(2))
        self._set_queued(file)
        return file

    def _set_queued(self, file: QueueFile) -> None:
        self.queued_before += not file.daemon and not file.is_queued
        self.queue_files.set_queued(file)

    def _find(self, queue_id: str) -> QueueFile | None:
        """Return the queue file with an id, or to which postsuper(1) has given it."""
        file = self.queue_files.current(queue_id)
        if file is None and self._has_renamed_files:
            return self._find_renamed(queue_id)
        return file

    def _find_renamed(self, new_id: str) -> QueueFile | None:
        new_name = new_id.encode()
        for file in self.queue_files.by_key.values():
            if not file.end and queue_ids.is_same(file.queue_id.encode(), new_name):
                self.queue_files.rename(file, new_id)
                return file
        return None

    def _process_postsuper(self, line: LogLine, at: float) -> QueueFile | None:
        """postsuper(1) logs what the postmaster did with a queue file."""
        text, file = line.text, self._find(line.queue_id)
        if text in ("placed on hold", "released from hold"):
            file = file or self.queue_files.begin(line.queue_id, at)
            self._set_queued(file)
            file.is_held = text == "placed on hold"
            return file
        reason = POSTSUPER_ENDS.get(text)
        if reason is None or file is None:
            return None
        if not file.end:
            self.queue_files.set_queued(file)
        return self._end(line, reason, at)

    def _end(self, line: LogLine, reason: str, at: float) -> QueueFile | None:
        file = self.queue_files.current(line.queue_id)
        if file is not None:
            self.queue_files.end(file, reason, at)
        return file

    # --- delivery agents --------------------------------------------------------------

    def _process_attempt(self, line: LogLine, at: float) -> QueueFile | None:
        """Any delivery agent: one delivery attempt for one recipient."""
        attempt = delivery.parse(line.text)
        if attempt is None:
            return self._process_unparsed(line)
        if attempt.status in PROBE_STATUSES:
            file = self.queue_files.current(line.queue_id)
            if file is not None:
                file.is_probe = True
            return file
        file = self.queue_files.get_or_begin(line.queue_id, at)
        original = attempt.original if attempt.original != attempt.recipient else ""
        entry = file.get_or_add_entry(attempt.recipient, original)
        entry.add(attempt, line.daemon, at)
        if line.daemon in TRANSPORT_DAEMONS and delivery.is_stamp_filter(attempt.relay):
            self._process_report(file, entry, attempt)
        else:
            self._process_delivery(file, entry, attempt)
        self.queue_files.touch(file)
        return file

    def _process_unparsed(self, line: LogLine) -> QueueFile | None:
        self.unparsed_count += 1
        file = self.queue_files.current(line.queue_id)
        if file is not None and delivery.can_name_stamp_filter(line.text):
            self.unparsed_report_count += 1
            file.has_unreadable_report = line.daemon in TRANSPORT_DAEMONS
        return file

    def _process_report(
        self, file: QueueFile, entry: RecipientEntry, attempt: Attempt
    ) -> None:
        """A delivery to the stamp filter, by pipe(8) or lmtp(8)."""
        if attempt.status != "sent":
            file.has_failed_capture = True
            return
        filter_report = report.parse(attempt.reply)
        file.is_captured = True
        if filter_report.archive_id:
            self.queue_files.add_archive_id(file, filter_report.archive_id)
        reinjected = self.queue_files.current(filter_report.reinjected_as)
        if reinjected is not None and reinjected.is_reinjected:
            reinjected.is_reported = True
            self.queue_files.touch(reinjected)
        self.link_next(file, entry, filter_report.reinjected_as)

    def _process_delivery(
        self, file: QueueFile, entry: RecipientEntry, attempt: Attempt
    ) -> None:
        """Any other delivery; it may continue in a queue file of this host."""
        if attempt.relay != NO_RELAY or attempt.status == "bounced":
            file.relay = file.relay or attempt.relay
        if attempt.status != "sent":
            return
        is_content_filter = self.is_content_filter(attempt.relay)
        file.is_content_filtered |= is_content_filter
        is_local = entry.daemon == "local" or (
            entry.daemon in LINKING_DAEMONS
            and (is_content_filter or delivery.is_local_relay(attempt.relay))
        )
        if is_local:
            self.link_next(file, entry, attempt.queued_as)


POSTSUPER_ENDS = {"removed": queue_file.DELETED, "requeued": queue_file.REQUEUED}
HANDLERS: dict[str, Callable[[QueueTracker, LogLine, float], QueueFile | None]] = {
    "smtpd": QueueTracker._process_smtpd,
    "qmqpd": QueueTracker._process_smtpd,
    PICKUP: QueueTracker._process_pickup,
    CLEANUP: QueueTracker._process_cleanup,
    "qmgr": QueueTracker._process_qmgr,
    "oqmgr": QueueTracker._process_qmgr,
    "postsuper": QueueTracker._process_postsuper,
}
