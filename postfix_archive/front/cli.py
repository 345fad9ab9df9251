"""The command postfix-archive: what people type. Commands here only read.

Not on mail's way, so it may import click and what else it likes. Errors of ours become
one line on stderr and exit code 1, never a traceback.
"""

from __future__ import annotations

import datetime
import email.errors
import email.header
import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import chardet
import click

from postfix_archive import __version__
from postfix_archive.back import config, reading
from postfix_archive.core import mime, trace
from postfix_archive.core.errors import ArchiveError
from postfix_archive.core.record import Record, shown
from postfix_archive.core.settings import Settings
from postfix_archive.front import (
    admin,
    bypass,
    doctor,
    explain,
    outcomes,
    reconcile,
    rescue,
    status,
    verify,
)
from postfix_archive.front.dates import Date

FAILED = 1
SUBJECT_LIMIT = 998  # bytes; decoding a longer one takes time, and no line has more
STAMPS = {
    "absent": "it bore no stamp of this archive",
    "valid": "its stamp was valid, but this store did not have it",
    "altered": "it bore a stamp of this archive, but had been changed since",
    "forged": "its stamp was not made with a key of this site",
}


class Commands(click.Group):
    """Turns our errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ArchiveError as error:
            click.echo(f"postfix-archive: {type(error).__name__}: {error}", err=True)
            ctx.exit(FAILED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option(
    "-c",
    "config_dir",
    metavar="DIR",
    help="Postfix's configuration directory. [default: $MAIL_CONFIG or /etc/postfix]",
)
@click.pass_context
def main(ctx: click.Context, config_dir: str | None) -> None:
    """Look into the mail archive of a Postfix host, and look after it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # main.cf may hold what is no UTF-8
            stream.reconfigure(errors="backslashreplace")
    ctx.obj = config.directory(config_dir)


main.add_command(admin.key)
main.add_command(bypass.bypass)
main.add_command(doctor.doctor)
main.add_command(explain.explain)
main.add_command(outcomes.outcomes)
main.add_command(reconcile.reconcile)
main.add_command(rescue.rescue_)
main.add_command(rescue.return_)
main.add_command(status.status)
main.add_command(admin.tables)
main.add_command(verify.verify)


def with_store(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the settings of this instance as its first argument."""

    @click.pass_obj
    def loaded(directory: str, /, **words: Any) -> None:
        command(config.load(directory), **words)

    loaded.__doc__ = command.__doc__
    loaded.__name__ = command.__name__
    return loaded


@main.command("list")
@click.option("--archive", metavar="ADDRESS", help="Only this archive.")
@click.option("--since", type=Date(), help="Only what was archived then or later.")
@click.option("--until", type=Date(), help="Only what was archived before.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the last N.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@with_store
def list_(
    settings: Settings,
    archive: str | None,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    last: int | None,
    as_json: bool,
) -> None:
    """List the archived messages, oldest first."""
    rows = [
        each
        for each in _records(settings, archive)
        if (since is None or _archived_at(each) >= since)
        and (until is None or _archived_at(each) < until)
    ]
    for each in rows[-last:] if last else rows:
        click.echo(json.dumps(_facts(each)) if as_json else _row(settings, each))
    if not rows and not as_json:
        click.echo(f"Nothing is archived in {settings.archive_store_directory}.")


@main.command()
@click.argument("archive_id", metavar="ID")
@click.option("--archive", metavar="ADDRESS", help="Look in this archive only.")
@click.option("--raw", is_flag=True, help="The archive copy, byte for byte.")
@click.option("--original", is_flag=True, help="The original, byte for byte.")
@with_store
def show(
    settings: Settings, archive_id: str, archive: str | None, raw: bool, original: bool
) -> None:
    """Show what became one record. ID may be cut off where it is still unique."""
    store = settings.archive_store_directory
    kept = reading.found(store, archive_id, archive)
    if original:
        _write(reading.original(store, kept))
    elif raw:
        _write(reading.copy(store, kept))
    else:
        for line in _page(settings, kept):
            click.echo(line)


def _records(settings: Settings, archive: str | None) -> Iterator[Record]:
    store = settings.archive_store_directory
    for address in [archive] if archive else reading.archives(store):
        yield from reading.records(store, address).values()


def _archived_at(kept: Record) -> datetime.datetime:
    return datetime.datetime.fromisoformat(kept.events[0]["time"])


def _facts(kept: Record) -> dict[str, Any]:
    return {
        "id": kept.archive_id,
        "archive": kept.archive,
        "archived": kept.events[0]["time"],
        "sender": shown(kept.envelope.sender),
        "recipients": [shown(each.final) for each in kept.recipients.values()],
        "queue_id": shown(kept.envelope.queue_id),
        "size": kept.events[0]["size"],
        "sha256": kept.events[0]["sha256"],
        "files": kept.files,
    }


def _row(settings: Settings, kept: Record) -> str:
    """One message on one line: id, when, who, how many, what about."""
    people = len(kept.recipients)
    first = next(iter(kept.recipients.values()), None)
    to = shown(first.final) if first else "(nobody known)"
    if people > 1:
        to += f" +{people - 1}"
    sender = shown(kept.envelope.sender) or "<>"
    when = kept.events[0]["time"]
    about = _decoded(reading.original_head(settings.archive_store_directory, kept))
    return f"{kept.archive_id}  {when}  {kept.archive}  {sender} -> {to}  {about}"


def _page(settings: Settings, kept: Record) -> Iterator[str]:
    sealed = kept.envelope
    head = reading.original_head(settings.archive_store_directory, kept)
    yield f"Archive id:  {kept.archive_id}"
    yield f"Archive:     {kept.archive}"
    yield f"Subject:     {_decoded(head)}"
    yield f"Message-ID:  {shown(mime.field_text(head, b'message-id')) or '(none)'}"
    yield f"Sender:      {shown(sealed.sender) or '<> (the null sender)'}"
    if sealed.arrival is not None:
        yield f"Received:    {trace.written_date(sealed.arrival).decode()}"
    yield f"Host:        {shown(sealed.host)}, queue id {shown(sealed.queue_id)}"
    yield from _client(kept)
    yield f"Size:        {kept.events[0]['size']} bytes"
    yield f"SHA-256:     {_plain(kept.events[0]['sha256'])}"
    for name in kept.files:
        path = f"{settings.archive_store_directory}/{kept.archive}/{name}"
        yield f"File:        {_plain(path)}"
    yield f"Recipients:  {len(kept.recipients)}"
    for each in kept.recipients.values():
        before = f" (expanded from {shown(each.original)})" if each.expanded else ""
        yield f"  {shown(each.final)}{before}"
    yield "History:"
    for event in kept.events:
        yield f"  {event['time']}  {_told(event)}"


def _client(kept: Record) -> Iterator[str]:
    client = kept.envelope.client
    if client.address:
        name = shown(client.hostname) or "unknown"
        helo = f", helo {shown(client.helo)}" if client.helo else ""
        how = f", {shown(client.protocol)}" if client.protocol else ""
        yield f"Client:      {name} [{shown(client.address)}]{helo}{how}"
    if client.sasl_username:
        method = f" by {shown(client.sasl_method)}" if client.sasl_method else ""
        yield f"SASL user:   {shown(client.sasl_username)}{method}"


def _told(event: dict[str, Any]) -> str:
    if event["event"] == "archived":
        return f"archived in full; {STAMPS.get(event['stamp'], '?')}"
    if event["event"] == "supplement":
        above = event.get("above", "").count("\n")
        added = f", {above} lines above the stamp" if above else ""
        return f"supplement: more of its envelope{added}"
    return _plain(f"{event['event']}, queued as {event.get('queued_as', '?')}")


def _plain(text: str) -> str:
    """Text of a journal, safe on a terminal."""
    return shown(text.encode("utf-8", "replace"))


def _decoded(head: bytes) -> str:
    """The subject for people: encoded words and undeclared charsets made readable."""
    raw = mime.field_text(head, b"subject")[:SUBJECT_LIMIT]
    if not raw:
        return "(no subject)"
    if not raw.isascii():
        return _plain(_recoded(raw))
    try:
        text = str(email.header.make_header(email.header.decode_header(raw.decode())))
    except (ValueError, LookupError, email.errors.MessageError):
        text = raw.decode()
    return _plain(text)


def _recoded(raw: bytes) -> str:
    """A subject in an undeclared charset, as chardet guesses; for the eye alone."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        guess = chardet.detect(raw)
    try:
        return raw.decode(guess["encoding"] or "ascii", "replace")
    except LookupError:  # chardet knows charsets that Python does not
        return raw.decode("ascii", "replace")


def _write(pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
