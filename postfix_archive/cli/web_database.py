"""Opens the database of the web page for the commands user and token."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable

import click

from postfix_archive.access import access_entry
from postfix_archive.config import archive_cf
from postfix_archive.errors import LibraryMissing, NotRoot, WebDatabaseFailed
from postfix_archive.system import privileges


def with_database(command: Callable[..., None]) -> Callable[..., None]:
    """Pass the open database as the command's first argument.

    root opens it as the owner of web_directory, whose file it stays. Raises
    LibraryMissing, NotRoot and WebDatabaseFailed.
    """

    @click.pass_obj
    @functools.wraps(command)
    def run_with_database(config_directory: str, /, **options: object) -> None:
        try:
            from postfix_archive.web import database, web_settings
        except ImportError as error:
            raise LibraryMissing(
                f"the web page needs Python packages that are not here ({error}): run"
                " make install WITH=web, or pip install postfix-archive[web]"
            ) from error
        archive_cf.load(config_directory)
        web = web_settings.load(config_directory)
        try:
            owner = os.stat(web.web_directory).st_uid
        except OSError as error:
            raise WebDatabaseFailed(
                f"web_directory = {web.web_directory}: {error.strerror}; make install"
                " WITH=web makes it"
            ) from error
        if os.geteuid() not in (0, owner):
            raise NotRoot("only root may change users: sudo postfix-archive user")
        with privileges.as_owner(web.web_directory):
            with database.open_database(web.database_path) as db:
                command(db, **options)

    return run_with_database


def changed_by() -> str:
    """Return who runs this command, for the list of changes."""
    return f"{access_entry.current_user()} on the host"


def read_password(from_stdin: bool) -> str:
    """Return a password: the first line of stdin, or typed twice without echo."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password
