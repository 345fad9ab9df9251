"""The command search: finds archived messages, shows them as a table or as data.

Errors in a query are shown with a mark under their place, exit code 2; where a part of
the mail could not be searched the exit code is 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import click

from postfix_archive.cli import hit_table, output
from postfix_archive.cli.hit_table import Row
from postfix_archive.cli.options import (
    COUNT,
    archives_option,
    reason_option,
    recorder,
    with_settings,
)
from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    QueryInvalid,
    RecordDamaged,
    RecordNotFound,
    StoreFailed,
)
from postfix_archive.message import printable
from postfix_archive.message.printable import safe_text
from postfix_archive.retention.hold_names import HoldNames, Names
from postfix_archive.search import look_up, search, short_ids, snippet
from postfix_archive.search.extraction_process import Extractor, read_original
from postfix_archive.search.index_engine import ORDERS, Hit
from postfix_archive.store import record_reader

EXIT_FAILURE, EXIT_USAGE = 1, 2
SNIPPET_LENGTH = 160  # characters
QUERY_WIDTH = 72  # columns of a query that are shown with an error


@click.command("search")
@click.argument("words", nargs=-1, required=True, metavar="QUERY")
@archives_option
@click.option(
    "--sort",
    type=click.Choice(list(ORDERS)),
    default="newest",
    help="Order of the messages. [default: newest]",
)
@click.option(
    "--limit",
    type=COUNT,
    metavar="N",
    default=search.PAGE_SIZE,
    help="At most N messages. [default: 50]",
)
@click.option("--after", metavar="PLACE", default="", help="Go on after this page.")
@click.option("--all", "has_all", is_flag=True, help="All messages, without pages.")
@click.option("--count", is_flag=True, help="Print the number of messages.")
@click.option("--ids", is_flag=True, help="Print archive ids, one per line.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@reason_option
@with_settings
def search_(
    settings: Settings,
    words: tuple[str, ...],
    archives: tuple[str, ...],
    sort: str,
    limit: int,
    after: str,
    has_all: bool,
    count: bool,
    ids: bool,
    as_json: bool,
    reason: str,
) -> None:
    """Find archived messages: search from:anna subject:contract.

    The query language is in docs/searching.md. Words of a query need no quotes for the
    shell unless it would interpret them.
    """
    query = " ".join(words)
    store = settings.archive_store_directory
    try:
        found = search.Search(settings, query, sort=sort, archives=archives)
        access = recorder(settings, "count" if count else "search", reason, query)
        searched = archives or record_reader.archives(store)
        if count:
            access.searched(searched)
            click.echo(found.count())
            _report_notices(found)
            return
        found_hits = found.hits(after, limit + 1)
        some = found_hits if has_all else islice(found_hits, limit + 1)
        hits = access.before(some, searched)
    except QueryInvalid as error:
        report_error(error)
        click.get_current_context().exit(EXIT_USAGE)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--after'") from None
    if has_all:
        _print(settings, found, hits, ids=ids, as_json=as_json)
    else:
        page = list(hits)
        _print(settings, found, iter(page[:limit]), ids=ids, as_json=as_json)
        if len(page) > limit:
            place = search.place_of(page[limit - 1], found.order)
            click.echo(f"There are more: --after={place}", err=True)
    _report_notices(found)


def _print(
    settings: Settings,
    found: search.Search,
    hits: Iterator[Hit],
    *,
    ids: bool,
    as_json: bool,
) -> None:
    if ids:
        for hit in hits:
            click.echo(hit.archive_id)
    elif as_json:
        for hit, names in HoldNames(settings, output.report).with_names(hits):
            click.echo(json.dumps(_to_json(hit, names)))
    elif hit_table.is_possible():
        page = list(hits)
        if page:
            hit_table.print_table(_rows(settings, found, page))
        else:
            click.echo("Nothing found.")
    else:
        hit_table.echo_lines(hits)


def _report_notices(found: search.Search) -> None:
    """Name what could not be searched, and exit with 1 if there is any."""
    for notice in found.notices:
        output.report(notice)
    if found.notices:
        click.get_current_context().exit(EXIT_FAILURE)


def _to_json(hit: Hit, hold_names: Names | None) -> dict[str, Any]:
    """Return a hit as a JSON object, with the holds that cover it, None if unknown."""
    return {
        **hit.to_json(),
        "recipients": hit.recipient_count,
        "journal_offsets": list(hit.offsets),
        "holds": None if hold_names is None else list(hold_names),
    }


def _rows(settings: Settings, found: search.Search, page: list[Hit]) -> Iterator[Row]:
    ids = short_ids.shorten(settings, [each.archive_id for each in page])
    words = snippet.pattern(found.node)
    with Extractor() as extractor:
        for hit, names in HoldNames(settings, output.report).with_names(page):
            text = _text(settings, hit, extractor)
            part = snippet.cut(text, words, SNIPPET_LENGTH) if text else None
            yield Row(
                ids[hit.archive_id],
                hit.arrived,
                hit.sender,
                hit.recipient_count,
                hit.subject,
                part,
                is_held=bool(names),
            )


def _text(settings: Settings, hit: Hit, extractor: Extractor) -> str:
    """Return the text of a message, "" if its copy is missing or damaged."""
    try:
        record = look_up.record_of(settings, hit)
        store = settings.archive_store_directory
        original = read_original(record_reader.original(store, record))
    except (RecordDamaged, RecordNotFound, StoreFailed):
        return ""
    return extractor.extract(original).text


def report_error(error: QueryInvalid) -> None:
    """Print the reason, the query, and a mark under the place of the error."""
    output.report(f"QueryInvalid: {error}")
    begin = max(0, error.position - QUERY_WIDTH // 2)
    shown = safe_text(error.query[begin : error.position])
    rest = safe_text(error.query[error.position :])
    click.echo(f"  {printable.cut(shown + rest, QUERY_WIDTH)}", err=True)
    click.echo(f"  {' ' * printable.width(shown)}^", err=True)
