"""The command postfix-archive reconcile: compares accepted and archived messages."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import click

from postfix_archive import monitoring
from postfix_archive.cli.options import Date
from postfix_archive.errors import ArchiveError
from postfix_archive.message.printable import safe_text
from postfix_archive.reconcile import acceptances
from postfix_archive.reconcile.acceptances import Acceptance, Pattern
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
@click.option(
    "--accept",
    "cause",
    type=click.Choice(acceptances.ACCEPTABLE_CAUSES),
    help="Accept missing messages with this cause, and all of the next three.",
)
@click.option("--sender", metavar="ADDRESS", help='Their sender; "" or "<>": null.')
@click.option("--client", metavar="ADDRESS", help="Their client, as listed.")
@click.option("--service", metavar="NAME", help="Their service, as listed.")
@click.option("--reason", metavar="TEXT", help="Why they need not be archived.")
@click.option(
    "--expires", type=Date(), help="Accept only messages that arrive before DATE."
)
@click.option("--accepted", "is_list", is_flag=True, help="List what is accepted.")
@click.option(
    "--withdraw", type=int, metavar="N", help="Accept number N of that list no more."
)
@click.pass_context
def reconcile(
    ctx: click.Context,
    cause: str | None,
    sender: str | None,
    client: str | None,
    service: str | None,
    reason: str | None,
    expires: datetime.datetime | None,
    is_list: bool,
    withdraw: int | None,
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

    Missing messages of a kind that need no archive, such as the notices of a content
    filter, are counted apart once they are accepted: as root, with --accept, --sender,
    --client, --service and --reason.
    """
    if (cause is not None) + is_list + (withdraw is not None) > 1:
        raise click.UsageError("--accept, --accepted and --withdraw exclude each other")
    texts = (sender, client, service, reason)
    if cause is not None:
        _accept(ctx.obj, cause, texts, expires)
        return
    if expires or any(text is not None for text in texts):
        raise click.UsageError(
            "--sender, --client, --service, --reason and --expires are for --accept"
        )
    if withdraw is not None:
        removed = acceptances.remove(ctx.obj, withdraw)
        click.echo(f"No longer accepted: {_describe(removed)}")
    elif is_list:
        _print_acceptances(acceptances.read(ctx.obj), as_json=as_json)
    else:
        _reconcile(ctx, since, until, logs, as_json=as_json)


def _accept(
    directory: str,
    cause: str,
    texts: tuple[str | None, ...],
    expires: datetime.datetime | None,
) -> None:
    sender, client, service, reason = (t and t.strip() for t in texts)
    if sender is None or not client or not service or not reason:
        raise click.UsageError(
            "--accept needs --sender, --client, --service and --reason: a cause alone"
            " would hide mail that is really missing"
        )
    pattern = Pattern(cause, sender.strip("<>"), client, service)
    end = expires.timestamp() if expires else None
    acceptances.add(directory, pattern, reason, end)
    click.echo(f"Accepted: {_describe(acceptances.read(directory)[-1])}")


def _print_acceptances(accepted: Sequence[Acceptance], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([each.to_json() for each in accepted]))
        return
    for number, each in enumerate(accepted, 1):
        click.echo(f"{number}  {_describe(each)}")
    if not accepted:
        click.echo("Nothing is accepted.")


def _describe(accepted: Acceptance) -> str:
    pattern = accepted.pattern
    sender = pattern.sender or "<>"
    until = f", for messages before {accepted.expires}" if accepted.expires else ""
    return safe_text(
        f"{pattern.cause}  {sender}  {pattern.client}  {pattern.service}:"
        f" {accepted.reason} (by {accepted.by}, {accepted.at}{until})"
    )


def _reconcile(
    ctx: click.Context,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    logs: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Reconcile, print the result and exit."""
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
