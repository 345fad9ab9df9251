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
        "accepted",
        "action",
        "archive_ids",
        "by_name",
        "cut",
        "daemon",
        "discarded",
        "ended",
        "files",
        "filtered",
        "into",
        "is_given",
        "local",
        "message_id",
        "now_in",
        "of_port",
        "origin",
        "pid",
        "queue_id",
        "recipients",
        "sender",
        "sent_on",
        "service",
        "stamped",
        "time",
        "tried",
        "unsure",
        "went",
    )

    def __init__(
        self, queue_id: str, time: float, service: str, daemon: str, pid: str
    ) -> None:
        self.queue_id = queue_id
        self.time = time
        self.sent_on = time
        self.service = service
        self.daemon = daemon
        self.pid = pid
        self.sender = ""
        self.recipients = 0
        self.message_id = ""
        self.local = False  # from this host, as mail that a content filter reinjects
        self.of_port = False  # it arrived at a reinjection service
        self.origin = ""  # orig_queue_id= as the client gave it (XFORWARD IDENT)
        self.accepted = False  # qmgr(8) has seen it, or a DISCARD rule matched
        self.files = 1  # queue files that hold it now
        self.archive_ids: tuple[str, ...] = ()
        self.stamped = False  # a stamp filter has reinjected it
        self.cut = False
        self.tried = False  # a delivery to the stamp filter failed
        self.filtered = False  # sent to another content filter
        self.action = ""  # log text of a FILTER or REDIRECT action
        self.discarded = ""  # log text of a DISCARD action
        self.unsure = False  # perhaps of another message
        self.ended = ""  # DELETED or EXPIRED, before it was archived
        self.went = ""  # relay= of its first delivery other than to a stamp filter
        self.is_given = False  # pop_finished() has yielded it
        self.now_in = ""  # of its queue file when the log ends
        self.into: Message | None = None  # same message, older queue file
        self.by_name = False  # merged by Message-ID alone

    @property
    def root(self) -> Message:
        """The message into which this one is merged; itself if it is not."""
        found = self
        while found.into is not None:
            found = found.into
        return found

    @property
    def is_over(self) -> bool:
        """True if no queue file holds it any more."""
        return self.files <= 0

    def archived_as(self, archive_id: str) -> None:
        """Add an archive id under which a stamp filter captured it."""
        if archive_id not in self.archive_ids:
            self.archive_ids += (archive_id,)

    def take_in(self, other: Message) -> None:
        """Merge another message, which is the same one, into this one."""
        other.into = self
        self.files += other.files
        for each in other.archive_ids:
            self.archived_as(each)
        self.stamped |= other.stamped
        self.cut |= other.cut
        self.tried |= other.tried
        self.filtered |= other.filtered
        self.accepted |= other.accepted
        self.action = self.action or other.action
