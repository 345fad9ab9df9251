"""The command hold: what must not be removed, whatever the rules say.

retention/holds does the work.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from postfix_archive.cli import output
from postfix_archive.cli import search as search_command
from postfix_archive.cli.options import (
    archives_option,
    reason_option,
    recorder,
    with_settings,
)
from postfix_archive.config.settings import Settings
from postfix_archive.errors import IndexFailed, IndexMissing, QueryInvalid
from postfix_archive.message.printable import safe_text
from postfix_archive.retention import decisions, holds
from postfix_archive.retention.holds import Hold
from postfix_archive.search.search import Search
from postfix_archive.store import record_reader

EXIT_USAGE = 2
needed_reason = click.option(
    "--reason", required=True, metavar="TEXT", help="Reason, for the journals."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def hold() -> None:
    """Hold messages: nobody can purge or erase them."""


@hold.command("add")
@click.argument("name")
@click.option("--query", default="", help="All that a query finds, now and later.")
@click.option(
    "--ids",
    multiple=True,
    metavar="IDS",
    help="The messages with these ids; - reads them from standard input.",
)
@archives_option
@needed_reason
@with_settings
def add(
    settings: Settings,
    name: str,
    query: str,
    ids: tuple[str, ...],
    archives: tuple[str, ...],
    reason: str,
) -> None:
    """Set a hold of this name.

    Of a query, or of ids as show takes them, with spaces between.
    """
    _require_reason(reason)
    texts = [text for each in ids for text in _words(each)]
    if bool(query.strip()) == bool(texts):
        raise click.UsageError("give --query QUERY, or --ids with at least one id")
    try:
        one = holds.add(
            settings, name, query=query, ids=texts, archives=archives, reason=reason
        )
    except QueryInvalid as error:
        search_command.report_error(error)
        click.get_current_context().exit(EXIT_USAGE)
    _record_access(settings, one, reason)
    click.echo(f"The hold {name} is set in {', '.join(sorted(one.journals))}.")
    count = _count(settings, one)
    if count:
        click.echo(f"Messages that it covers now: {count}.")
    elif count == 0:
        output.report(
            f"warning: the hold {name} covers no message now; it will cover those that"
            " its query finds later"
        )


@hold.command("list")
@click.option("--all", "has_all", is_flag=True, help="Also those that are released.")
@json_option
@with_settings
def list_(settings: Settings, has_all: bool, as_json: bool) -> None:
    """List the holds, oldest first."""
    some = [each for each in holds.read(settings) if has_all or each.is_open]
    for each in some:
        click.echo(json.dumps(_to_json(each)) if as_json else _line(each))
    if not some and not as_json:
        click.echo("There are no holds.")


@hold.command("show")
@click.argument("name")
@json_option
@reason_option
@with_settings
def show(settings: Settings, name: str, as_json: bool, reason: str) -> None:
    """Show one hold, and how many messages it covers now."""
    one = holds.find(settings, name)
    _record_access(settings, one, reason)
    count = _count(settings, one) if one.is_open else None
    if as_json:
        click.echo(json.dumps(_to_json(one) | {"count": count}))
        return
    for line in _lines(one):
        click.echo(line)
    if one.is_open:
        click.echo(f"Covers:      {'unknown' if count is None else count} messages now")


@hold.command("release")
@click.argument("name")
@needed_reason
@with_settings
def release(settings: Settings, name: str, reason: str) -> None:
    """Release a hold: what it covers is removed when its time comes."""
    _require_reason(reason)
    store = settings.archive_store_directory
    decisions.require_writer(store, f"hold release {name}")
    one = holds.find(settings, name, must_be_open=True)
    # Before: verify asks the access journal who has released it.
    access = recorder(settings, "hold", reason, f"release {name}")
    access.searched(sorted(one.journals))
    one = holds.release(settings, name, reason)
    click.echo(
        f"The hold {name}, set {one.time} by {safe_text(str(one.user))}, is released."
    )


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise click.BadParameter("must not be empty", param_hint="--reason")


def _words(ids: str) -> list[str]:
    return (sys.stdin.read() if ids == "-" else ids).replace(",", " ").split()


def _record_access(settings: Settings, one: Hold, reason: str) -> None:
    """Record that somebody learns how many messages a hold covers, or which."""
    access = recorder(settings, "hold", reason, one.query or one.name)
    if one.ids:
        access.record(one.ids)
    else:
        store = settings.archive_store_directory
        access.searched(one.archives or record_reader.archives(store))


def _count(settings: Settings, one: Hold) -> int | None:
    """Return how many messages a hold covers; None, and say why, if it is unknown."""
    if one.ids:
        return sum(map(len, one.ids.values()))
    try:
        found = Search(settings, one.query, archives=one.archives, now=one.set_at)
        count = found.count()
    except (IndexFailed, IndexMissing, QueryInvalid) as error:
        output.report(f"what the hold covers cannot be counted: {error}")
        return None
    for notice in found.notices:
        output.report(notice)
    return None if found.notices else count


def _line(one: Hold) -> str:
    parts = [one.name, f"since {one.time}", f"by {one.user}", _what(one)]
    parts += [f"reason={one.reason!r}"]
    if not one.is_open:
        parts += [f"released {one.released} by {one.released_by}"]
        parts += [f"reason={one.release_reason!r}"]
    return safe_text("  ".join(parts))


def _what(one: Hold) -> str:
    if one.ids:
        return f"{sum(map(len, one.ids.values()))} ids"
    where = f" in {', '.join(one.archives)}" if one.archives else ""
    return f"query={one.query!r}{where}"


def _lines(one: Hold) -> Iterator[str]:
    yield f"Hold:        {safe_text(one.name)}"
    yield f"Set:         {one.time} by {safe_text(str(one.user))}"
    yield f"Reason:      {safe_text(one.reason)}"
    if not one.is_open:
        yield f"Released:    {one.released} by {safe_text(one.released_by)}"
        yield f"Reason:      {safe_text(one.release_reason)}"
    if one.query:
        yield f"Query:       {safe_text(one.query)}"
        yield f"Archives:    {', '.join(one.archives) or 'all'}"
    for archive, ids in one.ids.items():
        for each in ids:
            yield f"Message:     {each} ({archive})"


def _to_json(one: Hold) -> dict[str, Any]:
    return {
        "name": one.name,
        "set": one.time,
        "user": one.user.name,
        "uid": one.user.uid,
        "login": one.user.login,
        "sudo_user": one.user.sudo_user,
        "web_user": one.user.web_user,
        "reason": one.reason,
        "query": one.query,
        "archives": list(one.archives),
        "ids": one.ids,
        "is_open": one.is_open,
        "released": one.released,
        "released_by": one.released_by,
        "release_reason": one.release_reason,
    }
