"""A message in Postfix's queue, as postqueue(1) lists it.

Used by rescue, reconcile, status and the doctor; postfix/mail_queue reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

from postfix_archive.message import request


@dataclass(frozen=True)
class QueuedMessage:
    """A message in Postfix's queue.

    After the clock was set back, an arrival time can be in the future: its distance
    counts as age then, for Postfix keeps the message until that time.
    """

    queue_id: str
    age: int  # seconds
    sender: str
    recipients: tuple[str, ...]
    delay_reasons: tuple[
        str, ...
    ]  # delay_reason of each recipient; "" if not yet tried
    content_filter: str = ""
    queue: str = ""  # incoming, active, deferred, hold

    @property
    def has_sender(self) -> bool:
        """False for the null sender, as postqueue(1) writes it."""
        return self.sender not in ("", "<>", "MAILER-DAEMON")

    @property
    def internal_recipients(self) -> tuple[str, ...]:
        """Those that are for the archive: requests, capture recipients, capsules."""
        suffix = request.DOMAIN_SUFFIX
        return tuple(each for each in self.recipients if each.endswith(suffix))

    @property
    def delay_reason(self) -> str:
        """The first delay reason."""
        return next(filter(None, self.delay_reasons), "not tried yet")
