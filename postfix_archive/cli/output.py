"""What commands print: errors, damaged records, bytes of messages.

Used by main, list and show.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator

import click

from postfix_archive.message.printable import safe_text

EXIT_FAILURE = 1


def report(text: str) -> None:
    """Print one line on stderr."""
    with contextlib.suppress(OSError):
        click.echo(f"postfix-archive: {safe_text(text)}", err=True)


def report_damage(problems: Iterable[str]) -> None:
    """Name the copies that cannot be read, and exit with 1 if there are any."""
    for problem in problems:
        report(f"RecordDamaged: {problem}")
    if problems:
        click.get_current_context().exit(EXIT_FAILURE)


def write_bytes(chunks: Iterable[bytes]) -> None:
    """Write bytes to a file or pipe as they are, to a terminal as safe text."""
    if sys.stdout.isatty():
        for line in _lines(chunks):
            click.echo(safe_text(line))
        return
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r")
    if rest:
        yield rest
