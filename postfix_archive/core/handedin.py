"""Finds mail that a reinjection port accepted from others than the stamp filter.

Used by doctor. The internal ports trust this host, so any local user can send mail past
the archive through them. Postfix's log names each message that such a port accepted,
and each that a stamp filter process reports as reinjected. A message that is only among
the first came from another client, or was reinjected twice because a stamp filter
process was killed before it could report.
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
    """What a log says about the reinjection ports.

    ``accepted``: queue ids that the ports accepted, each with its orig_queue_id or "".
    ``queued``: those of them that qmgr(8) logged. ``reinjected``: queue ids that stamp
    filter processes report. ``truncated``: queue ids before the stamp filter of those
    whose report is truncated.
    """

    taken: dict[str, str] = field(default_factory=dict)
    queued: set[str] = field(default_factory=set)
    given: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)


def read(lines: Iterable[str], names: Collection[str]) -> Seen:
    """Return what the lines of a log say about the reinjection ports.

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
    """Return the accepted queue ids that no stamp filter process reports.

    before was read before the queue was listed (queued), after was read afterwards: so
    a stamp filter process that was running either still has its message in the queue or
    has reported.
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

    Whatever the sender can choose comes after these fields.
    """
    queue_id, mark, rest = _message(line).partition(TAKEN)
    if not mark or not queue_id.isalnum():
        return
    _, mark, origin = rest.partition(ORIGIN)
    seen.taken[queue_id] = origin.partition(",")[0] if mark else ""


def _queued(seen: Seen, line: str) -> None:
    """Read ``QUEUE_ID: from=<…>``: a message was queued, not only attempted."""
    queue_id, mark, _ = _message(line).partition(": from=<")
    if mark and queue_id in seen.taken:
        seen.queued.add(queue_id)


def _given(seen: Seen, line: str) -> None:
    """Read the delivery line of the stamp filter, from its last relay= on.

    Whatever the sender can choose comes before.
    """
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
    """Return the text after ``process[pid]: ``."""
    return line.partition("]: ")[2].strip()
