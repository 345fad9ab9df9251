"""The command postfix-archive bypass: the gate for the day the filter itself is broken.

Mail then flows unarchived, and that is written down: who, when, why, in the journal of
every archive. Decides nothing itself: back/gap does it.
"""

from __future__ import annotations

import click

from postfix_archive.back import gap


@click.group()
def bypass() -> None:
    """Let mail flow past a broken archive; the journals record the gap."""


@bypass.command("on")
@click.option("--reason", required=True, metavar="TEXT", help="Why; auditors read it.")
@click.pass_obj
def on_(directory: str, reason: str) -> None:
    """Open the gate: mail flows UNARCHIVED until bypass off."""
    if not reason.strip():
        raise click.BadParameter("say why", param_hint="--reason")
    record = gap.open_(directory, reason.strip())
    click.echo(
        f"Mail flows UNARCHIVED since {record['opened']}. Messages that waited for the"
        f" filter: {record['requeued']}; they go on, unarchived too."
    )
    if record["in_hand"]:
        click.echo(
            f"The filter still holds {record['in_hand']} more; for what is left of"
            " them, say this once more later."
        )
    if record["untold"]:
        click.echo(
            f"The journal of {', '.join(record['untold'])} cannot be written now;"
            " bypass off writes it."
        )
    click.echo("When the filter works again: postfix-archive bypass off")


@bypass.command("off")
@click.pass_obj
def off(directory: str) -> None:
    """Close the gate: mail is archived again."""
    record = gap.close(directory)
    click.echo(
        f"Mail is archived again. It was not from {record['opened']} to"
        f" {record['closed']}; the journals say so."
    )
