"""Keeps the bucket up to date with the store: once, or until it is stopped.

Used by cli.replicate, as the owner of the store; one process for an instance. Capture
does not know of it: it watches the journals. Raises ReplicatorRunning and what
replicator raises.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError, ReplicatorRunning, SettingInvalid
from postfix_archive.replicate import (
    bucket,
    moved_copies,
    replication_lag,
    replication_state,
    retention_locks,
    seal_replication,
)
from postfix_archive.replicate.relocking import Locks
from postfix_archive.replicate.replication_state import ArchiveState, State
from postfix_archive.replicate.replicator import Replicator
from postfix_archive.replicate.retention_locks import NoLocks, RetentionLocks
from postfix_archive.store import record_reader
from postfix_archive.system import privileges
from postfix_archive.system.file_watch import Watch
from postfix_archive.system.service_loop import ServiceLoop, Warn

LOCK_NAME = "replicate.lock"  # in archive_fallback_directory
# Between two looks at the journals. What is new in that time becomes one object for
# each record; the bucket is that much behind.
POLL_SECONDS = 5.0
MOVE_SECONDS = 30.0  # for which new mail waits while copies of all archives are moved


@contextlib.contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Hold the lock of the one process. Raises ReplicatorRunning."""
    directory = settings.archive_fallback_directory
    lock = privileges.try_lock(f"{directory}/{LOCK_NAME}")
    if lock < 0:
        raise ReplicatorRunning(
            f"another postfix-archive replicate is already running in {directory}"
        )
    try:
        yield
    finally:
        os.close(lock)


class ReplicationService:
    """Replicates the store of one instance; the caller holds the lock."""

    def __init__(self, settings: Settings, warn: Warn) -> None:
        if not settings.has_store:
            raise SettingInvalid(
                "archive_delivery = mail: there is no store to replicate"
            )
        if (
            settings.archive_local_days
            and settings.archive_object_lock == bucket.NO_LOCK
        ):
            raise SettingInvalid(
                "archive_local_days is set: the only copy of a message must be locked;"
                " set archive_object_lock to governance or compliance"
            )
        self._settings = settings
        self._warn = warn
        self._loop = ServiceLoop(warn, POLL_SECONDS)
        self._bucket = bucket.of_settings(settings)
        self._is_checked = False
        self._state = replication_state.read(settings) or State(
            settings.archive_object_store
        )
        self._seals: set[str] = set()  # names of their files in the bucket
        self._replicators: dict[str, Replicator] = {}

    def run_once(self) -> None:
        """Upload all that is new.

        An archive that fails does not keep the others from it; its error is raised in
        the end.
        """
        if not self._is_checked:
            self._bucket.check()
            self._bucket.abort_uploads()
            self._is_checked = True
        has_lock = self._settings.archive_object_lock != bucket.NO_LOCK
        holds = retention_locks.open_holds(self._settings) if has_lock else []
        failure: ArchiveError | None = None
        for archive in record_reader.archives(self._settings.archive_store_directory):
            try:
                for _ in self._replicator(archive).run(holds):
                    self._loop.sleep(0)
                    if self._loop.is_stopped:
                        return
            except ArchiveError as error:
                # It begins anew, and does not upload again what is there.
                self._replicators.pop(archive, None)
                failure = error
        if failure is not None:
            raise failure
        self._upload_seals()
        replication_lag.touch_last_run(self._settings)
        if self._settings.archive_local_days:
            self._move_copies()

    def follow(self, watch: Watch) -> bool:
        """Replicate until SIGTERM or SIGINT, or until a watched file changes.

        Returns whether it was stopped by a signal. See service_loop for errors.
        """
        return self._loop.follow(self.run_once, watch)

    def _replicator(self, archive: str) -> Replicator:
        if archive not in self._replicators:
            self._replicators[archive] = Replicator(
                self._bucket,
                self._settings.archive_store_directory,
                archive,
                locks=self._locks(archive),
                state=self._state.archives.setdefault(archive, ArchiveState()),
                save=lambda: replication_state.write(self._settings, self._state),
                warn=self._warn,
            )
        return self._replicators[archive]

    def _locks(self, archive: str) -> Locks:
        if self._settings.archive_object_lock == bucket.NO_LOCK:
            return NoLocks()
        return RetentionLocks(self._settings, archive, self._warn)

    def _move_copies(self) -> None:
        """Let old copies go, at least one of each archive; errors as run_once()."""
        deadline = time.monotonic() + MOVE_SECONDS
        failure: ArchiveError | None = None
        for archive, replicator in self._replicators.items():
            try:
                self._move_copies_of(archive, replicator, deadline)
            except ArchiveError as error:
                failure = error
            if self._loop.is_stopped:
                return
        if failure is not None:
            raise failure

    def _move_copies_of(
        self, archive: str, replicator: Replicator, deadline: float
    ) -> None:
        state = self._state.archives[archive]
        mover = moved_copies.Mover(
            self._settings, self._bucket, archive, replicator.locks, state, self._warn
        )
        position = state.moved
        try:
            for _ in mover.run():
                self._loop.sleep(0)
                if self._loop.is_stopped or time.monotonic() > deadline:
                    return
        finally:
            if state.moved != position:
                replication_state.write(self._settings, self._state)

    def _upload_seals(self) -> None:
        """Upload new seals, locked for as long as anything in the store may be.

        All archives must have run: so their locks are known.
        """
        locks = [each.locks.of_archive() for each in self._replicators.values()]
        if not locks:
            return
        longest = max(locks, key=lambda each: each.sort_key)
        store = self._settings.archive_store_directory
        seal_replication.upload(self._bucket, store, longest, self._seals)
