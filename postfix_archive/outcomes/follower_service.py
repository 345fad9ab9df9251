"""Runs the follower of the mail log: once, or until it is stopped.

Used by cli.outcomes. One process per instance, as root, because only root may read the
log. It writes as the owner of archive_fallback_directory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    ArchiveError,
    FollowerRunning,
    LogUnreadable,
    SettingInvalid,
)
from postfix_archive.maillog import location
from postfix_archive.outcomes.follower import BATCH_LINES, Follower
from postfix_archive.postfix import archive_services, postfix_command
from postfix_archive.system import privileges
from postfix_archive.system.file_watch import Watch

LOCK_NAME = "outcomes.lock"
POLL_SECONDS = 1.0  # seconds between two reads of the log
MAX_RETRY_SECONDS = 60.0  # seconds between two attempts while something is missing
LOCATE_SECONDS = 600.0  # seconds without a line after which the log is looked for anew
MAX_ABSENT_READS = 5  # reads of a missing log before a warning: longer than a rotation
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
Warn = Callable[[str], None]  # shows a warning


def run_once(directory: str, warn: Warn) -> None:
    """Process the log up to its end. Raises LogUnreadable if there is none."""
    with _open_follower(directory, warn) as follower:
        has_more = True
        while has_more:
            batch = follower.read_batch()
            follower.process_batch(batch)
            has_more = len(batch) == BATCH_LINES
        for warning in follower.report_warnings:
            warn(warning)
        if follower.loss_warning:
            warn(follower.loss_warning)
        if follower.absence_warning:
            raise LogUnreadable(
                f"{follower.absence_warning}; check maillog_file in main.cf"
            )


class FollowerService:
    """Follows the log until SIGTERM or SIGINT; waits for what is missing for a while.

    The signals take effect at the end of a step, when everything is saved.
    """

    def __init__(self, directory: str, warn: Warn) -> None:
        self._directory = directory
        self._warn = warn
        self._is_stopped = False
        self._failures = 0  # in a row
        self._absent_reads = 0  # likewise
        self._printed: set[str] = set()

    def run(self) -> None:
        """Follow the log. Raises FollowerRunning if another process does."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        while not self._is_stopped:
            try:
                self._follow()
            except FollowerRunning:
                raise
            except ArchiveError as error:
                self._failures += 1
                if self._failures > 1:  # the first may be due to a rotation
                    self._print_once(f"{type(error).__name__}: {error}; retrying")
                self._sleep(
                    min(POLL_SECONDS * 2 ** min(self._failures, 10), MAX_RETRY_SECONDS)
                )

    def _follow(self) -> None:
        """Follow until a stop signal or a change of the configuration."""
        watch = Watch(*archive_cf.configuration_files(self._directory))
        with _open_follower(self._directory, self._warn) as follower:
            log_path = self._log_path()
            located_at = time.monotonic()
            while not self._is_stopped:
                batch = follower.read_batch()
                if not batch and time.monotonic() - located_at > LOCATE_SECONDS:
                    if self._log_path() != log_path:
                        return  # a syslogd was removed or installed
                    located_at = time.monotonic()
                if watch.is_changed:
                    return  # process this batch with the new configuration
                follower.process_batch(batch)
                self._failures = 0
                self._print_warnings(follower)
                self._sleep(POLL_SECONDS if len(batch) < BATCH_LINES else 0)

    def _log_path(self) -> str:
        return location.log_path(postfix_command.read_configuration(self._directory))

    def _print_warnings(self, follower: Follower) -> None:
        """Print each new warning once."""
        for warning in follower.report_warnings:
            self._print_once(warning)
        if follower.loss_warning:
            self._print_once(follower.loss_warning)
        self._absent_reads = self._absent_reads + 1 if follower.absence_warning else 0
        if self._absent_reads == MAX_ABSENT_READS:
            self._print_once(f"{follower.absence_warning}; waiting for it")

    def _print_once(self, text: str) -> None:
        if text not in self._printed:
            self._warn(f"postfix-archive: {text}")
        self._printed.add(text)

    def _sleep(self, seconds: float) -> None:
        """Sleep, at most until a stop signal."""
        self._is_stopped |= signal.sigtimedwait(STOP_SIGNALS, seconds) is not None


@contextlib.contextmanager
def _open_follower(directory: str, warn: Warn) -> Iterator[Follower]:
    """Open a follower with the current configuration, under a lock.

    Raises FollowerRunning.
    """
    settings = _load_settings(directory)
    fallback_directory = settings.archive_fallback_directory
    with privileges.as_owner(fallback_directory):
        lock = privileges.try_lock(f"{fallback_directory}/{LOCK_NAME}")
    if lock < 0:
        raise FollowerRunning(
            "another postfix-archive outcomes is already running in"
            f" {fallback_directory}"
        )
    try:
        postfix_config = postfix_command.read_configuration(directory)
        follower = Follower(
            settings,
            location.log_path(postfix_config),
            archive_services.content_filters(postfix_config),
        )
        with contextlib.closing(follower):
            yield follower
            if follower.unparsed_count:
                warn(
                    f"{follower.unparsed_count} ambiguous log lines ignored (they look"
                    " like delivery attempts)"
                )
    finally:
        os.close(lock)


def _load_settings(directory: str) -> Settings:
    settings = archive_cf.load(directory)
    if not settings.needs_follower:
        raise SettingInvalid(
            "archive_delivery = mail: there is no store for outcomes; set"
            " archive_delivery = store, mail in archive.cf"
        )
    return settings
