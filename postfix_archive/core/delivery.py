"""One attempt at one recipient: the lines that all of Postfix's delivery agents log.

    to=<…>, orig_to=<…>, relay=…, delay=…, delays=…, dsn=…, status=… (…)

Used by passage and reconciling. The addresses are the sender's words and the text in
brackets is the remote host's: a line that could be read in two ways is not read. That
cannot be left to the quotes: sendmail(1) takes ``a@"b>, relay=…"``, and of a domain
Postfix quotes nothing.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# As quote_822_local() writes addresses (info_log_address_format = external, the default
# from Postfix 3.5 on). With internal a quoted one stands there bare: often unreadable.
ADDRESS = r'(?:"(?:[^"\\]|\\.)*"(?:@[^\s<>",()\\]*)?|[^\s<>",()\\]*)'
ATTEMPT = re.compile(
    rf"to=<({ADDRESS})>, (?:orig_to=<({ADDRESS})>, )?relay=([^\s,]+)"
    r", (?:conn_use=\d+, )?delay=[\d.]+, delays=[\d./]+(?:, tls=[^\s,]+)?"
    r", dsn=([245]\.\d{1,3}\.\d{1,3}), status=([A-Za-z]+) \((.*)\)",
    re.DOTALL | re.ASCII,
)
BEGINNING = "to=<"
TWICE = re.compile(r">, relay=\S+, .*, status=[A-Za-z]+ \(", re.DOTALL | re.ASCII)
# Postfix cuts at 2,000 bytes from the queue id on (MSG_SYSLOG_RECLEN): an address of
# that length can look like a whole line, its closing bracket too.
LONGEST = 1950
FORWARDED_AS = "forwarded as "  # local(8)
QUEUED_AS = re.compile(rf"(?:\bqueued as |^{FORWARDED_AS})([0-9A-Za-z]{{6,}})\b")


class Attempt(NamedTuple):
    """What one delivery attempt came to, for one recipient.

    ``original`` is the address before this host mapped it, equal to ``recipient`` where
    it did not. ``status`` is Postfix's word, as ``sent``; ``dsn`` is of RFC 3463.
    ``reply`` is the text in brackets, the remote host's as a rule.
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
        found = QUEUED_AS.findall(self.reply)
        return found[-1] if found else ""


def read(text: str) -> Attempt | None:
    """Return the attempt that a line's text tells of; None if it cannot be sure.

    text is what stands behind the queue id, and begins with ``to=<``. Of a line that
    was cut, by Postfix or on its way, it is never sure.
    """
    found = ATTEMPT.fullmatch(text)
    if found is None or may_be_cut(text):
        return None
    recipient, original, relay, dsn, status, reply = found.groups()
    if TWICE.search(reply):
        return None
    return Attempt(recipient, original or recipient, relay, dsn, status, reply)


def may_be_cut(text: str) -> bool:
    """Tell whether the line of this text is so long that Postfix may have cut it."""
    return len(text.encode("utf-8", "surrogateescape")) > LONGEST
