"""What the command show prints of one record: a page, JSON, a file of it, a part.

Used by show, which imports it after it has started the process for extraction.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from postfix_archive.cli import message_view, output, record_view
from postfix_archive.config.settings import Settings
from postfix_archive.errors import RecordNotFound
from postfix_archive.message.printable import safe_text
from postfix_archive.retention.hold_names import HoldNames
from postfix_archive.search.content import MessageContent
from postfix_archive.search.extraction_parts import Part
from postfix_archive.search.extraction_process import Extractor, read_original
from postfix_archive.store import record_check, record_reader
from postfix_archive.store.record import Record

INTACT = "journal lines, files and original have the SHA-256 that the journal names"
# UTF-8 with a byte order mark, which comes before what the HTML says of its charset.
HTML_ENCODING = "utf-8-sig"
Offsets = tuple[int, ...]  # of the record's lines in the journal


def print_page(
    settings: Settings,
    message: Record,
    offsets: Offsets,
    extractor: Extractor,
    *,
    has_passes: bool,
) -> None:
    """Print a record and the message in it."""
    store = settings.archive_store_directory
    problems: list[str] = []
    for line in record_view.lines(settings, message, problems):
        click.echo(line)
    for line in _integrity_lines(store, message, offsets, problems):
        click.echo(line)
    names = HoldNames(settings, output.report).of(message)
    if names:
        click.echo(f"Held by:     {safe_text(', '.join(names))}")
    if not problems:
        content, parts = _content(store, message, extractor)
        for line in message_view.lines(content, parts):
            click.echo(line)
    if has_passes:
        for other in record_reader.with_same_message_id(
            store, message, problems.append
        ):
            for line in record_view.summary_lines(settings, other, problems):
                click.echo(f"Same Message-ID: {line}")
    output.report_damage(problems)


def _integrity_lines(
    store: str, message: Record, offsets: Offsets, problems: list[str]
) -> Iterator[str]:
    """Yield the verdict on the lines and files of a record.

    Appends to problems what differs, unless it says already why a file is unreadable.
    """
    damage = record_check.problems(store, message, offsets)
    for problem in damage or [INTACT]:
        yield f"Integrity:   {safe_text(problem)}"
    problems += [] if problems else damage


def print_json(
    settings: Settings, message: Record, offsets: Offsets, extractor: Extractor
) -> None:
    """Print a record and the message in it as one JSON object."""
    store = settings.archive_store_directory
    damage = record_check.problems(store, message, offsets)
    names = HoldNames(settings, output.report).of(message)
    result = record_view.to_json(message, names) | {"integrity_problems": damage}
    if not damage:
        content, parts = _content(store, message, extractor)
        result |= message_view.to_json(content, parts)
    click.echo(json.dumps(result))
    output.report_damage(damage)


def _content(
    store: str, message: Record, extractor: Extractor
) -> tuple[MessageContent, list[Part]]:
    """Return the content of the original, and its parts."""
    original = read_original(record_reader.original(store, message))
    return extractor.extract(original), message_view.parts(original)


def print_part(store: str, message: Record, number: int) -> None:
    """Print a part of the original, decoded. Raises RecordNotFound."""
    parts = message_view.parts(b"".join(record_reader.original(store, message)))
    if number > len(parts):
        raise RecordNotFound(
            f"{message.archive_id} has no part {number}; it has {len(parts)}, which"
            f" postfix-archive show lists"
        )
    output.write_bytes([parts[number - 1].content()])


def print_html(store: str, message: Record) -> None:
    """Print the first HTML part. Raises RecordNotFound."""
    from postfix_archive.search import extraction_html  # takes 4 ms

    original = b"".join(record_reader.original(store, message))
    for part in message_view.parts(original):
        if part.media_type in extraction_html.MEDIA_TYPES:
            html = extraction_html.source(part.content(), part.charset)
            output.write_bytes([html.encode(HTML_ENCODING, "replace")])
            return
    raise RecordNotFound(
        f"{message.archive_id} has no HTML part; postfix-archive show lists its parts"
    )
