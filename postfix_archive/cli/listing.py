"""The command list: archived messages, oldest first.

A table on a terminal; a line for each message, with the whole id, where the output goes
elsewhere. Uses the index where it is there, and the journals where it is not.
"""

from __future__ import annotations

import datetime
import json
import math
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

import click

from postfix_archive.cli import hit_table, output, record_view
from postfix_archive.cli.hit_table import Row
from postfix_archive.cli.options import (
    COUNT,
    ArchiveAddress,
    Date,
    reason_option,
    recorder,
    with_settings,
)
from postfix_archive.config.settings import Settings
from postfix_archive.message.printable import safe_text
from postfix_archive.retention.hold_names import HoldNames, Names
from postfix_archive.search import look_up, short_ids
from postfix_archive.store import record_reader
from postfix_archive.store.record import Record

TABLE_ROWS = 1000  # rows of one table: it must know all of them for its widths


@click.command("list")
@click.option(
    "--archive", type=ArchiveAddress(), metavar="ADDRESS", help="Only this archive."
)
@click.option("--since", type=Date(), help="Only messages archived at or after DATE.")
@click.option("--until", type=Date(), help="Only messages archived before DATE.")
@click.option("--last", type=COUNT, metavar="N", help="Only the last N messages.")
@click.option("--long", "is_long", is_flag=True, help="Print all of each message.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@reason_option
@with_settings
def list_(
    settings: Settings,
    archive: str | None,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    last: int | None,
    is_long: bool,
    as_json: bool,
    reason: str,
) -> None:
    """List archived messages, oldest first."""
    begin = since.timestamp() if since else 0.0
    end = until.timestamp() if until else math.inf
    problems: list[str] = []
    store = settings.archive_store_directory
    access = recorder(settings, "list", reason)
    messages = access.before(
        _records(settings, archive, begin, end, last, problems.append),
        record_reader.selected_archives(store, archive),
    )
    first = next(messages, None)
    if first is None:
        if not as_json:
            click.echo(f"No archived messages in {settings.archive_store_directory}.")
        output.report_damage(problems)
        return
    held = HoldNames(settings, output.report).with_names(_with_first(first, messages))
    if as_json:
        for message, names in held:
            click.echo(json.dumps(record_view.to_json(message, names)))
    elif is_long or not hit_table.is_possible():
        for message, names in held:
            for line in record_view.summary_lines(settings, message, problems, names):
                click.echo(line)
    else:
        while some := list(islice(held, TABLE_ROWS)):
            _print_table(settings, some, problems)
    output.report_damage(problems)


def _with_first(first: Record, others: Iterator[Record]) -> Iterator[Record]:
    yield first
    yield from others


def _records(
    settings: Settings,
    archive: str | None,
    begin: float,
    end: float,
    last: int | None,
    warn: Callable[[str], None],
) -> Iterator[Record]:
    """Yield the records of all archives, one archive after the other."""
    store = settings.archive_store_directory
    addresses = record_reader.selected_archives(store, archive)
    if last:
        records = (
            each
            for name in addresses
            for each in look_up.last_records(settings, name, begin, end, last, warn)
        )
        return iter(deque(records, last))
    return (
        each
        for name in addresses
        for each in record_reader.records(
            store, name, since=begin, until=end, warn=warn
        )
    )


def _print_table(
    settings: Settings,
    messages: list[tuple[Record, Names | None]],
    problems: list[str],
) -> None:
    ids = short_ids.shorten(settings, [each.archive_id for each, _ in messages])
    hit_table.print_table(
        Row(
            ids[each.archive_id],
            _arrival(each),
            safe_text(each.passes[0].sender),
            len(each.recipients),
            record_view.subject_text(settings, each, problems),
            is_held=bool(names),
        )
        for each, names in messages
    )


def _arrival(message: Record) -> int:
    """Return when a message arrived, or else was archived."""
    if message.envelope.arrival is not None:
        return message.envelope.arrival
    return int(datetime.datetime.fromisoformat(message.passes[0].time).timestamp())
