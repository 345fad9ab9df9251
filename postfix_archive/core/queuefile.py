"""One queue file as the mail log describes it: recipients, links, how it ended.

Used by maillog.queue_tracker. A short queue id names many queue files one after the
other: each is a QueueFile of its own here, with a key that is never used again.
as_dict() and from_dict() save and restore it, so that a reader of the log may be killed
at any time; the field names are keys of that saved state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from postfix_archive.core import delivery
from postfix_archive.core.delivery import Attempt

REMOVED = "removed"  # by qmgr(8), when delivery is complete
DELETED = "deleted"  # by postsuper -d
REQUEUED = "requeued"  # by postsuper -r: another queue file continues it
DISCARDED = "discarded"  # by a DISCARD action: accepted, but never queued
END_REASONS = (REMOVED, DELETED, REQUEUED, DISCARDED)


@dataclass
class RecipientEntry:
    """The last delivery attempt for one recipient of a queue file.

    ``links`` are the keys of queue files on this host that continue the delivery.
    ``at`` is Unix time. ``delivered``: local(8) delivered to a mailbox or command of
    this recipient.
    """

    recipient: str
    original: str
    daemon: str = ""
    relay: str = ""
    dsn: str = ""
    status: str = ""
    reply: str = ""
    at: float = 0.0
    tries: int = 0
    links: list[str] = field(default_factory=list)
    delivered: bool = False

    def add(self, attempt: Attempt, daemon: str, at: float) -> None:
        """Add a delivery attempt.

        local(8) may log status=sent twice, when .forward keeps a copy: one try, both
        count as deliveries.
        """
        self.tries += not (attempt.status == self.status == "sent")
        if daemon == "local" and attempt.status == "sent":
            self.delivered |= not attempt.reply.startswith(delivery.FORWARDED_AS)
        self.at = at
        self.daemon = daemon
        self.relay = attempt.relay
        self.dsn = attempt.dsn
        self.status = attempt.status
        self.reply = attempt.reply


@dataclass
class QueueFile:
    """One queue file; all times are Unix times.

    ``came`` is the daemon that received it (smtpd, qmqpd, pickup), "" if it was created
    on this host. ``is_local``: the client is on this host. ``is_aside``: mail of the
    archive itself (capsule or archive copy). ``parent`` is the key of the queue file
    that it continues, ``children`` those that name it as their origin. ``count`` is
    qmgr(8)'s number of recipients. ``end`` is one of END_REASONS or "", ``expired``
    when qmgr(8) returned it to the sender. ``is_told``: all outcomes are in the
    journals. ``archive_id`` is that of its capture, if the stamp filter captured it.
    """

    key: str
    queue_id: str
    begun: float = 0.0
    came: str = ""
    service: str = ""
    is_local: bool = False
    is_aside: bool = False
    parent: str = ""
    message_id: str = ""
    count: int = 0
    is_held: bool = False
    end: str = ""
    ended: float = 0.0
    expired: float = 0.0
    is_told: bool = False
    archive_id: str = ""
    entries: list[RecipientEntry] = field(default_factory=list)
    children: list[str] = field(default_factory=list)

    @property
    def serial(self) -> int:
        """Its number in the order in which queue files began."""
        return int(self.key.rpartition(".")[2])

    def get_or_add_entry(self, recipient: str, original: str) -> RecipientEntry:
        """Return the entry of a recipient; add one if there is none."""
        for entry in self.entries:
            if entry.recipient == recipient and entry.original == original:
                return entry
        self.entries.append(RecipientEntry(recipient, original))
        return self.entries[-1]

    def entries_of(self, address: str) -> list[RecipientEntry]:
        """Return the entries whose recipient or original recipient is this address."""
        return [
            entry
            for entry in self.entries
            if address in (entry.recipient, entry.original)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return all non-empty fields in JSON types."""
        fields = {name: value for name, value in vars(self).items() if value}
        fields["entries"] = [
            {name: value for name, value in vars(entry).items() if value}
            for entry in self.entries
        ]
        return fields


def from_dict(fields: dict[str, Any]) -> QueueFile:
    """Return the queue file that as_dict() saved."""
    entries = [
        RecipientEntry(**{"recipient": "", "original": "", **entry})
        for entry in fields.get("entries", ())
    ]
    return QueueFile(**{**fields, "entries": entries})
