"""The command postfix-archive bypass: deliver mail unarchived.

For the time while the stamp filter is broken. The journal of every archive records who
turned it on, when and why. bypass.switch does the work.
"""

from __future__ import annotations

import click

from postfix_archive.bypass import switch


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
    record = switch.turn_on(directory, reason.strip())
    click.echo(
        f"Mail is UNARCHIVED since {record['opened']}. Messages that waited for the"
        f" filter: {record['requeued']}; they are requeued and delivered unarchived."
    )
    if record["in_hand"]:
        click.echo(
            f"The filter is still processing {record['in_hand']} messages. Run this"
            " command again later to requeue those that are left."
        )
    if record["untold"]:
        click.echo(
            f"The journal of {', '.join(record['untold'])} cannot be written now;"
            " bypass off writes it."
        )
    click.echo("When the filter works again: postfix-archive bypass off")


@bypass.command("off")
@click.pass_obj
def turn_off(directory: str) -> None:
    """Archive mail again."""
    record = switch.turn_off(directory)
    click.echo(
        f"Mail is archived again. It was not archived from {record['opened']} to"
        f" {record['closed']}; the journals record that."
    )
