"""Postfix's queue: what in it waits for the archive, and sending it another way.

Used by uninstall and by the bypass. Reads it by postqueue(1) and postcat(1), requeues
by postsuper(1); never touches a queue file itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from postfix_archive.back import postconf
from postfix_archive.back.host import PATIENCE
from postfix_archive.core import ways
from postfix_archive.core.errors import PostfixCommandFailed
from postfix_archive.core.observed import Waiting

ARCHIVE = "archive:"
REQUESTS = "@archive-request.invalid"
IN_HAND = 60.0  # seconds that a run of the filter may still take
MOST = 200  # queue files that are opened to see where they go


def waiting(directory: str) -> list[str]:
    """Return the ids of queue files that go to a transport of ours."""
    return [
        queue_id
        for queue_id, content_filter, told in _envelopes(directory)
        if content_filter.startswith((ways.STAMP, ARCHIVE)) or REQUESTS in told
    ]


def oldest(directory: str) -> Iterator[Waiting]:
    """Give what is queued, the oldest first; content_filter for the first MOST."""
    now = int(time.time())
    lines = postconf.run(directory, "postqueue", "-j").splitlines()
    queued = sorted(map(json.loads, lines), key=lambda each: int(each["arrival_time"]))
    for number, each in enumerate(queued):
        queue_id = str(each["queue_id"])
        told = _envelope(directory, queue_id) if number < MOST else ""
        yield Waiting(
            queue_id=queue_id,
            age=now - int(each["arrival_time"]),
            sender=each["sender"],
            recipients=tuple(one["address"] for one in each["recipients"]),
            reasons=tuple(one.get("delay_reason", "") for one in each["recipients"]),
            content_filter=_content_filter(told),
        )


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
    it twice; left are those that it does not let go of.
    """
    done = 0
    end = time.monotonic() + IN_HAND
    while True:
        waiting = list(_at_the_filter(directory, "deferred"))
        for each in waiting:
            postconf.run(directory, "postsuper", "-r", each, "deferred")
        done += len(waiting)
        left = len(list(_at_the_filter(directory, "incoming", "active")))
        if not left or time.monotonic() > end:
            return done, left
        time.sleep(0.2)


def _at_the_filter(directory: str, *queues: str) -> Iterator[str]:
    for queue_id, content_filter, _ in _envelopes(directory, *queues):
        if content_filter.startswith(ways.STAMP):
            yield queue_id


def _envelopes(directory: str, *queues: str) -> Iterator[tuple[str, str, str]]:
    """Give queue id, content filter and the whole envelope of all that is queued."""
    for line in postconf.run(directory, "postqueue", "-j").splitlines():
        queued = json.loads(line)
        queue_id = str(queued["queue_id"])
        if queues and queued["queue_name"] not in queues:
            continue
        told = _envelope(directory, queue_id)
        if told:
            yield queue_id, _content_filter(told), told


def _envelope(directory: str, queue_id: str) -> str:
    """Return the envelope of a queue file, "" if it has left the queue meanwhile."""
    try:
        return postconf.run(directory, "postcat", "-e", "-q", queue_id)
    except PostfixCommandFailed:
        return ""


def _content_filter(told: str) -> str:
    found = [w for w in told.splitlines() if w.startswith("content_filter:")]
    return found[-1].split(":", 1)[1].strip() if found else ""
