"""The command postfix-archive replicate: keeps the object storage up to date.

Runs as a service (--follow) or from cron (--once), one process per instance.
"""

from __future__ import annotations

import click

from postfix_archive.config import archive_cf
from postfix_archive.errors import ReplicatorRunning
from postfix_archive.message.printable import safe_text
from postfix_archive.replicate import replication_service
from postfix_archive.replicate.replication_service import ReplicationService
from postfix_archive.search import index_service
from postfix_archive.system.file_watch import Watch


@click.command()
@click.option("--once", "how", flag_value="once", help="Upload what is new. [default]")
@click.option("--follow", "how", flag_value="follow", help="Run until stopped.")
@click.pass_obj
def replicate(directory: str, how: str | None) -> None:
    """Upload what is new in the store to the object storage.

    To the bucket of archive_object_store; nothing if that is not set.
    """
    settings = archive_cf.load(directory)
    if not settings.archive_object_store:
        click.echo("archive_object_store is not set: nothing to do")
        return
    index_service.become_owner(settings.archive_store_directory)
    try:
        if how == "follow":
            _follow(directory)
            return
        with replication_service.locked(settings):
            ReplicationService(settings, _warn).run_once()
    except ReplicatorRunning as error:
        click.echo(str(error))  # no error for cron to mail: the other one does it


def _follow(directory: str) -> None:
    """Follow the journals, each time with configuration and credentials as they are."""
    is_stopped = False
    while not is_stopped:
        watch = Watch(*archive_cf.configuration_files(directory))
        settings = archive_cf.load(directory)
        watch.add(settings.archive_object_credentials_file)
        with replication_service.locked(settings):
            is_stopped = ReplicationService(settings, _warn).follow(watch)


def _warn(text: str) -> None:
    click.echo(f"postfix-archive: {safe_text(text)}", err=True)
