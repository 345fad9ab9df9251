"""Looks up archived and waiting messages: journals, fallback directory, mail queue.

Used by cli/reconcile. Writes only the summary of the last run, which the package status
shows.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from postfix_archive.back import (
    acting,
    excerpt,
    fallback,
    files,
    gap,
    journal,
    mailq,
    reading,
)
from postfix_archive.core import record, rescuing
from postfix_archive.core.capsules import NAMED
from postfix_archive.core.causes import Gap
from postfix_archive.core.errors import ArchiveError, CapsuleBroken
from postfix_archive.core.reckoning import Held
from postfix_archive.core.settings import Settings

NOTE = "reconciled"  # file name, in the fallback directory
HEAD = 1 << 13  # bytes: holds the header of a capsule
# Seconds between a message's first log line and its Received: date.
NEAR = 3600.0
KEEPS = (b'"event":"archived"', b'"event":"supplement"')
GAPS = b'"event":"gap-'
RECORD_ID = re.compile(rb'"id":"(\d{8}-[0-9a-f]{40})"')
CAPTURE_ID = re.compile(rb"\\r\\nArchive-Id: (\d{8}-[0-9a-f]{40})\\r\\n")
QUEUE_ID = re.compile(rb"\\r\\nX-Postfix-Queue-ID: ([0-9A-Za-z]+)\\r\\n")


def kept(
    settings: Settings,
    archive_ids: Collection[str],
    queue_ids: Mapping[str, float],
    begin: float,
    end: float | None = None,
) -> set[str]:
    """Return the archive ids and queue ids which a journal has.

    queue_ids maps each to the time at which its message arrived. begin and end are the
    first and the last arrival, end None: now; all in seconds since 1970. Raises
    JournalFailed.
    """
    found: set[str] = set()
    if not archive_ids and not queue_ids:
        return found
    for path in _journals(settings):
        for line in excerpt.lines(path, begin, end):
            if not any(each in line[:100] for each in KEEPS):
                continue
            named = _named(RECORD_ID, line) | _named(CAPTURE_ID, line)
            if not named.isdisjoint(archive_ids):
                found |= _proved(line)
            elif not _named(QUEUE_ID, line).isdisjoint(queue_ids):
                found |= _by_queue_id(line, queue_ids)
    return found


def gaps(directory: str, settings: Settings, begin: float) -> tuple[Gap, ...]:
    """Return the bypass periods in the journals since a time, and the current one."""
    told = [
        event
        for path in _journals(settings)
        for line in excerpt.lines(path, begin)
        if GAPS in line[:100]
        for event in _events(line)
    ]
    with contextlib.suppress(ArchiveError):
        told += [each for each in [gap.read(directory)] if each is not None]
    # An end event follows its start event and replaces it.
    found = {each["opened"]: _gap(each) for each in told}
    return tuple(found.values())


def held(directory: str, settings: Settings) -> Held:
    """Return what waits in Postfix's queue and in the fallback directory.

    Lists the queue twice: one listing can miss mail that moves between queues.
    """
    looks = mailq.queued(directory, 0) + mailq.queued(directory, 0)
    queue = {each.queue_id: each for each in looks}
    folder = settings.archive_fallback_directory
    aside = {_capsule_of(path): since for since, path in fallback.waiting(folder)}
    patience = rescuing.NOTICED + settings.archive_wait_for_outcome
    return Held(queue, aside, time.time(), patience)


def note(settings: Settings, words: dict[str, Any]) -> None:
    """Save the summary of a run for the package status. Raises StoreFailed."""
    folder = settings.archive_fallback_directory
    with acting.as_owner(folder):
        text = json.dumps(words).encode() + b"\n"
        files.replace(f"{folder}/{NOTE}", text, files.DRAFT_MODE)


def _journals(settings: Settings) -> Iterator[str]:
    store = settings.archive_store_directory
    for each in reading.archives(store) if settings.stores else ():
        yield f"{store}/{each}/{journal.NAME}"


def _named(pattern: re.Pattern[bytes], line: bytes) -> set[str]:
    return {each.decode("ascii") for each in pattern.findall(line)}


def _events(line: bytes) -> Iterator[dict[str, Any]]:
    """Yield the event of a line; nothing if the line is torn or invalid."""
    with contextlib.suppress(ValueError, RecursionError):
        event = json.loads(line)
        if record.is_event(event):
            yield event


def _proved(line: bytes) -> set[str]:
    """Return the record id and the archive id of a line, fully parsed."""
    found: set[str] = set()
    for event in _events(line):
        with contextlib.suppress(CapsuleBroken):
            found |= {event["id"], record.sealed(event).archive_id}
    return found


def _by_queue_id(line: bytes, queue_ids: Mapping[str, float]) -> set[str]:
    for event in _events(line):
        with contextlib.suppress(CapsuleBroken):
            told = record.sealed(event)
            queue_id = told.queue_id.decode("ascii", "replace")
            came = queue_ids.get(queue_id)
            if came is not None and abs(came - (told.arrival or came)) < NEAR:
                return {queue_id}
    return set()


def _gap(event: dict[str, Any]) -> Gap:
    opened = _seconds(event["opened"])
    closed = _seconds(event["closed"]) if event.get("closed") else float("inf")
    why = f"from {event['opened']} to {event.get('closed', 'now')}: {event['why']}"
    return Gap(opened, closed, why)


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def _capsule_of(path: str) -> str:
    """Return the archive id of a file in the fallback directory, or else its path."""
    descriptor = fallback.opened(path)
    with os.fdopen(descriptor, "rb") as opened:
        head = opened.read(HEAD).decode("latin-1")
    for line in head.lower().split("\r\n"):
        found = NAMED.match(line.replace("message-id: ", "message-id=", 1))
        if found is not None:
            return found.group(1)
    return path
