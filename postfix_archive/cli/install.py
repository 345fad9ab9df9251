"""The commands install and uninstall: the same code and options as make install.

So a release that pip has installed needs no checkout. The options are those of
install/options.
"""

from __future__ import annotations

from collections.abc import Callable

import click

from postfix_archive.errors import ArchiveError
from postfix_archive.install import main as installer
from postfix_archive.install import options
from postfix_archive.install.options import Option

Command = Callable[..., None]


def with_options(install_options: tuple[Option, ...]) -> Callable[[Command], Command]:
    """Return a decorator that gives a command these options, all of them strings."""

    def decorate(command: Command) -> Command:
        for option in reversed(install_options):
            command = click.option(
                option.flag,
                option.variable,
                metavar=f"[{option.metavar}]" if option.is_boolean else option.metavar,
                help=option.help,
                is_flag=False,
                flag_value="yes" if option.is_boolean else None,
                default="",
            )(command)
        return command

    return decorate


@click.command()
@with_options(options.INSTALL_OPTIONS)
@click.pass_obj
def install(directory: str, /, **values: str) -> None:
    """Install the archive on this host (root only)."""
    run("install", directory, values)


@click.command()
@with_options(options.UNINSTALL_OPTIONS)
@click.pass_obj
def uninstall(directory: str, /, **values: str) -> None:
    """Remove the archive, restore Postfix (root only)."""
    run("uninstall", directory, values)


def run(verb: str, directory: str, values: dict[str, str]) -> None:
    """Install or uninstall; errors name the options as this command has them."""
    values["CONFIG_DIRECTORY"] = values["CONFIG_DIRECTORY"] or directory
    try:
        installer.run(verb, values, options.as_command_options)
    except ArchiveError as error:
        raise type(error)(options.as_command_options(str(error))) from error
