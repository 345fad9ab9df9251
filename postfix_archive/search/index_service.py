"""Keeps the indexes of all archives up to date: once, or until it is stopped.

Used by cli.index, as the owner of the store. One process for an index directory.
Capture does not know of it: it watches the journals. Raises IndexerRunning,
IndexFailed, JournalFailed and StoreFailed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    ArchiveError,
    IndexDamaged,
    IndexerRunning,
    SettingInvalid,
)
from postfix_archive.search import archive_index, index_file, index_lag, indexer
from postfix_archive.search.archive_index import ArchiveIndex
from postfix_archive.search.extraction_process import Extractor
from postfix_archive.store import journal_reader, record_reader
from postfix_archive.system import privileges
from postfix_archive.system.file_watch import Watch
from postfix_archive.system.service_loop import ServiceLoop, Warn

LOCK_NAME = "index.lock"
DIRECTORY_MODE = 0o750
POLL_SECONDS = 0.5  # between two looks at the journals
TOUCH_SECONDS = 30.0  # between two touches of index_lag.LAST_RUN_FILE
Progress = Callable[[str, int], None]  # gets an archive and how many were added to it


def become_owner(directory: str) -> None:
    """Give up root's privileges for those of a directory's owner, for ever."""
    if os.geteuid():
        return
    with privileges.as_owner(directory):
        uid, gid = os.geteuid(), os.getegid()
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


@contextlib.contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Make the index directory and hold its lock. Raises IndexerRunning."""
    if not settings.has_store:
        raise SettingInvalid(
            "archive_delivery = mail: there is no store to index; set archive_delivery"
            " = store, mail in archive.cf"
        )
    directory = settings.archive_index_directory
    with index_file.translated(directory):
        os.makedirs(directory, DIRECTORY_MODE, exist_ok=True)
    lock = privileges.try_lock(f"{directory}/{LOCK_NAME}")
    if lock < 0:
        raise IndexerRunning(
            f"another postfix-archive index is already running in {directory}"
        )
    try:
        yield
    finally:
        os.close(lock)


def rebuild(settings: Settings) -> None:
    """Delete the indexes of all archives; the caller holds the lock."""
    directory = settings.archive_index_directory
    for archive in record_reader.archives(directory):
        archive_index.remove_files(f"{directory}/{archive}")


class IndexService:
    """Catches up the indexes of one instance; the caller holds the lock.

    Close it in the end. Keeps the databases open, and one process for extraction.
    """

    def __init__(self, settings: Settings, warn: Warn, progress: Progress) -> None:
        self._settings = settings
        self._store = settings.archive_store_directory
        self._directory = settings.archive_index_directory
        self._warn = warn
        self._progress = progress
        self._extractor = Extractor()
        self._indexes: dict[str, ArchiveIndex] = {}
        self._ends: dict[str, int] = {}  # of the journals when they were last read
        self._touched_at = float("-inf")
        self._loop = ServiceLoop(warn, POLL_SECONDS)

    def close(self) -> None:
        """Close the databases and end the process for extraction."""
        self._close_indexes()
        self._extractor.close()

    def _close_indexes(self) -> None:
        for archive in [*self._indexes]:
            self._close_index(archive)

    def _close_index(self, archive: str) -> None:
        self._ends.pop(archive, None)
        if archive in self._indexes:
            self._indexes.pop(archive).close()

    def run_once(self) -> None:
        """Index all that is new in the journals.

        An archive that fails does not keep the others from it; its error is raised in
        the end.
        """
        failure: ArchiveError | None = None
        for archive in record_reader.archives(self._store):
            try:
                self.run_archive(archive)
            except ArchiveError as error:
                self._close_index(archive)
                failure = error
            if self._loop.is_stopped:
                return
        if failure is not None:
            raise failure
        if time.monotonic() - self._touched_at > TOUCH_SECONDS:
            index_lag.touch_last_run(self._settings)
            self._touched_at = time.monotonic()

    def run_archive(self, archive: str) -> None:
        """Catch an index up if its journal has grown since the last time."""
        path = journal_reader.path_of(self._store, archive)
        end = journal_reader.end_offset(path)
        index = self._indexes.get(archive)
        is_usable = bool(index and index.is_intact() and end >= index.position)
        if not is_usable or end != self._ends.get(archive):
            self._catch_up(archive, path, is_usable=is_usable)
            self._ends[archive] = end

    def follow(self, configuration_directory: str) -> bool:
        """Index until SIGTERM or SIGINT, or until the configuration changes.

        Returns whether it was stopped by a signal. See service_loop for errors.
        """
        files = archive_cf.configuration_files(configuration_directory)
        return self._loop.follow(self.run_once, Watch(*files))

    def _catch_up(self, archive: str, path: str, *, is_usable: bool) -> None:
        """Catch one index up; build a damaged database again."""
        try:
            self._index(archive, path, is_usable=is_usable)
        except IndexDamaged as error:
            self._warn(f"{error}; building it again")
            self._close_index(archive)
            index_file.remove(error.path)
            self._index(archive, path, is_usable=False)

    def _index(self, archive: str, path: str, *, is_usable: bool) -> None:
        if not is_usable:
            self._close_index(archive)
            directory = f"{self._directory}/{archive}"
            self._indexes[archive] = ArchiveIndex(directory, path, self._warn)
        index = self._indexes[archive]
        one = indexer.Indexer(self._store, archive, index, self._extractor.extract_all)
        for added in one.catch_up():
            self._progress(archive, added)
            self._loop.sleep(0)
            if self._loop.is_stopped:
                return
