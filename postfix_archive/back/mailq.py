"""Postfix's queue: what in it waits for the archive, and sending it another way.

Used by uninstall and by the bypass. Reads it by postqueue(1) and postcat(1), requeues
by postsuper(1); never touches a queue file itself.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from postfix_archive.back import postconf
from postfix_archive.back.host import PATIENCE
from postfix_archive.core import record, request, ways
from postfix_archive.core.errors import PostfixCommandFailed
from postfix_archive.core.observed import Waiting

ARCHIVE = "archive:"
IN_HAND = 60.0  # seconds that a run of the filter may still take
AT_ONCE = 200  # queue files that one postcat(1) opens
HEADING = "*** ENVELOPE RECORDS "
# What reading JSON of another shape raises.
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def queued(directory: str, most: int | None = None) -> list[Waiting]:
    """Return what is queued, the oldest first.

    content_filter is looked up for the first most messages; None means for all.
    """
    told = _told(postconf.run(directory, "postqueue", "-j"), int(time.time()))
    ids = [each.queue_id for each in told[:most]]
    filters: dict[str, str] = {}
    for at in range(0, len(ids), AT_ONCE):
        filters.update(_content_filters(directory, ids[at : at + AT_ONCE]))
    return [replace(e, content_filter=filters.get(e.queue_id, "")) for e in told]


def waiting(directory: str) -> list[str]:
    """Return the ids of queue files that go to a transport of ours."""
    return [each.queue_id for each in queued(directory) if _is_ours(each)]


def drain(directory: str) -> list[str]:
    """Flush the queue until nothing in it needs us; return what still does."""
    left = waiting(directory)
    end = time.monotonic() + PATIENCE
    while left and time.monotonic() < end:
        postconf.run(directory, "postqueue", "-f")
        time.sleep(0.5)
        left = waiting(directory)
    return left


def requeue(directory: str) -> tuple[int, int]:
    """Give what waits for a stamp filter to Postfix anew; return how many, and left.

    Each gets the content_filter that pickup(8) has now (postsuper(1), -r). What the
    filter has in hand at this moment is waited for, since requeueing it could deliver
    it twice; left are those that it does not let go of. Two looks must find nothing: a
    message may move from queue to queue during one.
    """
    done = looks = 0
    end = time.monotonic() + IN_HAND
    while True:
        held = [e for e in queued(directory) if e.content_filter.startswith(ways.STAMP)]
        held = [each for each in held if each.queue != "hold"]
        deferred = [each.queue_id for each in held if each.queue == "deferred"]
        for each in deferred:
            postconf.run(directory, "postsuper", "-r", each, "deferred")
        done += len(deferred)
        looks = 0 if held else looks + 1
        if looks == 2 or time.monotonic() > end:
            return done, len(held) - len(deferred)
        time.sleep(0.2)


def _is_ours(each: Waiting) -> bool:
    filtered = each.content_filter.startswith((ways.STAMP, ARCHIVE))
    return filtered or any(one.endswith(request.REQUESTS) for one in each.recipients)


def _told(listing: str, now: int) -> list[Waiting]:
    """Return what postqueue -j prints, the oldest first.

    A line ends with LF alone: what str.splitlines() takes for a line end besides, a
    sender may have in an address.
    """
    try:
        lines = filter(None, listing.split("\n"))
        found = [_waiting(json.loads(each), now) for each in lines]
    except UNREADABLE as problem:
        raise PostfixCommandFailed(
            f"postqueue -j: a line that cannot be read: {problem!r}"
        ) from problem
    return sorted(found, key=lambda each: -each.age)


def _waiting(told: Any, now: int) -> Waiting:
    to = told["recipients"]
    why = (str(each.get("delay_reason", "")) for each in to)
    return Waiting(
        queue_id=str(told["queue_id"]),
        queue=str(told["queue_name"]),
        age=abs(now - int(told["arrival_time"])),  # see observed.Waiting
        sender=str(told["sender"]),
        recipients=tuple(str(each["address"]) for each in to),
        reasons=tuple(record.shown(each.encode("utf-8", "replace")) for each in why),
    )


def _content_filters(directory: str, ids: list[str]) -> dict[str, str]:
    """Return the content filter of each queue file that is still there."""
    try:
        told = postconf.run(directory, "postcat", "-e", "-q", *ids)
    except PostfixCommandFailed:
        if len(ids) == 1:
            return {}
        half = len(ids) // 2
        first = _content_filters(directory, ids[:half])
        return {**first, **_content_filters(directory, ids[half:])}
    found: dict[str, str] = {}
    queue_id = ""
    for line in told.split("\n"):
        if line.startswith(HEADING):
            path = line[len(HEADING) :].partition(" ")[0]
            queue_id = path.rpartition("/")[2]
        elif line.startswith("content_filter:"):
            found[queue_id] = line.partition(":")[2].strip()
    return found
