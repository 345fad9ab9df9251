"""The command show: one record, the message in it, its parts, its files."""

from __future__ import annotations

import contextlib

import click

from postfix_archive.cli import message_view, output, record_view
from postfix_archive.cli.options import (
    ArchiveAddress,
    reason_option,
    recorder,
    with_settings,
)
from postfix_archive.config.settings import Settings
from postfix_archive.errors import RecordNotFound
from postfix_archive.message.printable import safe_text
from postfix_archive.retention.hold_names import HoldNames
from postfix_archive.search import look_up
from postfix_archive.search.content import MessageContent
from postfix_archive.search.extraction_parts import Part
from postfix_archive.search.extraction_process import Extractor, read_original
from postfix_archive.store import record_check, record_reader
from postfix_archive.store.record import Record

INTACT = "journal lines, files and original have the SHA-256 that the journal names"
# UTF-8 with a byte order mark, which comes before what the HTML says of its charset.
HTML_ENCODING = "utf-8-sig"
Offsets = tuple[int, ...]  # of the record's lines in the journal
from postfix_archive.search.extraction_process import Extractor


@click.command()
@click.argument("archive_id", metavar="ID")
@click.option(
    "--archive", type=ArchiveAddress(), metavar="ADDRESS", help="Only this archive."
)
@click.option("--raw", is_flag=True, help="Print the archive copy, byte for byte.")
@click.option("--original", is_flag=True, help="Print the original, byte for byte.")
@click.option(
    "--outcome", is_flag=True, help="Print the outcome report, byte for byte."
)
@click.option(
    "--part", type=click.IntRange(1), metavar="N", help="Print part N, decoded."
)
@click.option("--html", is_flag=True, help="Print the first HTML part, in UTF-8.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--passes", is_flag=True, help="List the records with the same Message-ID too."
)
@reason_option
@with_settings
def show(
    settings: Settings,
    archive_id: str,
    archive: str | None,
    raw: bool,
    original: bool,
    outcome: bool,
    part: int | None,
    html: bool,
    as_json: bool,
    passes: bool,
    reason: str,
) -> None:
    """Show one record; a unique prefix of the id is enough.

    Its queue id, Message-ID or SHA-256 is an id, too.
    """
    if sum((raw, original, outcome, part is not None, html, as_json)) > 1:
        raise click.UsageError("one of the options that print something else, not two")
    has_content = not (raw or original or outcome or html or part is not None)
    with contextlib.closing(Extractor()) as extractor:
        if has_content:
            extractor.start()  # imports its modules while we import ours: 50 ms
        from postfix_archive.cli import output, show_output
        from postfix_archive.search import look_up
        from postfix_archive.store import record_reader


def _print_page(
    settings: Settings, message: Record, offsets: Offsets, *, has_passes: bool
) -> None:
    store = settings.archive_store_directory
    problems: list[str] = []
    with Extractor() as extractor:  # starts while we read the record
        for line in record_view.lines(settings, message, problems):
            click.echo(line)
        for line in _integrity_lines(store, message, offsets, problems):
            click.echo(line)
        names = HoldNames(settings, output.report).of(message)
        if names:
            click.echo(f"Held by:     {safe_text(', '.join(names))}")
        if not problems:
            content, parts = _content(store, message, extractor.extract)
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


def _print_json(settings: Settings, message: Record, offsets: Offsets) -> None:
    store = settings.archive_store_directory
    damage = record_check.problems(store, message, offsets)
    names = HoldNames(settings, output.report).of(message)
    result = record_view.to_json(message, names) | {"integrity_problems": damage}
    if not damage:
        with Extractor() as extractor:
            content, parts = _content(store, message, extractor.extract)
        result |= message_view.to_json(content, parts)
    click.echo(json.dumps(result))
    output.report_damage(damage)


def _content(
    store: str, message: Record, extract: Callable[[bytes], MessageContent]
) -> tuple[MessageContent, list[Part]]:
    """Return the content of the original, and its parts."""
    original = read_original(record_reader.original(store, message))
    return extract(original), message_view.parts(original)


def _part(store: str, message: Record, number: int) -> Part:
    parts = message_view.parts(b"".join(record_reader.original(store, message)))
    if number > len(parts):
        raise RecordNotFound(
            f"{message.archive_id} has no part {number}; it has {len(parts)}, which"
            f" postfix-archive show lists"
        )
    return parts[number - 1]


def _html(store: str, message: Record) -> str:
    from postfix_archive.search import extraction_html  # takes 4 ms

    original = b"".join(record_reader.original(store, message))
    for part in message_view.parts(original):
        if part.media_type in extraction_html.MEDIA_TYPES:
            return extraction_html.source(part.content(), part.charset)
    raise RecordNotFound(
        f"{message.archive_id} has no HTML part; postfix-archive show lists its parts"
    )
        store = settings.archive_store_directory
        access = recorder(settings, "show", reason, archive_id)
        place = look_up.find(settings, archive_id, archive)
        access.record({place.archive: [place.archive_id]})
        message = look_up.record_of(settings, place)
        if original:
            output.write_bytes(record_reader.original(store, message))
        elif raw:
            output.write_bytes(record_reader.archive_copy(store, message))
        elif outcome:
            output.write_bytes(record_reader.outcome_report(store, message))
        elif part is not None:
            show_output.print_part(store, message, part)
        elif html:
            show_output.print_html(store, message)
        elif as_json:
            show_output.print_json(settings, message, place.offsets, extractor)
        else:
            show_output.print_page(
                settings, message, place.offsets, extractor, has_passes=passes
            )
