"""Collects the state of an instance: store, queue, fallback directory, bypass, runs.

Used by cli/status. Writes only the tally cache.
"""

from __future__ import annotations

import json
import os
import time

from postfix_archive import __version__
from postfix_archive.back import (
    fallback,
    files,
    followed,
    gap,
    holdings,
    mailq,
    reading,
    rescue,
    tallying,
)
from postfix_archive.core import rescuing, standing, trace
from postfix_archive.core.errors import ArchiveError
from postfix_archive.core.observed import Waiting
from postfix_archive.core.settings import Settings
from postfix_archive.core.standing import Reconciled, Space, Standing, Waits
from postfix_archive.core.tally import Tally


def stands(directory: str, settings: Settings) -> Standing:
    """Return the state of the instance now; it includes errors of the store.

    Raises ArchiveError if the mail queue or the record of a bypass cannot be read.
    """
    now = time.time()
    queued = mailq.queued(directory)
    folder = settings.archive_fallback_directory
    tallies, trouble = _tallies(settings)
    return Standing(
        directory=directory,
        version=__version__,
        backlogs={
            "queue": _queued([e for e in queued if rescuing.is_capsule(e)], now),
            "fallback": _fallback(folder, now),
            "filter": _queued([e for e in queued if rescuing.is_at_filter(e)], now),
        },
        on_hold=rescue.held(directory),
        bypass=gap.read(directory),
        tallies=tallies,
        store_errors=trouble,
        file_systems=_spaces(settings),
        reconcile_run=_reconciled(f"{folder}/{holdings.NOTE}"),
        rescue_time=_touched(f"{folder}/{rescue.RESCUED}"),
        followed_until=_touched(f"{folder}/{followed.LOOKED}"),
    )


def _tallies(settings: Settings) -> tuple[dict[str, Tally], dict[str, str]]:
    if not settings.stores:
        return {}, {}
    store = settings.archive_store_directory
    try:
        names = reading.archives(store)
    except ArchiveError as error:
        return {}, {"": str(error)}
    return tallying.tallies(store, names, settings.archive_fallback_directory)


def _queued(waiting: list[Waiting], now: float) -> Waits:
    oldest = max(waiting, key=lambda each: each.age, default=None)
    if oldest is None:
        return Waits()
    return Waits(
        count=len(waiting),
        age=oldest.age,
        since=trace.timestamp(now - oldest.age),
        why=oldest.reason,
        tried=any(any(each.reasons) for each in waiting),
    )


def _fallback(folder: str, now: float) -> Waits:
    found = fallback.waiting(folder)
    if not found:
        return Waits()
    since = found[0][0]
    return Waits(
        count=len(found),
        age=int(max(0, now - since)),
        since=trace.timestamp(since),
        why=fallback.why(folder),
        tried=True,
    )


def _spaces(settings: Settings) -> dict[str, Space]:
    places = {"fallback": settings.archive_fallback_directory}
    if settings.stores:
        places = {"store": settings.archive_store_directory, **places}
    found = {}
    for place, folder in places.items():
        try:
            told = os.statvfs(folder)
        except OSError:
            continue  # not created yet, or not accessible
        block = told.f_frsize
        free = told.f_bavail * block
        found[place] = Space(told.f_blocks * block, free, told.f_files, told.f_favail)
    return found


def _reconciled(path: str) -> Reconciled | None:
    try:
        with os.fdopen(files.opened(path), "rb") as opened:
            return standing.reconciled(json.loads(opened.read()))
    except (OSError, ValueError, RecursionError):
        return None


def _touched(path: str) -> float | None:
    """Return the modification time of a file, None if there is none."""
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return None
