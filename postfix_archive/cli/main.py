"""The command postfix-archive: its group, and what all commands have in common.

The commands are in the modules of this package. Mail does not pass through here, so
any library may be imported. An ArchiveError becomes one line on stderr and exit code 1,
an output that cannot be written one line and exit code 3.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

import click

from postfix_archive import __version__, monitoring
from postfix_archive.cli import (
    bypass,
    doctor,
    explain,
    export,
    history,
    index,
    install,
    keys_and_tables,
    listing,
    mail_import,
    outcomes,
    reconcile,
    replay,
    rescue,
    search,
    show,
    status,
    verify,
)
from postfix_archive.cli.output import EXIT_FAILURE, report
from postfix_archive.config import archive_cf
from postfix_archive.errors import ArchiveError


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
    history.access_service,
    history.history,
    history.readers,
    install.install,
    install.uninstall,
    keys_and_tables.key,
    keys_and_tables.tables,
    mail_import.import_,
    listing.list_,
    outcomes.outcomes,
    reconcile.reconcile,
    replay.replay,
    rescue.fallback,
    rescue.queue,
    search.search_,
    show.show,
    status.status,
    verify.verify,
    *rescue.FORMER_NAMES,
):
    main.add_command(command)
