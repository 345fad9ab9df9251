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
from collections.abc import Collection, Iterator
from typing import Any

from postfix_archive.bypass import switch
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError, CapsuleBroken
from postfix_archive.maillog.queue_tracker import CAPSULE_MESSAGE_ID
from postfix_archive.postfix import mail_queue
from postfix_archive.reconcile.causes import BypassPeriod
from postfix_archive.reconcile.totals import Pending
from postfix_archive.rescue import rescue_plan
from postfix_archive.store import (
    fallback,
    journal,
    journal_reader,
    record,
    record_reader,
)
from postfix_archive.system import files, privileges

SUMMARY_NAME = "reconciled"  # file name, in the fallback directory
HEADER_SIZE = 1 << 13  # bytes: holds the header of a capsule
CAPTURE_EVENTS = (b'"event":"archived"', b'"event":"supplement"')
BYPASS_EVENT = b'"event":"gap-'
RECORD_ID_FIELD = re.compile(rb'"id":"(\d{8}-[0-9a-f]{40})"')
ARCHIVE_ID_FIELD = re.compile(rb"\\r\\nArchive-Id: (\d{8}-[0-9a-f]{40})\\r\\n")


def ids_in_journals(
    settings: Settings,
    archive_ids: Collection[str],
    begin: float,
    end: float | None = None,
) -> set[str]:
    """Return the archive ids which a journal has.

    begin and end are the first and the last arrival, end None: now; both in seconds
    since 1970. Raises JournalFailed.
    """
    matches: set[str] = set()
    if not archive_ids:
        return matches
    for path in _journal_paths(settings):
        for line in journal_reader.lines_between(path, begin, end):
            if not any(each in line[:100] for each in CAPTURE_EVENTS):
                continue
            line_ids = _find_ids(RECORD_ID_FIELD, line) | _find_ids(
                ARCHIVE_ID_FIELD, line
            )
            if not line_ids.isdisjoint(archive_ids):
                matches |= _captured_ids(line)
    return matches


def bypass_periods(
    directory: str, settings: Settings, begin: float
) -> tuple[BypassPeriod, ...]:
    """Return the bypass periods in the journals since a time, and the current one."""
    events = [
        event
        for path in _journal_paths(settings)
        for line in journal_reader.lines_between(path, begin)
        if BYPASS_EVENT in line[:100]
        for event in _events(line)
    ]
    with contextlib.suppress(ArchiveError):
        events += [each for each in [switch.read_record(directory)] if each is not None]
    # An end event follows its start event and replaces it.
    periods = {each["opened"]: _bypass_period(each) for each in events}
    return tuple(periods.values())


def pending(directory: str, settings: Settings) -> Pending:
    """Return what waits in Postfix's queue and in the fallback directory.

    Lists the queue twice: one listing can miss mail that moves between queues.
    """
    messages = mail_queue.list_messages(directory, 0) + mail_queue.list_messages(
        directory, 0
    )
    queue = {each.queue_id: each for each in messages}
    fallback_directory = settings.archive_fallback_directory
    in_fallback = {
        _capsule_id(path): since
        for since, path in fallback.waiting_capsules(fallback_directory)
    }
    max_wait = rescue_plan.ALARM_AGE + settings.archive_wait_for_outcome
    return Pending(queue, in_fallback, time.time(), max_wait)


def save_summary(settings: Settings, summary: dict[str, Any]) -> None:
    """Save the summary of a run for the package status. Raises StoreFailed."""
    directory = settings.archive_fallback_directory
    with privileges.as_owner(directory):
        text = json.dumps(summary).encode() + b"\n"
        files.replace(f"{directory}/{SUMMARY_NAME}", text, files.DRAFT_MODE)


def _journal_paths(settings: Settings) -> Iterator[str]:
    store = settings.archive_store_directory
    for archive in record_reader.archives(store) if settings.has_store else ():
        yield f"{store}/{archive}/{journal.FILE_NAME}"


def _find_ids(pattern: re.Pattern[bytes], line: bytes) -> set[str]:
    return {each.decode("ascii") for each in pattern.findall(line)}


def _events(line: bytes) -> Iterator[dict[str, Any]]:
    """Yield the event of a line; nothing if the line is torn or invalid."""
    with contextlib.suppress(ValueError, RecursionError):
        event = json.loads(line)
        if record.is_valid_event(event):
            yield event


def _captured_ids(line: bytes) -> set[str]:
    """Return the record id and the archive id of a line, fully parsed."""
    ids: set[str] = set()
    for event in _events(line):
        with contextlib.suppress(CapsuleBroken):
            ids |= {event["id"], record.parse_envelope(event).archive_id}
    return ids


def _bypass_period(event: dict[str, Any]) -> BypassPeriod:
    start = _seconds(event["opened"])
    end = _seconds(event["closed"]) if event.get("closed") else float("inf")
    description = (
        f"from {event['opened']} to {event.get('closed', 'now')}: {event['why']}"
    )
    return BypassPeriod(start, end, description)


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def _capsule_id(path: str) -> str:
    """Return the archive id of a file in the fallback directory, or else its path."""
    descriptor = fallback.open_capsule(path)
    with os.fdopen(descriptor, "rb") as file:
        header = file.read(HEADER_SIZE).decode("latin-1")
    for line in header.lower().split("\r\n"):
        match = CAPSULE_MESSAGE_ID.match(line.replace("message-id: ", "message-id=", 1))
        if match is not None:
            return match.group(1)
    return path
