"""The command token: with which programs use the REST API of the web page.

web/api/api_tokens does the work, and is imported by each command as in user.
"""

from __future__ import annotations

import datetime
import sqlite3

import click

from postfix_archive.cli.options import Date
from postfix_archive.cli.web_database import changed_by, with_database
from postfix_archive.message import dates
from postfix_archive.message.printable import safe_text


@click.group()
def token() -> None:
    """Tokens of the web page's REST API."""


@token.command("add")
@click.argument("name")
@click.option(
    "--user", "user", required=True, metavar="USER", help="Whose rights it has."
)
@click.option("--expires", type=Date(), metavar="DATE", help="When it ends.")
@with_database
def add(
    db: sqlite3.Connection, name: str, user: str, expires: datetime.datetime | None
) -> None:
    """Add a token and print it: it cannot be shown again.

    It may do what its user may do, for as long as the user is not disabled.
    """
    from postfix_archive.web.api import api_tokens

    end = expires.timestamp() if expires else 0.0
    click.echo(api_tokens.add(db, name, user, expires=end, changed_by=changed_by()))


@token.command("list")
@with_database
def list_(db: sqlite3.Connection) -> None:
    """List the tokens, with their users and times."""
    from postfix_archive.web.api import api_tokens

    tokens = api_tokens.read(db)
    for each in tokens:
        parts = [each.name, each.user, f"since {dates.format_rfc3339(each.created)}"]
        if each.expires:
            parts.append(f"ends {dates.format_rfc3339(each.expires)}")
        if each.used:
            parts.append(f"last used {dates.format_rfc3339(each.used)}")
        click.echo(safe_text("  ".join(parts)))
    if not tokens:
        click.echo("There are no tokens: postfix-archive token add NAME --user USER")


@token.command("revoke")
@click.argument("name")
@with_database
def revoke(db: sqlite3.Connection, name: str) -> None:
    """Let a token work no more."""
    from postfix_archive.web.api import api_tokens

    api_tokens.revoke(db, name, changed_by=changed_by())
    click.echo(safe_text(f"The token {name} works no more."))
