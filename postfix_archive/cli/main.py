"""The command postfix-archive, with ``list``.

Other commands are in the modules of this package. Mail does not pass through here, so
any library may be imported. An ArchiveError becomes one line on stderr and exit code 1,
an output that cannot be written one line and exit code 3.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import math
import os
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

import click

from postfix_archive import __version__, monitoring
from postfix_archive.cli import (
    bypass,
    doctor,
    explain,
    export,
    index,
    install,
    keys_and_tables,
    mail_import,
    outcomes,
    reconcile,
    record_view,
    replay,
    rescue,
    show,
    status,
    verify,
)
from postfix_archive.cli.options import ArchiveAddress, Date, with_settings
from postfix_archive.cli.output import EXIT_FAILURE, report, report_damage
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError
from postfix_archive.store import record_reader
from postfix_archive.store.record import Record


class CommandGroup(click.Group):
    """Reports an ArchiveError, and any OSError, on one line of stderr."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the program and write all its output."""
        try:
            try:
                return super().main(*args, **extra)
            finally:
                sys.stdout.flush()
        except OSError as error:
            _discard_output()
            if isinstance(error, BrokenPipeError):
                sys.exit(EXIT_FAILURE)
            report(f"{error.filename or 'standard output'}: {error.strerror}")
            sys.exit(monitoring.UNKNOWN)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ArchiveError as error:
            report(f"{type(error).__name__}: {error}")
            ctx.exit(EXIT_FAILURE)


def _discard_output() -> None:
    """Lead what is left in the buffer of stdout to where it can be written.

    Else it would fail again when Python ends.
    """
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option(
    "-c",
    "config_dir",
    metavar="DIR",
    help="Postfix's configuration directory. [default: $MAIL_CONFIG or /etc/postfix]",
)
@click.pass_context
def main(ctx: click.Context, config_dir: str | None) -> None:
    """Read and maintain the mail archive of a Postfix host."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # main.cf may contain bytes that are not UTF-8
            stream.reconfigure(errors="backslashreplace")
    # Absolute, since commands of Postfix change to the queue directory.
    ctx.obj = os.path.abspath(archive_cf.find_config_directory(config_dir))


for command in (
    bypass.bypass,
    doctor.doctor,
    explain.explain,
    export.export,
    index.index,
    install.install,
    install.uninstall,
    keys_and_tables.key,
    keys_and_tables.tables,
    mail_import.import_,
    outcomes.outcomes,
    reconcile.reconcile,
    replay.replay,
    rescue.fallback,
    rescue.queue,
    show.show,
    status.status,
    verify.verify,
    *rescue.FORMER_NAMES,
):
    main.add_command(command)


@main.command("list")
@click.option(
    "--archive", type=ArchiveAddress(), metavar="ADDRESS", help="Only this archive."
)
@click.option("--since", type=Date(), help="Only messages archived at or after DATE.")
@click.option("--until", type=Date(), help="Only messages archived before DATE.")
@click.option(
    "--last", type=click.IntRange(1), metavar="N", help="Only the last N messages."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@with_settings
def list_(
    settings: Settings,
    archive: str | None,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    last: int | None,
    as_json: bool,
) -> None:
    """List archived messages, oldest first."""
    message = None
    problems: list[str] = []
    messages = _read_records(settings, archive, since, until, last)
    for message in deque(messages, last) if last else messages:
        if as_json:
            click.echo(json.dumps(record_view.to_json(message)))
            continue
        for line in record_view.summary_lines(settings, message, problems):
            click.echo(line)
    if message is None and not as_json:
        click.echo(f"No archived messages in {settings.archive_store_directory}.")
    report_damage(problems)


def _read_records(
    settings: Settings,
    archive: str | None,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    last: int | None,
) -> Iterator[Record]:
    store = settings.archive_store_directory
    addresses = [archive] if archive else record_reader.archives(store)
    begin = since.timestamp() if since else 0.0
    end = until.timestamp() if until else math.inf
    for address in addresses:
        yield from record_reader.records(
            store, address, since=begin, until=end, last=last
        )
