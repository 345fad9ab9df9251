"""The command postfix-archive replay: archived mail for Postfix again.

export/replay does the work.
"""

from __future__ import annotations

import time

import click

from postfix_archive.cli.options import ArchiveAddress, reason_option, recorder
from postfix_archive.config import archive_cf
from postfix_archive.errors import RecordDamaged
from postfix_archive.export import replay as replaying
from postfix_archive.export import selection, stored_message
from postfix_archive.export.replay import Replay
from postfix_archive.export.selection import Selection
from postfix_archive.message.envelope import Recipient
from postfix_archive.message.printable import safe_text

EXIT_FAILURE = 1
SHOWN_RECIPIENTS = 5


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--to", "to", multiple=True, metavar="ADDRESS", help="Recipient; may be repeated."
)
@click.option(
    "--original-recipients", is_flag=True, help="To the recipients of the envelope."
)
@click.option(
    "--copies", is_flag=True, help="The archive copies; without --to, to the archive."
)
@click.option(
    "--archive", type=ArchiveAddress(), metavar="ADDRESS", help="Only this archive."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@reason_option
@click.pass_context
def replay(
    ctx: click.Context,
    ids: tuple[str, ...],
    to: tuple[str, ...],
    original_recipients: bool,
    copies: bool,
    archive: str | None,
    yes: bool,
    reason: str,
) -> None:
    """Deliver archived messages once more.

    As they were received, or with --copies the archive copies, for instance to an
    archive mailbox that lost them. They are not archived again.
    """
    if to and original_recipients:
        raise click.UsageError("give --to or --original-recipients, not both")
    if not (to or original_recipients or copies):
        raise click.UsageError("give --to or --original-recipients")
    if copies and original_recipients:
        raise click.UsageError(
            "--copies with --original-recipients: a copy shows the whole envelope"
        )
    settings = archive_cf.load(ctx.obj)
    given = tuple(map(replaying.parse_recipient, to))
    plan = Replay(settings, archive_cf.load_keys(settings), copies, int(time.time()))
    selected = Selection(ids=ids, archive=archive or "")
    access = recorder(settings, "replay", reason, " ".join(("to", *to)))
    messages = [
        (message, plan.recipients(message, given))
        for record in access.before(selection.records(settings, selected, _report), [])
        for message in stored_message.of_record(record)
    ]
    for message, recipients in messages:
        click.echo(f"{message.event['id']}  to {_recipient_text(recipients)}")
    if not yes:
        click.confirm(f"Send {len(messages)} messages?", abort=True, err=True)
    failed = 0
    for message, recipients in messages:
        try:
            queue_id = plan.send(message, recipients)
        except RecordDamaged as error:
            failed += 1
            _report(str(error))
            continue
        click.echo(f"{message.event['id']}  queued as {safe_text(queue_id)}")
    ctx.exit(EXIT_FAILURE if failed else 0)


def _recipient_text(recipients: tuple[Recipient, ...]) -> str:
    shown = [safe_text(each.final) for each in recipients[:SHOWN_RECIPIENTS]]
    rest = len(recipients) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _report(problem: str) -> None:
    click.echo(f"postfix-archive: not sent: {safe_text(problem)}", err=True)
