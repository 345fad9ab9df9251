"""The command postfix-archive: its group, and what all commands have in common.

The commands are in the modules of this package. Mail does not pass through here, so
any library may be imported. An ArchiveError becomes one line on stderr and exit code 1,
an output that cannot be written one line and exit code 3.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from postfix_archive import __version__, monitoring
from postfix_archive.cli.output import EXIT_FAILURE, report
from postfix_archive.config import archive_cf
from postfix_archive.errors import ArchiveError
from postfix_archive.store import copy_file

if TYPE_CHECKING:
    from postfix_archive.replicate import moved_copies

# Module and name of each command. A command is imported when it is run: all together
# take a fifth of a second.
COMMANDS = {
    "access-service": ("history", "access_service"),
    "bypass": ("bypass", "bypass"),
    "doctor": ("doctor", "doctor"),
    "erase": ("erase", "erase"),
    "explain": ("explain", "explain"),
    "export": ("export", "export"),
    "fallback": ("rescue", "fallback"),
    "history": ("history", "history"),
    "hold": ("hold", "hold"),
    "import": ("mail_import", "import_"),
    "index": ("index", "index"),
    "install": ("install", "install"),
    "key": ("keys_and_tables", "key"),
    "list": ("listing", "list_"),
    "outcomes": ("outcomes", "outcomes"),
    "procedure": ("procedure", "procedure"),
    "purge": ("retention", "purge"),
    "queue": ("rescue", "queue"),
    "readers": ("history", "readers"),
    "reconcile": ("reconcile", "reconcile"),
    "replay": ("replay", "replay"),
    "replicate": ("replicate", "replicate"),
    "rescue": ("rescue", "former_rescue"),
    "restore": ("restore", "restore"),
    "retention": ("retention", "retention"),
    "return": ("rescue", "former_return"),
    "seal": ("seal", "seal"),
    "search": ("search", "search_"),
    "show": ("show", "show"),
    "status": ("status", "status"),
    "tables": ("keys_and_tables", "tables"),
    "token": ("token", "token"),
    "uninstall": ("install", "uninstall"),
    "user": ("user", "user"),
    "verify": ("verify", "verify"),
    "web": ("web", "web"),
}


class CommandGroup(click.Group):
    """Reports an ArchiveError, and any OSError, on one line of stderr."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*COMMANDS, *self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now; None if there is none of this name."""
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module_name, name = COMMANDS[cmd_name]
            module = importlib.import_module(f"{__package__}.{module_name}")
            self.add_command(getattr(module, name), cmd_name)
        return super().get_command(ctx, cmd_name)

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
    copy_file.fetch_moved = lambda *file: _moved_copies(ctx.obj).fetch(*file)


@functools.cache
def _moved_copies(directory: str) -> moved_copies.Reader:
    """Return what reads copies that are in the object storage alone."""
    from postfix_archive.replicate import moved_copies  # only where there is one

    return moved_copies.Reader(directory)
