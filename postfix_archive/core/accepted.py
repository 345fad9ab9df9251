"""A message that Postfix accepted, and what the mail log says about it.

Filled in by reconcile/log_scan and classified by reconcile/causes. One message can have
several queue files, one after the other: the one in which it arrived, the one that the
stamp filter reinjected, the one that another content filter reinjected, and the one
after postsuper -r.
"""

from __future__ import annotations

DELETED = "deleted"  # by postsuper -d
EXPIRED = "expired"


class Message:
    """A message, identified by the queue file in which it arrived.

    ``time`` is when it arrived and ``queued_time`` when it entered the queue last
    (postsuper -r requeues it), both in seconds since 1970. ``service`` (syslog_name)
    and ``daemon`` are as logged. ``archive_ids`` are those that the stamp filter
    logged; ``is_truncated`` says that pipe(8) truncated the stamp filter's output.
    """

    __slots__ = (
        "is_accepted",
        "action_text",
        "archive_ids",
        "is_merged_by_message_id",
        "is_truncated",
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
        self.is_truncated = False
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
        self.is_truncated |= other.is_truncated
        self.has_failed_capture |= other.has_failed_capture
        self.is_content_filtered |= other.is_content_filtered
        self.is_accepted |= other.is_accepted
        self.action_text = self.action_text or other.action_text
