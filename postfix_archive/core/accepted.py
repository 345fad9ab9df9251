"""One message that Postfix accepted, and what its log says became of it on this host.

Used by reconciling, which fills it in, and causes, which judges it. A message may live
in several queue files one after the other: the one it came in by, the one that the
stamp filter handed back, one that a content filter gave back, one after postsuper -r.
"""

from __future__ import annotations

DELETED = "deleted"  # by postsuper -d
EXPIRED = "expired"


class Message:
    """A message by the queue file that it came in by.

    ``time`` is when it came, in seconds since 1970, and ``sent_on`` when Postfix took
    it in last: postsuper -r requeues. ``service`` and ``daemon`` are as the log names
    them. ``archive_ids`` are what the stamp filter said it is archived as; ``cut`` that
    this was said in a line too long for pipe(8) to log.
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
        self.local = False  # from this host, as what a content filter gives back
        self.of_port = False  # it came in by a hand-back port
        self.origin = ""  # the queue id from which, as its client says
        self.accepted = False  # it got as far as qmgr(8), or was thrown away by a rule
        self.files = 1  # queue files in which it lives now
        self.archive_ids: tuple[str, ...] = ()
        self.stamped = False  # a stamp filter has handed it back
        self.cut = False
        self.tried = False  # a stamp filter has had it and could not
        self.filtered = False  # a content filter took it, which may give it back
        self.action = ""  # FILTER or REDIRECT, as the log tells it
        self.discarded = ""  # the rule, as the log tells it
        self.unsure = False  # told before it had a queue id: perhaps of another
        self.ended = ""  # DELETED or EXPIRED, before it was archived
        self.went = ""  # where else than to a stamp filter
        self.is_given = False  # it was judged
        self.now_in = ""  # queue id of the queue file that holds it at the log's end
        self.into: Message | None = None  # the message that this turned out to be
        self.by_name = False  # that is so by its Message-ID alone

    @property
    def root(self) -> Message:
        """The message that this is part of, itself as a rule."""
        found = self
        while found.into is not None:
            found = found.into
        return found

    @property
    def is_over(self) -> bool:
        """True if no queue file holds it any more."""
        return self.files <= 0

    def archived_as(self, archive_id: str) -> None:
        """Note under which id a stamp filter has captured it."""
        if archive_id not in self.archive_ids:
            self.archive_ids += (archive_id,)

    def take_in(self, other: Message) -> None:
        """Make another message part of this one: they are the same."""
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
