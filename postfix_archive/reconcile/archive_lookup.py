"""Looks up archived and waiting messages: journals, fallback directory, mail queue.

Used by cli/reconcile. Writes only the summary of the last run, which the package status
shows.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import time
from collections.abc import Collection
from typing import Any

from postfix_archive.bypass import switch
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError, CapsuleBroken
from postfix_archive.maillog.queue_tracker import CAPSULE_MESSAGE_ID
from postfix_archive.postfix import mail_queue
from postfix_archive.reconcile.totals import Pending
from postfix_archive.rescue import rescue_plan
from postfix_archive.store import (
    fallback,
    journal,
    journal_event,
    journal_format,
    journal_reader,
    record_reader,
)
from postfix_archive.store.bypass_period import BypassPeriod
from postfix_archive.system import files, privileges

SUMMARY_NAME = "reconciled"  # file name, in the fallback directory
HEADER_SIZE = 1 << 13  # bytes: holds the header of a capsule


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
    for archive in _archives(settings):
        path = journal_reader.path_of(settings.archive_store_directory, archive)
        for line in journal_reader.lines_between(path, begin, end):
            if _is_candidate(line, archive_ids):
                matches |= _matching_ids(line, archive_ids)
    return matches


def archive_begin(settings: Settings) -> float:
    """Return since when this host archives: Unix time, 0 if unknown.

    When the first archived message arrived or, if that is earlier, the key file was
    made or changed: make install makes one, and sends a message. Raises JournalFailed.
    """
    times = [
        _first_arrival(settings.archive_store_directory, archive)
        for archive in _archives(settings)
    ]
    with contextlib.suppress(OSError):
        times.append(os.stat(settings.archive_key_file).st_mtime)
    return min(filter(None, times), default=0.0)


def _first_arrival(store_directory: str, archive: str) -> float:
    """Return when the message of the first capture arrived, or else was archived."""
    path = journal_reader.path_of(store_directory, archive)
    for line in journal_reader.lines(path):
        event = journal_reader.valid_event(line)
        if event is not None and event["event"] in journal.CAPTURE_EVENTS:
            archived = datetime.datetime.fromisoformat(event["time"]).timestamp()
            with contextlib.suppress(CapsuleBroken):
                arrival = journal_event.parse_envelope(event).arrival
                return min(archived, arrival or archived)
    return 0.0


def bypass_periods(
    directory: str, settings: Settings, begin: float
) -> tuple[BypassPeriod, ...]:
    """Return the bypass periods in the journals since a time, and the current one."""
    store = settings.archive_store_directory
    periods = [
        period
        for archive in _archives(settings)
        for period in record_reader.bypass_periods(store, archive, begin)
    ]
    with contextlib.suppress(ArchiveError):
        current = switch.read_record(directory)
        periods += [current.period] if current else []
    # An end event follows its start event and replaces it.
    return tuple({each.started: each for each in periods}.values())


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
        capsule_id: since
        for since, path in fallback.waiting_capsules(fallback_directory)
        if (capsule_id := _capsule_id(path))
    }
    max_wait = rescue_plan.ALARM_AGE + settings.archive_wait_for_outcome
    return Pending(queue, in_fallback, time.time(), max_wait)


def save_summary(settings: Settings, summary: dict[str, Any]) -> None:
    """Save the summary of a run for the package status. Raises StoreFailed."""
    directory = settings.archive_fallback_directory
    with privileges.as_owner(directory):
        text = json.dumps(summary).encode() + b"\n"
        files.replace(f"{directory}/{SUMMARY_NAME}", text, files.DRAFT_MODE)


def _archives(settings: Settings) -> list[str]:
    if not settings.has_store:
        return []
    return record_reader.archives(settings.archive_store_directory)


def _is_candidate(
    line: journal_reader.Line,
    archive_ids: Collection[str],
) -> bool:
    """Return whether to parse a line, which costs ten times as much as this."""
    return line.kind in journal.CAPTURE_EVENTS and (
        journal_format.string_field(line.content, "id") in archive_ids
        or line.envelope_field("Archive-Id") in archive_ids
    )


def _matching_ids(line: journal_reader.Line, archive_ids: Collection[str]) -> set[str]:
    """Return record id and archive id of a capture if one of them is looked for."""
    if line.is_struck_out:
        return {journal_format.string_field(line.content, "id")}
    event = journal_reader.valid_event(line)
    if event is None:
        return set()
    try:
        archive_id = journal_event.parse_envelope(event).archive_id
    except CapsuleBroken:
        return set()
    ids = {event["id"], archive_id}
    return set() if ids.isdisjoint(archive_ids) else ids


def _capsule_id(path: str) -> str:
    """Return the archive id of a file in the fallback directory, or else its path.

    "" for a file that has been imported since it was listed: it is in a journal now.
    """
    try:
        with open(files.open_regular(path), "rb") as file:
            header = file.read(HEADER_SIZE).decode("latin-1")
    except FileNotFoundError:
        return ""
    except OSError as error:
        if error.errno in (0, errno.ELOOP, errno.ENXIO):  # planted: no regular file
            return path
        raise files.store_error(path, error) from error
    for line in header.lower().split("\r\n"):
        match = CAPSULE_MESSAGE_ID.match(line.replace("message-id: ", "message-id=", 1))
        if match is not None:
            return match.group(1)
    return path
