"""The command postfix-archive outcomes: tells the journals what became of recipients.

Run as a service (--follow) or by a timer (--once), one at a time for each instance. As
root, since the log is root's; what it writes is the archive's user's.
"""

from __future__ import annotations

import os
import signal
import threading

import click

from postfix_archive.back import acting, config, logfile, postconf
from postfix_archive.back.following import PIECE, Follower
from postfix_archive.core import gates, passage
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import ArchiveError, NotRoot, SettingWrong
from postfix_archive.core.keyring import Keyring
from postfix_archive.core.settings import Settings

LOCK = "outcomes.lock"
PAUSE = 1.0  # seconds between two looks at the log


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
    settings = config.load(directory)
    if not (settings.stores or settings.archive_wait_for_outcome):
        raise SettingWrong(
            "archive_delivery = mail: there is no store that could keep outcomes; write"
            " 'store, mail' in archive.cf"
        )
    folder = settings.archive_fallback_directory
    with acting.as_owner(folder):
        lock = acting.lock(f"{folder}/{LOCK}")
    if lock < 0:
        click.echo("another postfix-archive outcomes is at work", err=True)
        return
    found = postconf.read(directory)
    keys = _keys(settings)
    follower = Follower(settings, keys, logfile.path_of(found), filters(found))
    try:
        _run(follower, follow=how == "follow")
    finally:
        follower.close()
        os.close(lock)


def _run(follower: Follower, *, follow: bool) -> None:
    stop = threading.Event()
    if follow:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda *_: stop.set())
    while not stop.is_set():
        count = follower.step()
        if count < PIECE and not follow:
            break
        if count < PIECE:
            stop.wait(PAUSE)
    for complaint in follower.complaints:
        click.echo(complaint, err=True)
    if follower.lost:
        click.echo(follower.lost, err=True)
    if follower.not_understood:
        click.echo(
            f"{follower.not_understood} lines of the log look like delivery attempts"
            " and could not be read for sure: nothing was taken from them",
            err=True,
        )


def _keys(settings: Settings) -> Keyring | None:
    """Return the site keys; None, and say so, where there are none."""
    try:
        return config.keys(settings)
    except ArchiveError as problem:
        click.echo(f"{problem}; until then outcome reports wait", err=True)
        return None


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
