"""The command postfix-archive, with ``list`` and ``show``.

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
from collections.abc import Callable, Iterator
from typing import Any

import click

from postfix_archive import __version__, monitoring
from postfix_archive.cli import (
    bypass,
    doctor,
    explain,
    export,
    install,
    keys_and_tables,
    mail_import,
    outcomes,
    reconcile,
    record_view,
    replay,
    rescue,
    status,
    verify,
)
from postfix_archive.cli.options import ArchiveAddress, Date
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError
from postfix_archive.message.printable import safe_text
from postfix_archive.store import record_reader
from postfix_archive.store.record import Record

EXIT_FAILURE = 1


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
            _report(f"{error.filename or 'standard output'}: {error.strerror}")
            sys.exit(monitoring.UNKNOWN)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ArchiveError as error:
            _report(f"{type(error).__name__}: {error}")
            ctx.exit(EXIT_FAILURE)


def _report(text: str) -> None:
    with contextlib.suppress(OSError):
        click.echo(f"postfix-archive: {safe_text(text)}", err=True)


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
    status.status,
    verify.verify,
    *rescue.FORMER_NAMES,
):
    main.add_command(command)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Pass the settings of this instance as the command's first argument."""

    @click.pass_obj
    def run_with_settings(directory: str, /, **options: Any) -> None:
        command(archive_cf.load(directory), **options)

    run_with_settings.__doc__ = command.__doc__
    run_with_settings.__name__ = command.__name__
    return run_with_settings


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
    _report_damage(problems)


@main.command()
@click.argument("archive_id", metavar="ID")
@click.option(
    "--archive", type=ArchiveAddress(), metavar="ADDRESS", help="Only this archive."
)
@click.option("--raw", is_flag=True, help="Print the archive copy, byte for byte.")
@click.option("--original", is_flag=True, help="Print the original, byte for byte.")
@click.option(
    "--outcome", is_flag=True, help="Print the outcome report, byte for byte."
)
@click.option(
    "--passes", is_flag=True, help="List the records with the same Message-ID too."
)
@with_settings
def show(
    settings: Settings,
    archive_id: str,
    archive: str | None,
    raw: bool,
    original: bool,
    outcome: bool,
    passes: bool,
) -> None:
    """Show one record; a unique prefix of the id is enough."""
    store = settings.archive_store_directory
    message = record_reader.find_record(store, archive_id, archive)
    if original:
        _write_bytes(record_reader.original(store, message))
    elif raw:
        _write_bytes(record_reader.archive_copy(store, message))
    elif outcome:
        _write_bytes(record_reader.outcome_report(store, message))
    else:
        problems: list[str] = []
        for line in record_view.lines(settings, message, problems):
            click.echo(line)
        for other in (
            record_reader.with_same_message_id(store, message) if passes else ()
        ):
            for line in record_view.summary_lines(settings, other, problems):
                click.echo(f"Same Message-ID: {line}")
        _report_damage(problems)


def _report_damage(problems: list[str]) -> None:
    """Name the copies that cannot be read, and exit with 1 if there are any."""
    for problem in problems:
        _report(f"RecordDamaged: {problem}")
    if problems:
        click.get_current_context().exit(EXIT_FAILURE)


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


def _write_bytes(chunks: Iterator[bytes]) -> None:
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
