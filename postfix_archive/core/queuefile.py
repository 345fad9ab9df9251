"""One queue file and what the log has told of it so far: recipients, links, its end.

Used by passage. A short queue id names many queue files one after the other: each is a
value of its own here, with a key that is never used again. What is written down with
words() comes back with from_words(), so that a reader of the log may die at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from postfix_archive.core import delivery
from postfix_archive.core.delivery import Attempt

REMOVED = "removed"  # qmgr(8): it is done with it
DELETED = "deleted"  # postsuper -d
REQUEUED = "requeued"  # postsuper -r: another queue file goes on
DISCARDED = "discarded"  # by a DISCARD action: accepted, and never queued
ENDS = (REMOVED, DELETED, REQUEUED, DISCARDED)


@dataclass
class Entry:
    """What the last attempt at one recipient of a queue file came to.

    ``links`` are the keys of queue files on this host in which it goes on.
    """

    recipient: str
    original: str
    daemon: str = ""
    relay: str = ""
    dsn: str = ""
    status: str = ""
    reply: str = ""
    at: float = 0.0  # seconds since 1970
    tries: int = 0
    links: list[str] = field(default_factory=list)
    delivered: bool = False  # by local(8) to a mailbox or command of this recipient

    def add(self, attempt: Attempt, daemon: str, at: float) -> None:
        """Take in one more attempt.

        local(8) may say sent twice, when .forward keeps a copy: both count.
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
    """One queue file; times are in seconds since 1970."""

    key: str
    queue_id: str
    begun: float = 0.0
    came: str = ""  # the daemon that took it: smtpd, pickup, qmqpd; or nothing
    service: str = ""
    is_local: bool = False  # from a client on this host
    is_aside: bool = False  # a capsule or a copy: mail of the archive itself
    parent: str = ""  # key of the queue file that it continues
    message_id: str = ""
    count: int = 0  # of recipients, as qmgr(8) says
    is_held: bool = False
    end: str = ""  # REMOVED, DELETED or REQUEUED
    ended: float = 0.0
    expired: float = 0.0  # when qmgr(8) gave up
    is_told: bool = False  # all that became of it is in the journals
    archive_id: str = ""  # of its capture, if the stamp filter made one
    entries: list[Entry] = field(default_factory=list)
    children: list[str] = field(default_factory=list)  # that say they come from here

    @property
    def serial(self) -> int:
        """Its place among all queue files; many begin in one second."""
        return int(self.key.rpartition(".")[2])

    def entry(self, recipient: str, original: str) -> Entry:
        """Return the entry of a recipient, a new one if there is none."""
        for each in self.entries:
            if each.recipient == recipient and each.original == original:
                return each
        self.entries.append(Entry(recipient, original))
        return self.entries[-1]

    def entries_of(self, address: str) -> list[Entry]:
        """Return the entries of this address, and of what it was mapped to."""
        return [
            each for each in self.entries if address in (each.recipient, each.original)
        ]

    def words(self) -> dict[str, Any]:
        """Return all of it in the types of JSON; what is empty is left out."""
        told = {name: value for name, value in vars(self).items() if value}
        told["entries"] = [
            {name: value for name, value in vars(each).items() if value}
            for each in self.entries
        ]
        return told


def from_words(words: dict[str, Any]) -> QueueFile:
    """Return the queue file that words() wrote down."""
    entries = [
        Entry(**{"recipient": "", "original": "", **each})
        for each in words.get("entries", ())
    ]
    return QueueFile(**{**words, "entries": entries})
