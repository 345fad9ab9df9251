"""What became of one recipient of an archived message, as the journal keeps it.

Used by passage (finds it out), record (merges it) and everything that shows it. One
event of the journal for each recipient that is settled, and one before when it had to
wait. docs/store-format.md has the fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EVENT = "outcome"

DELIVERED = "delivered"  # into a mailbox, a command, or over LMTP
RELAYED = "relayed"  # another host has taken it
EXPANDED = "expanded"  # to other recipients, each with an outcome of its own
FAILED = "failed"
EXPIRED = "expired"
DISCARDED = "discarded"  # a rule or transport of this host threw it away
DELETED = "deleted"  # by postsuper -d
WAITING = "waiting"  # deferred, on hold, or with a content filter

ON_HOLD = "on hold in Postfix's queue"
ALWAYS = ("recipient", "outcome", "of", "queue_id", "at")  # fields of every event
# Between the recipients of an expansion: no address of an envelope has one in it, while
# a quoted one (RFC 5321 4.1.2) may have white space and commas.
BETWEEN = "\n"

SETTLED = (DELIVERED, RELAYED, EXPANDED, FAILED, EXPIRED, DISCARDED, DELETED)
KINDS = (*SETTLED, WAITING)
# RFC 3464 2.3.3. Of what was thrown away the recipient has seen nothing.
ACTIONS = {
    DELIVERED: "delivered",
    RELAYED: "relayed",
    EXPANDED: "expanded",
    FAILED: "failed",
    EXPIRED: "failed",
    DISCARDED: "failed",
    DELETED: "failed",
    WAITING: "delayed",
}


@dataclass(frozen=True)
class Outcome:
    """What became of one recipient.

    ``recipient`` and ``original`` are as the archived envelope has them (text, with
    lone surrogates for bytes that are no UTF-8); ``expanded_to`` names the recipients
    that took its place, each of which has an Outcome with ``parent`` = this recipient.
    """

    recipient: str
    kind: str  # one of KINDS
    of: str  # queue id of the capture whose recipient this is
    queue_id: str  # of the queue file that it was settled in
    at: str  # RFC 3339, UTC: the time of Postfix's log line
    original: str = ""
    status: str = ""  # RFC 3463, as 2.0.0
    remote: str = ""  # host[address]:port, or Postfix's transport
    reply: str = ""  # what the remote host, or Postfix, said
    tries: int = 1
    expanded_to: tuple[str, ...] = ()
    parent: str = ""

    @property
    def is_settled(self) -> bool:
        """True if nothing more can become of it."""
        return self.kind in SETTLED

    @property
    def is_worth_telling(self) -> bool:
        """False for what only passes: not tried yet, or with a content filter."""
        return self.is_settled or self.status.startswith("4.") or self.is_held

    @property
    def is_held(self) -> bool:
        """True if it waits on hold in Postfix's queue."""
        return self.kind == WAITING and self.reply == ON_HOLD

    @property
    def action(self) -> str:
        """The word for it in a report (RFC 3464 2.3.3)."""
        return ACTIONS[self.kind]

    def told(self) -> str:
        """Return all of it but the addresses, as one line for people."""
        said = self.kind + (f" ({self.status})" if self.status else "")
        said += f" by {self.remote}" if self.remote else ""
        said += f", {self.at}"
        said += f", {self.tries} tries" if self.tries > 1 else ""
        return said + (f": {self.reply}" if self.reply else "")

    def words(self) -> dict[str, str | int]:
        """Return the fields of its event in the journal.

        What is empty is left out if it may be missing.
        """
        words: dict[str, str | int] = {
            "recipient": self.recipient,
            "original": self.original,
            "outcome": self.kind,
            "status": self.status,
            "remote": self.remote,
            "reply": self.reply,
            "at": self.at,
            "tries": self.tries,
            "of": self.of,
            "queue_id": self.queue_id,
            "expanded_to": BETWEEN.join(self.expanded_to),
            "parent": self.parent,
        }
        return {n: value for n, value in words.items() if value != "" or n in ALWAYS}


def from_event(event: dict[str, Any]) -> Outcome:
    """Return the outcome that an event of the journal tells of; see is_event."""
    return Outcome(
        recipient=event["recipient"],
        kind=event["outcome"],
        of=event["of"],
        queue_id=event["queue_id"],
        at=event["at"],
        original=event.get("original", ""),
        status=event.get("status", ""),
        remote=event.get("remote", ""),
        reply=event.get("reply", ""),
        tries=event.get("tries", 1),
        expanded_to=tuple(filter(None, event.get("expanded_to", "").split(BETWEEN))),
        parent=event.get("parent", ""),
    )


def is_event(event: dict[str, Any]) -> bool:
    """Tell whether an event of that kind has all its fields, each as it should be."""
    texts = ("id", *ALWAYS)
    more = ("original", "status", "remote", "reply", "expanded_to", "parent")
    if not all(isinstance(event.get(name), str) for name in texts):
        return False
    if not all(isinstance(event.get(name, ""), str) for name in more):
        return False
    return event["outcome"] in KINDS and type(event.get("tries", 1)) is int
