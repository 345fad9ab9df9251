"""The command show: one record, the message in it, its parts, its files."""

from __future__ import annotations

import contextlib

import click

from postfix_archive.cli.options import (
    ArchiveAddress,
    reason_option,
    recorder,
    with_settings,
)
from postfix_archive.config.settings import Settings
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
