"""The command postfix-archive export: archived mail as files for somebody else.

export/run does the work.
"""

from __future__ import annotations

import datetime
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import click

from postfix_archive.access.access_recorder import AccessRecorder
from postfix_archive.cli import search
from postfix_archive.cli.options import ArchiveAddress, Date, reason_option, recorder
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import QueryInvalid
from postfix_archive.export import run, selection
from postfix_archive.export.run import Options, Result
from postfix_archive.export.selection import Selection
from postfix_archive.export.writers import FORMATS
from postfix_archive.message.printable import safe_text
from postfix_archive.store import record_reader
from postfix_archive.store.record import Record

EXIT_FAILURE, EXIT_USAGE = 1, 2


@click.command()
@click.argument("target", type=click.Path())
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(FORMATS)),
    required=True,
    help="Form of the messages; csv is the manifest alone.",
)
@click.option(
    "--archive", type=ArchiveAddress(), metavar="ADDRESS", help="Only this archive."
)
@click.option("--query", default="", help="The hits of a query, as search finds them.")
@click.option("--since", type=Date(), help="Only messages archived at or after DATE.")
@click.option("--until", type=Date(), help="Only messages archived before DATE.")
@click.option(
    "--originals/--copies",
    "is_of_originals",
    default=True,
    help="The messages as received, or the archive copies. [default: originals]",
)
@click.option(
    "--redact-bcc",
    is_flag=True,
    help="Leave out the recipients that no To: or Cc: field names.",
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted export.")
@reason_option
@click.pass_context
def export(
    ctx: click.Context,
    target: str,
    ids: tuple[str, ...],
    format_: str,
    query: str,
    archive: str | None,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    is_of_originals: bool,
    redact_bcc: bool,
    resume: bool,
    reason: str,
) -> None:
    """Export messages into a new directory.

    The messages with these ids, those that a query finds, or all, and a manifest of
    them. The export is recorded in the access journal.
    """
    if redact_bcc and not is_of_originals:
        raise click.UsageError(
            "--copies with --redact-bcc: an archive copy has the whole envelope"
        )
    if bool(ids) + bool(query) + bool(since or until) > 1:
        raise click.UsageError("give ids, --query, or --since and --until")
    settings = archive_cf.load(ctx.obj)
    store = settings.archive_store_directory
    access = recorder(settings, "export", reason, query or " ".join(ids))
    options = Options(
        Selection(
            ids=ids,
            query=query,
            archive=archive or "",
            since=since.timestamp() if since else 0.0,
            until=until.timestamp() if until else math.inf,
        ),
        format_,
        is_of_copies=not is_of_originals,
        redacts_bcc=redact_bcc,
    )
    try:
        result = run.export(
            settings,
            options,
            target,
            resume=resume,
            report=_report,
            progress=_with_access(
                access,
                [archive] if archive else record_reader.archives(store),
                _progress(settings, options.selection),
            ),
        )
    except QueryInvalid as error:
        search.report_error(error)
        ctx.exit(EXIT_USAGE)
    click.echo(_summary(result, target))
    ctx.exit(EXIT_FAILURE if result.failed else 0)


def _with_access(
    access: AccessRecorder,
    archives: Iterable[str],
    progress: Callable[[Iterator[Record]], Iterable[Record]],
) -> Callable[[Iterator[Record]], Iterable[Record]]:
    """Return what records that records are exported, then shows the progress."""

    def record_first(records: Iterator[Record]) -> Iterable[Record]:
        return progress(access.before(records, archives))

    return record_first


class Progress:
    """Yields the records again and shows how many there were, with rate and ETA."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._begin = time.monotonic()

    def __call__(self, records: Iterator[Record]) -> Iterator[Record]:
        """Show the progress on stderr, which is a terminal."""
        with click.progressbar(
            length=self._length,
            file=sys.stderr,
            show_pos=True,
            item_show_func=lambda rate: rate,
        ) as bar:
            for number, record in enumerate(records, 1):
                yield record
                elapsed = max(time.monotonic() - self._begin, 0.001)
                bar.update(1, f"{number / elapsed:,.0f}/s")


def _progress(
    settings: Settings, selected: Selection
) -> Callable[[Iterator[Record]], Iterable[Record]]:
    if sys.stderr.isatty():
        return Progress(selection.count(settings, selected))
    return _silent


def _silent(records: Iterator[Record]) -> Iterable[Record]:
    return records


def _report(problem: str) -> None:
    click.echo(f"postfix-archive: not exported: {safe_text(problem)}", err=True)


def _summary(result: Result, target: str) -> str:
    text = f"Messages exported to {safe_text(target)}: {result.exported}"
    text += f", {result.found} more were there already" if result.found else ""
    text += f", {result.failed} could not be exported" if result.failed else ""
    return f"{text}."
