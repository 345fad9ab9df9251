"""The command postfix-archive outcomes: appends outcomes to the journals.

Runs as a service (--follow) or from cron (--once), one process per instance; as root,
because only root may read the log. It writes as the owner of
archive_fallback_directory.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import click

from postfix_archive.back import acting, config, maillog, postconf, watching
from postfix_archive.back.following import PIECE, Follower
from postfix_archive.core import gates, passage
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import (
    ArchiveError,
    FollowerAtWork,
    LogUnreadable,
    NotRoot,
    SettingWrong,
)
from postfix_archive.core.settings import Settings

LOCK = "outcomes.lock"
PAUSE = 1.0  # seconds between two reads of the log
LONGEST = 60.0  # seconds between two attempts while something is missing
PATIENCE = 5  # reads of a missing log before a warning: longer than a rotation
STOPS = (signal.SIGTERM, signal.SIGINT)


@click.command()
@click.option(
    "--once", "how", flag_value="once", help="Read to the end of the log. [default]"
)
@click.option("--follow", "how", flag_value="follow", help="Run until stopped.")
@click.pass_obj
def outcomes(directory: str, how: str | None) -> None:
    """Read Postfix's log and add the outcome of each recipient to the archive."""
    if os.geteuid():
        raise NotRoot("only root may read Postfix's log: sudo postfix-archive outcomes")
    if how == "follow":
        Service(directory).run()
        return
    try:
        _once(directory)
    except FollowerAtWork as error:
        click.echo(str(error))  # no error for cron to mail: the other one does it


def _once(directory: str) -> None:
    """Process the log up to its end. Raises LogUnreadable if there is none."""
    with _follower(directory) as follower:
        is_left = True
        while is_left:
            piece = follower.read()
            follower.take(piece)
            is_left = len(piece) == PIECE
        for complaint in follower.complaints:
            click.echo(complaint, err=True)
        if follower.lost:
            click.echo(follower.lost, err=True)
        if follower.absent:
            raise LogUnreadable(f"{follower.absent}; check maillog_file in main.cf")


class Service:
    """Follows the log until SIGTERM or SIGINT; waits for what is missing for a while.

    The signals take effect at the end of a step, when everything is saved.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._is_stopped = False
        self._failures = 0  # in a row
        self._absences = 0  # likewise
        self._said: set[str] = set()

    def run(self) -> None:
        """Follow the log. Raises FollowerAtWork if another process does."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        while not self._is_stopped:
            try:
                self._follow()
            except FollowerAtWork:
                raise
            except ArchiveError as error:
                self._failures += 1
                if self._failures > 1:  # the first may be due to a rotation
                    self._say(f"{type(error).__name__}: {error}; retrying")
                self._rest(min(PAUSE * 2 ** min(self._failures, 10), LONGEST))

    def _follow(self) -> None:
        """Follow until a stop signal or a change of the configuration."""
        watch = watching.configuration(self._directory)
        with _follower(self._directory) as follower:
            while not self._is_stopped:
                piece = follower.read()
                if watch.is_changed:
                    return  # process this batch with the new configuration
                follower.take(piece)
                self._failures = 0
                self._tell(follower)
                self._rest(PAUSE if len(piece) < PIECE else 0)

    def _tell(self, follower: Follower) -> None:
        """Print each new warning once."""
        for complaint in follower.complaints:
            self._say(complaint)
        if follower.lost:
            self._say(follower.lost)
        self._absences = self._absences + 1 if follower.absent else 0
        if self._absences == PATIENCE:
            self._say(f"{follower.absent}; waiting for it")

    def _say(self, text: str) -> None:
        if text not in self._said:
            click.echo(f"postfix-archive: {text}", err=True)
        self._said.add(text)

    def _rest(self, seconds: float) -> None:
        """Sleep, at most until a stop signal."""
        self._is_stopped |= signal.sigtimedwait(STOPS, seconds) is not None


@contextlib.contextmanager
def _follower(directory: str) -> Iterator[Follower]:
    """Open a follower with the current configuration, under a lock.

    Raises FollowerAtWork.
    """
    settings = _settings(directory)
    folder = settings.archive_fallback_directory
    with acting.as_owner(folder):
        lock = acting.lock(f"{folder}/{LOCK}")
    if lock < 0:
        raise FollowerAtWork(
            f"another postfix-archive outcomes is already running in {folder}"
        )
    try:
        found = postconf.read(directory)
        follower = Follower(settings, maillog.path_of(found), filters(found))
        with contextlib.closing(follower):
            yield follower
            _tell_not_understood(follower)
    finally:
        os.close(lock)


def _settings(directory: str) -> Settings:
    settings = config.load(directory)
    if not settings.follows:
        raise SettingWrong(
            "archive_delivery = mail: there is no store for outcomes; set"
            " archive_delivery = store, mail in archive.cf"
        )
    return settings


def _tell_not_understood(follower: Follower) -> None:
    if follower.not_understood:
        click.echo(
            f"{follower.not_understood} ambiguous log lines ignored (they look like"
            " delivery attempts)",
            err=True,
        )


def filters(found: Configuration) -> tuple[str, ...]:
    """Return the content filters of this host other than ours, as transport:nexthop.

    Without the content_filter of our own archive copy ports (archive_relay).
    """
    services = [
        service
        for service in found.services
        if not found.value("syslog_name", service).endswith(passage.COPIES)
    ]
    given = {found.value("content_filter", service) for service in services}
    given |= {found.value("content_filter"), found.value("archive_next_filter")}
    ours = (gates.STAMP, "archive:")
    return tuple(sorted(name for name in given if name and not name.startswith(ours)))
