"""The command postfix-archive index: keeps the index for searching up to date.

Runs as a service (--follow) or from cron (--once), one process per instance.
"""

from __future__ import annotations

import contextlib
import gc

import click

from postfix_archive.config import archive_cf
from postfix_archive.errors import IndexerRunning
from postfix_archive.message.printable import safe_text
from postfix_archive.search import index_service

# Values that wait to be added at once are some 10,000, and have no cycles.
COLLECTED_OBJECTS = 50_000


@click.command()
@click.option("--once", "how", flag_value="once", help="Index what is new. [default]")
@click.option("--follow", "how", flag_value="follow", help="Run until stopped.")
@click.option(
    "--rebuild", "how", flag_value="rebuild", help="Delete the index, build it again."
)
@click.pass_obj
def index(directory: str, how: str | None) -> None:
    """Keep the index that search uses up to date.

    The index is made from the store and can be deleted at any time.
    """
    settings = archive_cf.load(directory)
    index_service.become_owner(settings.archive_store_directory)
    gc.freeze()
    gc.set_threshold(COLLECTED_OBJECTS)
    try:
        if how == "follow":
            _follow(directory)
            return
        with index_service.locked(settings):
            if how == "rebuild":
                index_service.rebuild(settings)
            counts: dict[str, int] = {}

            def count(archive: str, added: int) -> None:
                counts[archive] = counts.get(archive, 0) + added

            service = index_service.IndexService(settings, _warn, count)
            with contextlib.closing(service):
                service.run_once()
    except IndexerRunning as error:
        if how == "rebuild":
            raise
        click.echo(str(error))  # no error for cron to mail: the other one does it
        return
    for archive, added in counts.items():
        if added or how == "rebuild":
            click.echo(f"{archive}: {added} messages added to the index")


def _follow(directory: str) -> None:
    """Follow the journals, each time with the configuration as it then is."""
    is_stopped = False
    while not is_stopped:
        settings = archive_cf.load(directory)
        with index_service.locked(settings):
            service = index_service.IndexService(settings, _warn, lambda *_: None)
            with contextlib.closing(service):
                is_stopped = service.follow(directory)


def _warn(text: str) -> None:
    click.echo(f"postfix-archive: {safe_text(text)}", err=True)
