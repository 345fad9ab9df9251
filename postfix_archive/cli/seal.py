"""The command postfix-archive seal: have the ends of all journals witnessed.

Run daily by a timer. seal/sealing does the work.
"""

from __future__ import annotations

import click

from postfix_archive import monitoring
from postfix_archive.cli.output import EXIT_FAILURE, report
from postfix_archive.config import archive_cf
from postfix_archive.message.printable import safe_text
from postfix_archive.seal import seal_lag, sealing
from postfix_archive.system import privileges


@click.command()
@click.option(
    "--if-configured",
    is_flag=True,
    help="Do nothing where no setting says who witnesses: for the timer.",
)
@click.pass_context
def seal(ctx: click.Context, if_configured: bool) -> None:
    """Have a third party witness where all journals end now.

    Writes the seal into the store, has RFC 3161 authorities time-stamp its SHA-256
    (archive_tsa_url), mails it (archive_seal_to) or appends it to a file
    (archive_seal_file). Without anything new since the last seal it makes none.

    Exit codes: 0 sealed, or nothing new, 1 failed or a journal has lost lines since the
    last seal, 2 not configured.
    """
    settings = archive_cf.load(ctx.obj)
    if not seal_lag.is_configured(settings):
        if if_configured:
            return
        report(
            "seals are not configured: in archive.cf set archive_tsa_url,"
            " archive_seal_to or archive_seal_file; a store is needed, too"
        )
        ctx.exit(monitoring.CRITICAL)
    privileges.become_owner(settings.archive_store_directory)
    result = sealing.run(settings, lambda text: report(f"warning: {text}"))
    if not result.is_new:
        click.echo(f"Nothing new since {result.seal.name}.")
        return
    journals = sum(1 for each in result.seal.heads if each.end)
    click.echo(f"Sealed {journals} journals: {result.seal.name}")
    for url, time in result.times.items():
        click.echo(safe_text(f"  time-stamped at {time} by {url}"))
    for loss in result.losses:
        report(f"{loss}; postfix-archive verify --seals names all")
    if result.losses:
        ctx.exit(EXIT_FAILURE)
