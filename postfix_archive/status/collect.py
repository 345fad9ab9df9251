"""Collects the state of an instance: store, queue, fallback directory, bypass, runs.

Used by cli/status. Writes only the tally cache and the ends of the journals.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable

from postfix_archive import __version__
from postfix_archive.bypass import switch
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError
from postfix_archive.message import dates
from postfix_archive.outcomes import follower_state
from postfix_archive.postfix import mail_queue
from postfix_archive.postfix.queued_message import QueuedMessage
from postfix_archive.reconcile import archive_lookup
from postfix_archive.replicate import replication_lag
from postfix_archive.rescue import queue_rescue, rescue_plan
from postfix_archive.seal import seal_lag
from postfix_archive.seal.seal_lag import SealState
from postfix_archive.search import index_lag
from postfix_archive.search.index_lag import Lag
from postfix_archive.status import last_verify, overview
from postfix_archive.status.overview import Backlog, FileSystem, ReconcileRun, Snapshot
from postfix_archive.store import fallback, known_end, record_reader, tally_cache
from postfix_archive.store.tally import Tally
from postfix_archive.system import failure_log, files


def snapshot(directory: str, settings: Settings) -> Snapshot:
    """Return the state of the instance now; it includes errors of the store.

    Raises ArchiveError if the mail queue or the record of a bypass cannot be read.
    """
    now = time.time()
    messages = mail_queue.list_messages(directory)
    last_failure = failure_log.last(
        directory,
        settings.archive_spool_directory,
        owner_of=settings.own_paths,
    )
    fallback_directory = settings.archive_fallback_directory
    tallies, store_errors, losses = _tallies(settings)
    bypass = switch.read_record(directory)
    return Snapshot(
        directory=directory,
        version=__version__,
        backlogs={
            "queue": _queue_backlog(
                [e for e in messages if rescue_plan.is_copy(e)], now, last_failure
            ),
            "fallback": _fallback_backlog(fallback_directory, now),
            "filter": _queue_backlog(
                [e for e in messages if rescue_plan.is_waiting_for_filter(e)],
                now,
                last_failure,
            ),
        },
        on_hold=queue_rescue.read_hold_times(directory),
        bypass=bypass.period if bypass else None,
        tallies=tallies,
        store_errors=store_errors,
        losses=losses,
        file_systems=_file_systems(settings),
        reconcile_run=_reconcile_run(
            f"{fallback_directory}/{archive_lookup.SUMMARY_NAME}"
        ),
        last_verify=last_verify.read(settings),
        rescue_time=files.modified_time(
            f"{fallback_directory}/{queue_rescue.LAST_RUN_FILE}"
        ),
        followed_until=files.modified_time(
            f"{fallback_directory}/{follower_state.LAST_READ_FILE}"
        ),
        index_lags=_index_lags(settings, tallies),
        replication_lags=_replication_lags(settings, tallies),
        seal_state=_seal_state(settings),
        time=now,
    )


def save_journal_ends(settings: Settings) -> None:
    """Save where the journals end, for the next look; see store/known_end."""
    _tallies(settings)


def _tallies(
    settings: Settings,
) -> tuple[dict[str, Tally], dict[str, str], dict[str, str]]:
    """Return the tallies, errors of the store, and losses of journals, by archive."""
    if not settings.has_store:
        return {}, {}, {}
    store = settings.archive_store_directory
    fallback_directory = settings.archive_fallback_directory
    try:
        archives = record_reader.archives(store)
    except ArchiveError as error:
        return {}, {"": str(error)}, {}
    tallies, errors = tally_cache.current_tallies(store, archives, fallback_directory)
    losses = tally_cache.save_ends(store, tallies, fallback_directory)
    advice = known_end.advice(fallback_directory)
    texts = {
        name: f"{store}/{name}: {reason}; {advice}" for name, reason in losses.items()
    }
    return tallies, errors, texts


def _index_lags(settings: Settings, archives: Iterable[str]) -> dict[str, Lag]:
    lags = {}
    for archive in archives:
        with contextlib.suppress(ArchiveError):  # the journal's errors are reported
            lags[archive] = index_lag.lag(settings, archive)
    return lags


def _replication_lags(
    settings: Settings, archives: Iterable[str]
) -> dict[str, replication_lag.Lag]:
    if not settings.archive_object_store:
        return {}
    lags = {}
    for archive in archives:
        with contextlib.suppress(ArchiveError):
            lags[archive] = replication_lag.lag(settings, archive)
    return lags


def _seal_state(settings: Settings) -> SealState | None:
    with contextlib.suppress(ArchiveError):  # the store's errors are reported
        return seal_lag.state(settings)
    return None


def _queue_backlog(
    messages: list[QueuedMessage], now: float, last_failure: str
) -> Backlog:
    oldest = max(messages, key=lambda each: each.age, default=None)
    if oldest is None:
        return Backlog()
    return Backlog(
        count=len(messages),
        age=oldest.age,
        since=dates.format_rfc3339(now - oldest.age),
        reason=failure_log.explain(oldest.delay_reason, last_failure),
        has_failed=any(any(each.delay_reasons) for each in messages),
    )


def _fallback_backlog(directory: str, now: float) -> Backlog:
    capsules = fallback.waiting_capsules(directory)
    if not capsules:
        return Backlog()
    since = capsules[0][0]
    return Backlog(
        count=len(capsules),
        age=int(max(0, now - since)),
        since=dates.format_rfc3339(since),
        reason=fallback.last_reason(directory),
        has_failed=True,
    )


def _file_systems(settings: Settings) -> dict[str, FileSystem]:
    directories = {"fallback": settings.archive_fallback_directory}
    if settings.has_store:
        directories = {"store": settings.archive_store_directory, **directories}
    file_systems = {}
    for place, directory in directories.items():
        try:
            stat = os.statvfs(directory)
        except OSError:
            continue  # not created yet, or not accessible
        block_size = stat.f_frsize
        free = stat.f_bavail * block_size
        file_systems[place] = FileSystem(
            stat.f_blocks * block_size, free, stat.f_files, stat.f_favail
        )
    return file_systems


def _reconcile_run(path: str) -> ReconcileRun | None:
    try:
        with os.fdopen(files.open_regular(path), "rb") as file:
            return overview.parse_reconcile_run(json.loads(file.read()))
    except (OSError, ValueError, RecursionError):
        return None
