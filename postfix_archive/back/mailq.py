"""List, flush and requeue the messages in Postfix's queue.

Used by rescue, bypass, doctor, status, reconcile and uninstall. Reads the queue with
postqueue(1) and postcat(1) and requeues with postsuper(1); does not open queue files.
Raises PostfixCommandFailed.
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
IN_HAND = 60.0  # seconds to wait for stamp filter processes that are at work
AT_ONCE = 200  # queue files on one postcat(1) command line
HEADING = "*** ENVELOPE RECORDS "
# Exceptions that parsing JSON of an unexpected form raises.
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def queued(directory: str, most: int | None = None) -> list[Waiting]:
    """Return the queued messages, the oldest first.

    The content_filter is read for the oldest filter_limit messages, None for all.
    """
    messages = _told(postconf.run(directory, "postqueue", "-j"), int(time.time()))
    ids = [each.queue_id for each in messages[:most]]
    filters: dict[str, str] = {}
    for start in range(0, len(ids), AT_ONCE):
        filters.update(_content_filters(directory, ids[start : start + AT_ONCE]))
    return [replace(e, content_filter=filters.get(e.queue_id, "")) for e in messages]


def waiting(directory: str) -> list[str]:
    """Return the queue ids of messages that wait for a transport of ours."""
    return [each.queue_id for each in queued(directory) if _is_ours(each)]


def drain(directory: str) -> list[str]:
    """Flush the queue until no message waits for our transports; return those left."""
    left = waiting(directory)
    end = time.monotonic() + PATIENCE
    while left and time.monotonic() < end:
        postconf.run(directory, "postqueue", "-f")
        time.sleep(0.5)
        left = waiting(directory)
    return left


def requeue(directory: str) -> tuple[int, int]:
    """Requeue what waits for a stamp filter; return the counts of done and left.

    Each message gets the content_filter that pickup(8) has now (postsuper(1), -r).
    Messages that the filter is processing could be delivered twice if they were
    requeued: this waits for them, and counts those left after ACTIVE_TIMEOUT. It stops
    after two listings without such messages, since one listing can miss a message that
    moves between queue directories.
    """
    requeued = empty_listings = 0
    end = time.monotonic() + IN_HAND
    while True:
        messages = [
            each
            for each in queued(directory)
            if each.content_filter.startswith(ways.STAMP) and each.queue != "hold"
        ]
        deferred = [each.queue_id for each in messages if each.queue == "deferred"]
        for queue_id in deferred:
            postconf.run(directory, "postsuper", "-r", queue_id, "deferred")
        requeued += len(deferred)
        empty_listings = 0 if messages else empty_listings + 1
        if empty_listings == 2 or time.monotonic() > end:
            return requeued, len(messages) - len(deferred)
        time.sleep(0.2)


def _is_ours(each: Waiting) -> bool:
    has_filter = each.content_filter.startswith((ways.STAMP, ARCHIVE))
    return has_filter or any(one.endswith(request.REQUESTS) for one in each.recipients)


def _told(listing: str, now: int) -> list[Waiting]:
    """Parse the output of postqueue -j; return the messages, the oldest first.

    Lines end with LF alone: an address can contain the other characters at which
    str.splitlines() splits.
    """
    try:
        lines = filter(None, listing.split("\n"))
        messages = [_waiting(json.loads(line), now) for line in lines]
    except UNREADABLE as problem:
        raise PostfixCommandFailed(
            f"postqueue -j: unexpected output: {problem!r}"
        ) from problem
    return sorted(messages, key=lambda each: -each.age)


def _waiting(told: Any, now: int) -> Waiting:
    """Return the message of one line of postqueue -j, as postqueue(1) describes it."""
    recipients = told["recipients"]
    reasons = (str(each.get("delay_reason", "")) for each in recipients)
    return Waiting(
        queue_id=str(told["queue_id"]),
        queue=str(told["queue_name"]),
        age=abs(now - int(told["arrival_time"])),  # see QueuedMessage
        sender=str(told["sender"]),
        recipients=tuple(str(each["address"]) for each in recipients),
        reasons=tuple(record.shown(e.encode("utf-8", "replace")) for e in reasons),
    )


def _content_filters(directory: str, ids: list[str]) -> dict[str, str]:
    """Return queue id -> content_filter of the messages that are still queued.

    postcat(1) fails if one message is gone: each half is tried again then.
    """
    try:
        output = postconf.run(directory, "postcat", "-e", "-q", *ids)
    except PostfixCommandFailed:
        if len(ids) == 1:
            return {}
        half = len(ids) // 2
        first = _content_filters(directory, ids[:half])
        return {**first, **_content_filters(directory, ids[half:])}
    filters: dict[str, str] = {}
    queue_id = ""
    for line in output.split("\n"):
        if line.startswith(HEADING):
            path = line[len(HEADING) :].partition(" ")[0]
            queue_id = path.rpartition("/")[2]
        elif line.startswith("content_filter:"):
            filters[queue_id] = line.partition(":")[2].strip()
    return filters
