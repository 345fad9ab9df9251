"""The command postfix-archive outcomes: tells the journals what became of recipients.

Run as a service (--follow) or by cron (--once), one at a time for each instance. As
root, since the log is root's; what it writes is the archive's user's.
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
PAUSE = 1.0  # seconds between two looks at the log
LONGEST = 60.0  # seconds between two tries while something is away
PATIENCE = 5  # looks at a log that is away, until that is said: not in a rotation
STOPS = (signal.SIGTERM, signal.SIGINT)


@click.command()
@click.option(
    "--once", "how", flag_value="once", help="What the log has now. [default]"
)
@click.option("--follow", "how", flag_value="follow", help="Go on until told to stop.")
@click.pass_obj
def outcomes(directory: str, how: str | None) -> None:
    """Read Postfix's log and add to the archive what became of each recipient."""
    if os.geteuid():
        raise NotRoot("outcomes reads Postfix's log and writes as the archive's user")
    if how == "follow":
        Service(directory).run()
        return
    try:
        _once(directory)
    except FollowerAtWork as error:
        click.echo(str(error))  # the work is done, if not by us


def _once(directory: str) -> None:
    """Read what the log has now. Raises LogUnreadable where there is none."""
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
            raise LogUnreadable(
                f"{follower.absent}: Postfix or syslogd makes it; name another in"
                " main.cf: maillog_file"
            )


class Service:
    """Follows the log until it is told to stop, whatever is away for a while.

    SIGTERM and SIGINT wait for the end of a step: then all of it is written down.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._is_stopped = False
        self._failures = 0  # in a row
        self._absences = 0  # likewise
        self._said: set[str] = set()

    def run(self) -> None:
        """Follow; raises FollowerAtWork if another process does."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        while not self._is_stopped:
            try:
                self._follow()
            except FollowerAtWork:
                raise
            except ArchiveError as error:
                self._failures += 1
                if self._failures > 1:  # the first may be a rotation
                    self._say(f"{type(error).__name__}: {error}; I wait for that")
                self._rest(min(PAUSE * 2 ** min(self._failures, 10), LONGEST))

    def _follow(self) -> None:
        """Follow until told to stop, or until somebody changes the configuration."""
        watch = watching.configuration(self._directory)
        with _follower(self._directory) as follower:
            while not self._is_stopped:
                piece = follower.read()
                if watch.is_changed:
                    return  # these lines are for one who knows what it says now
                follower.take(piece)
                self._failures = 0
                self._tell(follower)
                self._rest(PAUSE if len(piece) < PIECE else 0)

    def _tell(self, follower: Follower) -> None:
        """Say what a postmaster should know, each once."""
        for complaint in follower.complaints:
            self._say(complaint)
        if follower.lost:
            self._say(follower.lost)
        self._absences = self._absences + 1 if follower.absent else 0
        if self._absences == PATIENCE:
            self._say(f"{follower.absent}; I wait for it")

    def _say(self, text: str) -> None:
        if text not in self._said:
            click.echo(f"postfix-archive: {text}", err=True)
        self._said.add(text)

    def _rest(self, seconds: float) -> None:
        """Wait so long, or until told to stop."""
        self._is_stopped |= signal.sigtimedwait(STOPS, seconds) is not None


@contextlib.contextmanager
def _follower(directory: str) -> Iterator[Follower]:
    """Give a follower by the configuration as it is now, and its turn.

    Raises FollowerAtWork.
    """
    settings = _settings(directory)
    folder = settings.archive_fallback_directory
    with acting.as_owner(folder):
        lock = acting.lock(f"{folder}/{LOCK}")
    if lock < 0:
        raise FollowerAtWork(
            f"another postfix-archive outcomes is at work in {folder} already, so there"
            " is nothing to do"
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
            "archive_delivery = mail: there is no store that could keep outcomes; write"
            " 'store, mail' in archive.cf"
        )
    return settings


def _tell_not_understood(follower: Follower) -> None:
    if follower.not_understood:
        click.echo(
            f"{follower.not_understood} lines of the log look like delivery attempts"
            " and could not be read for sure: nothing was taken from them",
            err=True,
        )


def filters(found: Configuration) -> tuple[str, ...]:
    """Return the content filters of this host other than ours, as transport:nexthop.

    Not the way on which copies leave: that a port of ours has as its content_filter.
    """
    services = [
        each
        for each in found.services
        if not found.value("syslog_name", each).endswith(passage.COPIES)
    ]
    given = {found.value("content_filter", each) for each in services}
    given |= {found.value("content_filter"), found.value("archive_next_filter")}
    ours = (gates.STAMP, "archive:")
    return tuple(sorted(each for each in given if each and not each.startswith(ours)))
