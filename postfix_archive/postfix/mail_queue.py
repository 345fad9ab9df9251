"""List, flush, hold, release, requeue and delete the messages in Postfix's queue.

Used by rescue, bypass, doctor, status, reconcile and uninstall. Reads the queue with
postqueue(1) and postcat(1) and changes it with postsuper(1); does not open queue files.
Raises PostfixCommandFailed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from postfix_archive.errors import PostfixCommandFailed
from postfix_archive.message import printable
from postfix_archive.postfix import archive_services, postfix_command
from postfix_archive.postfix.queued_message import QueuedMessage

ACTIVE_TIMEOUT = 60.0  # seconds to wait for stamp filter processes that are at work
WAIT_TIMEOUT = 120.0  # seconds to wait for ports, the probe and the queue
LISTING_TIMEOUT = 120.0  # seconds for one listing, of 20,000 messages that vanish
POSTCAT_BATCH = 200  # queue files on one postcat(1) command line
NAMED_ATTRIBUTE = "named_attribute:"
POSTCAT_HEADING = "*** ENVELOPE RECORDS "
# Exceptions that parsing JSON of an unexpected form raises.
PARSE_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def list_messages(
    directory: str, filter_limit: int | None = None
) -> list[QueuedMessage]:
    """Return the queued messages, the oldest first.

    The content_filter is read for the oldest filter_limit messages, None for all.
    """
    messages = _parse_listing(
        postfix_command.run(directory, "postqueue", "-j"), int(time.time())
    )
    ids = [each.queue_id for each in messages[:filter_limit]]
    filters = _content_filters(directory, ids)
    return [replace(e, content_filter=filters.get(e.queue_id, "")) for e in messages]


def attributes(directory: str, queue_id: str) -> dict[str, str]:
    """Return the named attributes of a queue file, as postcat(1) prints them."""
    output, _ = postfix_command.read_envelopes(directory, [queue_id])
    lines = (
        line.removeprefix(NAMED_ATTRIBUTE).strip()
        for line in output.split("\n")
        if line.startswith(NAMED_ATTRIBUTE)
    )
    return {name: value for name, _, value in (each.partition("=") for each in lines)}


def needs_our_transport(message: QueuedMessage) -> bool:
    """Tell whether a message waits for a transport of ours."""
    has_filter = message.content_filter.startswith(archive_services.OWN_DESTINATIONS)
    return has_filter or bool(message.internal_recipients)


def waiting_ids(
    directory: str, needs: Callable[[QueuedMessage], bool] = needs_our_transport
) -> list[str]:
    """Return the queue ids of messages that need what is to be removed."""
    return [each.queue_id for each in list_messages(directory) if needs(each)]


def drain(
    directory: str, needs: Callable[[QueuedMessage], bool] = needs_our_transport
) -> list[str]:
    """Flush the queue until no message needs what is to be removed; return those left.

    Returns after WAIT_TIMEOUT.
    """
    left = waiting_ids(directory, needs)
    deadline = time.monotonic() + WAIT_TIMEOUT
    while left and time.monotonic() < deadline:
        postfix_command.run(directory, "postqueue", "-f")
        time.sleep(0.5)
        left = waiting_ids(directory, needs)
    return left


HOLD, RELEASE, REQUEUE, DELETE = "-h", "-H", "-r", "-d"  # options of postsuper(1)


def change(
    directory: str, option: str, queue_ids: Iterable[str], *queue_names: str
) -> None:
    """Do one of HOLD, RELEASE, REQUEUE and DELETE with messages, in one process.

    queue_names: only if a message is in one of these queues. A message that is gone is
    skipped.
    """
    content = "".join(f"{queue_id}\n" for queue_id in dict.fromkeys(queue_ids))
    if content:
        arguments = (option, "-", *queue_names)
        postfix_command.run(
            directory, "postsuper", *arguments, content=content.encode()
        )


def requeue(directory: str) -> tuple[int, int]:
    """Requeue what waits for a stamp filter; return the counts of done and left.

    Each message gets the content_filter that pickup(8) has now (postsuper(1), -r).
    Messages that the filter is processing could be delivered twice if they were
    requeued: this waits for them, and counts those left after ACTIVE_TIMEOUT. It stops
    after two listings without such messages, since one listing can miss a message that
    moves between queue directories.
    """
    requeued = empty_listings = 0
    deadline = time.monotonic() + ACTIVE_TIMEOUT
    while True:
        messages = [
            each
            for each in list_messages(directory)
            if each.content_filter.startswith(archive_services.STAMP_TRANSPORT)
            and each.queue != "hold"
        ]
        deferred = [each.queue_id for each in messages if each.queue == "deferred"]
        change(directory, REQUEUE, deferred, "deferred")
        requeued += len(deferred)
        empty_listings = 0 if messages else empty_listings + 1
        if empty_listings == 2 or time.monotonic() > deadline:
            return requeued, len(messages) - len(deferred)
        time.sleep(0.2)


def _parse_listing(listing: str, now: int) -> list[QueuedMessage]:
    """Parse the output of postqueue -j; return the messages, the oldest first.

    Lines end with LF alone: an address can contain the other characters at which
    str.splitlines() splits.
    """
    try:
        lines = filter(None, listing.split("\n"))
        messages = [_parse_message(json.loads(line), now) for line in lines]
    except PARSE_ERRORS as error:
        raise PostfixCommandFailed(
            f"postqueue -j: unexpected output: {error!r}"
        ) from error
    return sorted(messages, key=lambda each: -each.age)


def _parse_message(entry: Any, now: int) -> QueuedMessage:
    """Return the message of one line of postqueue -j, as postqueue(1) describes it."""
    recipients = entry["recipients"]
    reasons = (str(each.get("delay_reason", "")) for each in recipients)
    return QueuedMessage(
        queue_id=str(entry["queue_id"]),
        queue=str(entry["queue_name"]),
        age=abs(now - int(entry["arrival_time"])),  # see QueuedMessage
        sender=str(entry["sender"]),
        recipients=tuple(str(each["address"]) for each in recipients),
        delay_reasons=tuple(map(printable.safe_text, reasons)),
    )


def _content_filters(directory: str, ids: list[str]) -> dict[str, str]:
    """Return queue id -> content_filter, "" if none, of the messages still queued.

    postcat(1) ends at a message that is gone: the next one continues after it, so that
    each such message costs two processes at most.
    """
    filters: dict[str, str] = {}
    start = 0
    deadline = time.monotonic() + LISTING_TIMEOUT
    while start < len(ids):
        if time.monotonic() > deadline:
            raise PostfixCommandFailed(
                f"postcat: {len(ids) - start} of {len(ids)} messages are not read after"
                f" {LISTING_TIMEOUT:.0f} s: the queue changes too fast; try again later"
            )
        batch = ids[start : start + POSTCAT_BATCH]
        output, is_complete = postfix_command.read_envelopes(directory, batch)
        batch_filters = _parse_envelopes(output)
        filters.update(batch_filters)
        read_count = len(batch)
        if not is_complete:
            read = (n for n, each in enumerate(batch, 1) if each in batch_filters)
            read_count = max(read, default=1)  # 1: the first one is gone
        start += read_count
    return filters


def _parse_envelopes(output: str) -> dict[str, str]:
    """Return queue id -> content_filter, "" if none, from the output of postcat -e."""
    filters: dict[str, str] = {}
    queue_id = ""
    for line in output.split("\n"):
        if line.startswith(POSTCAT_HEADING):
            path = line[len(POSTCAT_HEADING) :].partition(" ")[0]
            queue_id = path.rpartition("/")[2]
            filters[queue_id] = ""
        elif line.startswith("content_filter:"):
            filters[queue_id] = line.partition(":")[2].strip()
    return filters
