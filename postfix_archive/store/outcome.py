"""The outcome of one recipient of an archived message, and its journal event.

Used by outcomes (which derives outcomes from the mail log), store/record and whatever
shows them. The journal has one event for each settled recipient, and an earlier one if
the recipient had to wait. Fields: docs/store-format.md.
"""

from __future__ import annotations

from dataclasses import dataclass

DELIVERED = "delivered"  # into a mailbox, a command, or over LMTP
RELAYED = "relayed"  # accepted by another host
EXPANDED = "expanded"  # to other recipients, each with an outcome of its own
FAILED = "failed"
EXPIRED = "expired"
DISCARDED = "discarded"  # by a rule or transport of this host
DELETED = "deleted"  # by postsuper -d
WAITING = "waiting"  # deferred, on hold, or with a content filter

ON_HOLD = "on hold in Postfix's queue"
REQUIRED_FIELDS = ("recipient", "outcome", "of", "queue_id", "at")  # in every event
# Separates the recipients of an expansion. No envelope address has a line feed, but a
# quoted one (RFC 5321 4.1.2) may have spaces and commas.
SEPARATOR = "\n"

SETTLED = (DELIVERED, RELAYED, EXPANDED, FAILED, EXPIRED, DISCARDED, DELETED)
KINDS = (*SETTLED, WAITING)
# RFC 3464 2.3.3. A discarded or deleted message did not reach the recipient: failed.
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
    """The outcome of one recipient.

    ``recipient`` and ``original`` are as in the archived envelope (text, with lone
    surrogates for invalid UTF-8). ``expanded_to`` are the recipients that replaced it:
    each has an Outcome with ``parent`` = this recipient if ``kind`` is EXPANDED; else
    it is the one address to which this host mapped it, and the outcome is that one's.
    """

    recipient: str
    kind: str  # one of KINDS
    capture_queue_id: str  # queue id of the captured message
    queue_id: str  # of the queue file in which it was settled
    time: str  # RFC 3339, UTC: the time of Postfix's log line
    original: str = ""
    status: str = ""  # RFC 3463, as 2.0.0
    remote: str = ""  # host[address]:port, or Postfix's transport
    reply: str = ""  # of the remote host, or of Postfix
    tries: int = 1
    expanded_to: tuple[str, ...] = ()
    parent: str = ""

    @property
    def is_settled(self) -> bool:
        """True if the outcome is final."""
        return self.kind in SETTLED

    @property
    def is_reportable(self) -> bool:
        """False for transient states: not tried yet, or in a content filter."""
        return self.is_settled or self.status.startswith("4.") or self.is_held

    @property
    def is_held(self) -> bool:
        """True if the message is on hold in Postfix's queue."""
        return self.kind == WAITING and self.reply == ON_HOLD

    @property
    def mapped_to(self) -> str:
        """The one address that replaced the recipient, "" if there is none."""
        return "" if self.kind == EXPANDED else "".join(self.expanded_to[:1])

    @property
    def action(self) -> str:
        """The Action value in a report (RFC 3464 2.3.3)."""
        return ACTIONS[self.kind]

    def describe(self) -> str:
        """Return everything but the addresses, on one line."""
        text = self.kind + (f" ({self.status})" if self.status else "")
        text += f" by {self.remote}" if self.remote else ""
        text += f", {self.time}"
        text += f", {self.tries} tries" if self.tries > 1 else ""
        return text + (f": {self.reply}" if self.reply else "")

    def event_fields(self) -> dict[str, str | int]:
        """Return the fields of the journal event, without empty optional fields."""
        fields: dict[str, str | int] = {
            "recipient": self.recipient,
            "original": self.original,
            "outcome": self.kind,
            "status": self.status,
            "remote": self.remote,
            "reply": self.reply,
            "at": self.time,
            "tries": self.tries,
            "of": self.capture_queue_id,
            "queue_id": self.queue_id,
            "expanded_to": SEPARATOR.join(self.expanded_to),
            "parent": self.parent,
        }
        return {
            name: value
            for name, value in fields.items()
            if value != "" or name in REQUIRED_FIELDS
        }
