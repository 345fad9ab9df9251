"""The command postfix-archive outcomes: appends outcomes to the journals.

Runs as a service (--follow) or from cron (--once), one process per instance.
"""

from __future__ import annotations

import os

import click

from postfix_archive.errors import FollowerRunning, NotRoot
from postfix_archive.outcomes import follower_service


@click.command()
@click.option(
    "--once", "how", flag_value="once", help="Read to the end of the log. [default]"
)
@click.option("--follow", "how", flag_value="follow", help="Run until stopped.")
@click.pass_obj
def outcomes(directory: str, how: str | None) -> None:
    """Read outcomes of delivery from the log into the archive.

    Adds the outcome of each recipient of an archived message to its record.
    """
    if os.geteuid():
        raise NotRoot("only root may read Postfix's log: sudo postfix-archive outcomes")
    if how == "follow":
        follower_service.FollowerService(directory, _warn).run()
        return
    try:
        follower_service.run_once(directory, _warn)
    except FollowerRunning as error:
        click.echo(str(error))  # no error for cron to mail: the other one does it


def _warn(text: str) -> None:
    click.echo(text, err=True)
