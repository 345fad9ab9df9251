"""The command postfix-archive bypass: deliver mail unarchived.

For the time while the stamp filter is broken. The journal of every archive records who
turned it on, when and why. bypass.switch does the work.
"""

from __future__ import annotations

import click

from postfix_archive.bypass import switch
from postfix_archive.postfix import server_processes


@click.group()
def bypass() -> None:
    """Deliver mail unarchived while the archive is broken."""


@bypass.command("on")
@click.option(
    "--reason", required=True, metavar="TEXT", help="Reason, for the journals."
)
@click.pass_obj
def turn_on(directory: str, reason: str) -> None:
    """Stop archiving: mail is delivered UNARCHIVED until bypass off."""
    if not reason.strip():
        raise click.BadParameter("must not be empty", param_hint="--reason")
    start = switch.turn_on(directory, reason.strip())
    click.echo(
        f"Mail is UNARCHIVED since {start.record.period.started}. Messages that waited"
        f" for the filter: {start.requeued}; they are requeued and delivered"
        " unarchived."
    )
    if start.left:
        click.echo(
            f"The filter is still processing {start.left} messages. Run this command"
            " again later to requeue those that are left."
        )
    if start.connections:
        click.echo(
            f"{server_processes.describe(start.connections)} still send mail to the"
            " filter. Run this command again when they have ended."
        )
    if start.record.unrecorded_start:
        archives = ", ".join(start.record.unrecorded_start)
        click.echo(
            f"The journal of {archives} cannot be written now; bypass off writes it."
        )
    click.echo("When the filter works again: postfix-archive bypass off")


@bypass.command("off")
@click.pass_obj
def turn_off(directory: str) -> None:
    """Archive mail again."""
    period, connections = switch.turn_off(directory)
    click.echo(
        f"Mail is archived again. It was not archived from {period.interval}; the"
        " journals record that."
    )
    if connections:
        click.echo(
            f"{server_processes.describe(connections)} still send mail past the"
            " archive, until they end."
        )
