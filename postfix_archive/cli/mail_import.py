"""The command postfix-archive import: mail of other archives and mailboxes.

mail_import/run does the work.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from postfix_archive.cli.options import ArchiveAddress
from postfix_archive.config import archive_cf
from postfix_archive.errors import RecordNotFound, StoreFailed
from postfix_archive.mail_import import run, sources
from postfix_archive.message.printable import safe_text
from postfix_archive.store import record_reader

EXIT_FAILURE = 1


@click.command("import")
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--archive",
    type=ArchiveAddress(),
    metavar="ADDRESS",
    required=True,
    help="The archive that gets the messages.",
)
@click.option(
    "--journal",
    is_flag=True,
    help="Store the messages in journal reports, with their envelopes.",
)
@click.option("--create", is_flag=True, help="Begin a new archive.")
@click.pass_context
def import_(
    ctx: click.Context,
    paths: tuple[Path, ...],
    archive: str,
    journal: bool,
    create: bool,
) -> None:
    """Import messages from files and directories.

    Messages (eml), mbox, Maildir, Outlook files (pst), pilerexport, archive copies and
    exports of this program, with --journal also Exchange journal reports. A message
    that the archive has is skipped: an import that was interrupted is run again.
    """
    settings = archive_cf.load(ctx.obj)
    store = settings.archive_store_directory
    if not settings.has_store:
        raise StoreFailed("archive_delivery has no store: nothing can be imported")
    if not create and archive not in record_reader.archives(store):
        raise RecordNotFound(
            f"{store} has no archive {archive}; give --create to begin it"
        )
    keys = archive_cf.load_keys(settings)
    importer = run.Import(settings, keys, archive, _report, has_reports=journal)
    _run(importer, list(paths))
    result = importer.result
    text = f"Messages imported into {archive}: {result.imported}"
    text += f", {result.duplicates} were there already" if result.duplicates else ""
    text += f", {result.failed} problems" if result.failed else ""
    click.echo(f"{text}.")
    ctx.exit(EXIT_FAILURE if result.failed else 0)


def _run(importer: run.Import, paths: list[Path]) -> None:
    if not sys.stderr.isatty():
        importer.run(paths)
        return
    begin = time.monotonic()
    with click.progressbar(
        length=max(1, sources.size_below(paths)),
        file=sys.stderr,
        item_show_func=lambda text: text,
    ) as bar:

        def progress(size: int) -> None:
            elapsed = max(time.monotonic() - begin, 0.001)
            count = importer.result.imported + importer.result.duplicates
            bar.update(size, f"{count} messages, {count / elapsed:,.0f}/s")

        importer.run(paths, progress)


def _report(problem: str) -> None:
    click.echo(f"postfix-archive: {safe_text(problem)}", err=True)
