"""The command postfix-archive reconcile: compares accepted and archived messages."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
import time
from collections.abc import Callable, Iterator

import click

from postfix_archive import monitoring
from postfix_archive.cli.options import Date
from postfix_archive.errors import ArchiveError
from postfix_archive.reconcile.reconciliation import Reconciliation

PROGRESS_DELAY = 2.0  # seconds after which a progress bar is shown
PROGRESS_STEPS = 1_000  # of the progress bar


@click.command()
@click.option("--since", type=Date(), help="Only messages accepted at or after DATE.")
@click.option("--until", type=Date(), help="Only messages accepted before DATE.")
@click.option(
    "--log",
    "logs",
    multiple=True,
    metavar="FILE",
    help="Log file; may be repeated, oldest first.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def reconcile(
    ctx: click.Context,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    logs: tuple[str, ...],
    as_json: bool,
) -> None:
    """List accepted messages that are not archived.

    Compares the messages that Postfix accepted, by its log, with the archive.

    Exit codes are those of monitoring plugins: 0 nothing is missing, 1 messages wait
    too long, were rescued or are unclear, 2 messages are missing, 3 log, queue or
    archive cannot be read.
    """
    try:
        reconciliation = Reconciliation(
            ctx.obj,
            since.timestamp() if since else None,
            until.timestamp() if until else None,
            logs,
        )
        with progress_bar(reconciliation.started) as show_progress:
            result = reconciliation.run(show_progress)
    except (ArchiveError, OSError) as error:
        fields = {"status": "UNKNOWN", "reason": str(error)}
        click.echo(json.dumps(fields) if as_json else f"UNKNOWN: {error}")
        ctx.exit(monitoring.UNKNOWN)
    try:
        reconciliation.save_summary(result)
    except ArchiveError as error:
        click.echo(f"summary for status not saved: {error}", err=True)
    for text in [json.dumps(result.to_json())] if as_json else result.text_lines():
        click.echo(text)
    ctx.exit(result.severity)


@contextlib.contextmanager
def progress_bar(end: float) -> Iterator[Callable[[float], None]]:
    """Yield a function that shows the progress up to a time in the log.

    On a terminal only, and only if the run takes longer than PROGRESS_DELAY.
    """
    started = time.monotonic()
    if not sys.stderr.isatty():
        yield lambda timestamp: None
        return
    with click.progressbar(length=PROGRESS_STEPS, label="log", file=sys.stderr) as bar:
        first: list[float] = []

        def show(timestamp: float) -> None:
            first[:] = first or [timestamp]
            done = (timestamp - first[0]) / max(1.0, end - first[0])
            if time.monotonic() - started > PROGRESS_DELAY:
                bar.update(min(PROGRESS_STEPS, int(PROGRESS_STEPS * done)) - bar.pos)

        yield show
