"""The command user: who may use the web page, by name and password.

web/login/local_users does the work. It is imported by each command, since the libraries
of the page need not be installed.
"""

from __future__ import annotations

import sqlite3

import click

from postfix_archive.cli import web_database
from postfix_archive.cli.web_database import changed_by, with_database
from postfix_archive.message.printable import safe_text

password_option = click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the password from standard input: its first line.",
)
role_option = click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="ROLE[:ARCHIVE]",
    help="own, auditor, officer or admin; of one archive or of all.",
)
address_option = click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="ADDRESS",
    help="A mail address of the user, for the role own.",
)
display_name_option = click.option(
    "--display-name", default="", metavar="TEXT", help="The name as the page shows it."
)


@click.group()
def user() -> None:
    """Users of the web page: add, disable, list them."""


@user.command("add")
@click.argument("name")
@role_option
@address_option
@display_name_option
@password_option
@with_database
def add(
    db: sqlite3.Connection,
    name: str,
    roles: tuple[str, ...],
    addresses: tuple[str, ...],
    display_name: str,
    password_stdin: bool,
) -> None:
    """Add a user. The password is asked for twice."""
    from postfix_archive.web.login import local_users
    from postfix_archive.web.user import User

    one = User(
        local_users.parse_name(name),
        local_users.SOURCE,
        frozenset(map(local_users.parse_grant, roles)),
        local_users.parse_addresses(addresses),
        display_name,
    )
    password = web_database.read_password(password_stdin)
    local_users.add(db, one, password, changed_by=changed_by())
    grants = ", ".join(sorted(map(str, one.grants)))
    click.echo(safe_text(f"{one.name} can log in; roles: {grants or 'none'}"))


@user.command("change")
@click.argument("name")
@role_option
@address_option
@display_name_option
@with_database
def change(
    db: sqlite3.Connection,
    name: str,
    roles: tuple[str, ...],
    addresses: tuple[str, ...],
    display_name: str,
) -> None:
    """Set roles, addresses or display name anew.

    What is given replaces all there was of its kind; the rest stays.
    """
    from postfix_archive.web.login import local_users
    from postfix_archive.web.user import User

    before = local_users.find(db, local_users.parse_name(name)).user
    one = User(
        before.name,
        before.source,
        frozenset(map(local_users.parse_grant, roles)) or before.grants,
        local_users.parse_addresses(addresses) or before.addresses,
        display_name or before.display_name,
    )
    local_users.change_rights(db, one, changed_by=changed_by())
    click.echo(safe_text(f"{one.name}: changed, and logged out"))


@user.command("password")
@click.argument("name")
@password_option
@with_database
def password(db: sqlite3.Connection, name: str, password_stdin: bool) -> None:
    """Set the password of a user, who is logged out."""
    from postfix_archive.web.login import local_users

    one = local_users.find(db, local_users.parse_name(name)).user
    text = web_database.read_password(password_stdin)
    local_users.set_password(db, one.name, text, changed_by=changed_by())
    click.echo(safe_text(f"{one.name}: the password is set"))


@user.command("disable")
@click.argument("name")
@with_database
def disable(db: sqlite3.Connection, name: str) -> None:
    """Let a user log in no more, and log the user out."""
    _set_disabled(db, name, True)


@user.command("enable")
@click.argument("name")
@with_database
def enable(db: sqlite3.Connection, name: str) -> None:
    """Let a user log in again."""
    _set_disabled(db, name, False)


def _set_disabled(db: sqlite3.Connection, name: str, is_disabled: bool) -> None:
    from postfix_archive.web.login import local_users

    one = local_users.parse_name(name)
    local_users.set_disabled(db, one, is_disabled, changed_by=changed_by())
    click.echo(safe_text(f"{one}: {'disabled' if is_disabled else 'enabled'}"))


@user.command("totp")
@click.argument("name")
@with_database
def totp_(db: sqlite3.Connection, name: str) -> None:
    """Take the one-time codes of a user away, whose device is lost."""
    from postfix_archive.web.login import local_users, totp

    one = local_users.parse_name(name)
    totp.disable(db, one, changed_by=changed_by())
    click.echo(safe_text(f"{one}: logs in without one-time codes until new ones"))


@user.command("list")
@with_database
def list_(db: sqlite3.Connection) -> None:
    """List the users, with roles and addresses."""
    from postfix_archive.web.login import local_users

    users = local_users.read(db)
    for each in users:
        parts = [each.user.name, " ".join(sorted(map(str, each.user.grants)))]
        parts += [" ".join(each.user.addresses)] if each.user.addresses else []
        parts += ["one-time codes"] if each.has_totp else []
        parts += ["must change the password"] if each.must_change_password else []
        parts += ["disabled"] if each.is_disabled else []
        click.echo(safe_text("  ".join(parts)))
    if not users:
        click.echo("There are no users: postfix-archive user add NAME --role ROLE")
