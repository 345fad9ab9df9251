"""One attempt at one recipient: the lines that all of Postfix's delivery agents log.

    to=<…>, orig_to=<…>, relay=…, delay=…, delays=…, dsn=…, status=… (…)

Used by passage and reconciling. The addresses are the sender's words and the text in
brackets is the remote host's: a line that could be read in two ways is not read.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# As quote_822_local() writes addresses (info_log_addr_form = external, the default
# from Postfix 3.5 on). Before, a quoted one stands there bare and may not be readable.
ADDRESS = r'(?:"(?:[^"\\]|\\.)*"(?:@[^\s<>",()\\]*)?|[^\s<>",()\\]*)'
ATTEMPT = re.compile(
    rf"to=<({ADDRESS})>, (?:orig_to=<({ADDRESS})>, )?relay=([^\s,]+)"
    r", (?:conn_use=\d+, )?delay=[\d.]+, delays=[\d./]+(?:, tls=[^,]*)?"
    r", dsn=([245]\.\d{1,3}\.\d{1,3}), status=([A-Za-z]+) \((.*)",
    re.DOTALL,
)
BEGINNING = "to=<"
TWICE = re.compile(r">, relay=\S+, .*, status=[A-Za-z]+ \(", re.DOTALL)
QUEUED_AS = re.compile(r"\bqueued as ([0-9A-Za-z]{6,})\b")
FORWARDED_AS = "forwarded as "


class Attempt(NamedTuple):
    """What one delivery attempt came to, for one recipient.

    ``original`` is the address before this host mapped it, equal to ``recipient`` where
    it did not. ``status`` is Postfix's word, as ``sent``; ``dsn`` is of RFC 3463.
    ``reply`` is the text in brackets, the remote host's as a rule; a long line may end
    before it does.
    """

    recipient: str
    original: str
    relay: str
    dsn: str
    status: str
    reply: str

    @property
    def queued_as(self) -> str:
        """The queue id that the other side gave it, as it says itself; or nothing."""
        if self.reply.startswith(FORWARDED_AS):
            return self.reply[len(FORWARDED_AS) :].split()[0]
        found = QUEUED_AS.findall(self.reply)
        return found[-1] if found else ""


def read(text: str) -> Attempt | None:
    """Return the attempt that a line's text tells of; None if it cannot be sure.

    text is what stands behind the queue id, and begins with ``to=<``.
    """
    found = ATTEMPT.fullmatch(text)
    if found is None:
        return None
    recipient, original, relay, dsn, status, reply = found.groups()
    if TWICE.search(reply):
        return None
    reply = reply.removesuffix(")")
    return Attempt(recipient, original or recipient, relay, dsn, status, reply)
