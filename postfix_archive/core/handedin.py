"""Mail that came in by a hand-back port and that no stamp filter gave there.

Used by back/maillog. The internal ports trust this host, so whoever is on it can send
mail around the archive by them. Postfix's log tells each message that such a port took,
and each that a run of the filter says it has handed back. What is only among the first
was sent by somebody else, or twice, when a run was killed just before it could say so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from postfix_archive.core import relays

DAEMONS = ("smtpd", "qmqpd")
TAKEN = ": client="
ORIGIN = ", orig_queue_id="
RELAY = ", relay="
SENT = ", status=sent ("
SAID = " service ("
SAID_LIMIT = 100  # bytes of a command's output that pipe(8) logs
GIVEN = "queued as "


@dataclass
class Seen:
    """What a log says; queue ids."""

    taken: dict[str, str] = field(default_factory=dict)  # and the first hop's, or ""
    queued: set[str] = field(default_factory=set)  # of those: what qmgr(8) got to see
    given: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)  # first hop's: the line was too long


def read(lines: Iterable[str], names: Collection[str]) -> Seen:
    """Return what the lines of a log say of the hand-back ports.

    names are the syslog_name of these ports, as ``postfix/archive-handback``.
    """
    seen = Seen()
    marks = tuple(f" {name}/{daemon}[" for name in names for daemon in DAEMONS)
    for line in map(str.rstrip, lines):
        if "/pipe[" in line or "/archive-stamp/lmtp[" in line:
            _given(seen, line)
        elif "/qmgr[" in line:
            _queued(seen, line)
        elif any(mark in line for mark in marks):
            _taken(seen, line)
    return seen


def unclaimed(before: Seen, queued: Collection[str], after: Seen) -> list[str]:
    """Return the queue ids that nobody says to have handed back.

    before was read before it was looked what is queued, and after later: so a run that
    was going on either still has its message in the queue, or has said what it did.
    """
    return [
        queue_id
        for queue_id, origin in before.taken.items()
        if queue_id in before.queued
        and queue_id not in after.given
        and origin not in after.cut
        and (not origin or origin not in queued)
    ]


def _taken(seen: Seen, line: str) -> None:
    """Read ``QUEUE_ID: client=localhost[127.0.0.1], orig_queue_id=…, orig_client=…``.

    What the sender can choose stands behind.
    """
    queue_id, mark, rest = _message(line).partition(TAKEN)
    if not mark or not queue_id.isalnum():
        return
    _, mark, origin = rest.partition(ORIGIN)
    seen.taken[queue_id] = origin.partition(",")[0] if mark else ""


def _queued(seen: Seen, line: str) -> None:
    """Read ``QUEUE_ID: from=<…>``: only now is it a message and not an attempt."""
    queue_id, mark, _ = _message(line).partition(": from=<")
    if mark and queue_id in seen.taken:
        seen.queued.add(queue_id)


def _given(seen: Seen, line: str) -> None:
    """Read the line of a run of the filter, from the last relay= on: see above."""
    head, _, rest = line.rpartition(RELAY)
    relay, _, told = rest.partition(",")
    if not relays.is_stamp(relay) or SENT not in told:
        return
    _, by_pipe, said = told.partition(SAID)
    said = said.removesuffix("))") if by_pipe else told.removesuffix(")")
    if GIVEN in said and not (by_pipe and len(said) >= SAID_LIMIT):
        seen.given.add(said.rpartition(GIVEN)[2])
    else:
        seen.cut.add(_message(head).partition(":")[0])


def _message(line: str) -> str:
    """Return what stands behind ``process[pid]: ``."""
    return line.partition("]: ")[2].strip()
