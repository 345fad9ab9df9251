"""Shows messages as a table that fits the terminal, or as lines for other programs.

Used by list and search. Times are local. What comes from a message is made safe.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import click

from postfix_archive.message.printable import safe_text
from postfix_archive.search.index_engine import Hit
from postfix_archive.search.snippet import Snippet

if TYPE_CHECKING:
    from rich.text import Text

TIME_FORMAT = "%Y-%m-%d %H:%M"
MARK = "bold yellow"
HELD = "[held] "


class Row(NamedTuple):
    """One message of a table; ``arrived`` is Unix time.

    ``snippet`` is shown below the subject, before it that a hold covers the message.
    """

    short_id: str
    arrived: int
    sender: str
    recipient_count: int
    subject: str
    snippet: Snippet | None = None
    is_held: bool = False


def is_possible() -> bool:
    """Tell whether the output goes to a terminal, and there is what makes a table."""
    return sys.stdout.isatty() and find_spec("rich") is not None


def print_table(rows: Iterable[Row]) -> None:
    """Print rows as a table as wide as the terminal."""
    # Here, because the import takes 60 ms.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("Id", no_wrap=True)
    table.add_column("Arrived", no_wrap=True)
    table.add_column("From", no_wrap=True, ratio=2, overflow="ellipsis")
    table.add_column("To", justify="right", no_wrap=True)
    table.add_column("Subject", ratio=5, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(
            row.short_id,
            local_time(row.arrived),
            Text(safe_text(row.sender) or "<>"),
            str(row.recipient_count),
            Text.assemble((HELD, MARK) if row.is_held else "", safe_text(row.subject)),
        )
        if row.snippet and row.snippet.text:
            table.add_row("", "", "", "", _marked(row.snippet))
    Console(highlight=False, soft_wrap=False).print(table)


def _marked(snippet: Snippet) -> Text:
    from rich.text import Text

    text = Text(style="dim")
    end = 0
    for start, stop in snippet.marks:
        text.append(safe_text(snippet.text[end:start]))
        text.append(safe_text(snippet.text[start:stop]), style=f"not dim {MARK}")
        end = stop
    text.append(safe_text(snippet.text[end:]))
    return text


def lines(hits: Iterable[Hit]) -> Iterator[str]:
    """Yield a line for each hit, its values separated by tabs."""
    for hit in hits:
        yield "\t".join(
            (
                hit.archive_id,
                local_time(hit.arrived),
                hit.archive,
                safe_text(hit.sender) or "<>",
                str(hit.recipient_count),
                safe_text(hit.subject),
            )
        )


def echo_lines(hits: Iterable[Hit]) -> None:
    """Print lines()."""
    for line in lines(hits):
        click.echo(line)


def local_time(seconds: int) -> str:
    """Return a Unix time as date and time of day in the local time zone."""
    try:
        return time.strftime(TIME_FORMAT, time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "?"
