"""The command erase: remove one message before its time, by two different people.

retention/erasure does the work.
"""

from __future__ import annotations

import json
from typing import Any

import click

from postfix_archive.access.person import Person
from postfix_archive.cli import output
from postfix_archive.cli.options import ArchiveAddress, recorder, with_settings
from postfix_archive.config.settings import Settings
from postfix_archive.message.printable import safe_text
from postfix_archive.retention import decisions, erasure
from postfix_archive.retention.erasure import Copies, Request
from postfix_archive.retention.hold_names import HoldNames
from postfix_archive.search import look_up

archive_option = click.option(
    "--archive", type=ArchiveAddress(), metavar="ADDRESS", help="Only this archive."
)


@click.group()
def erase() -> None:
    """Erase one message, if two different people say so."""


@erase.command("request")
@click.argument("archive_id", metavar="ID")
@archive_option
@click.option("--reason", required=True, metavar="TEXT", help="Reason; erased as well.")
@with_settings
def request(
    settings: Settings, archive_id: str, archive: str | None, reason: str
) -> None:
    """Request that a message is erased."""
    if not reason.strip():
        raise click.BadParameter("must not be empty", param_hint="--reason")
    requester = _person(settings, "request", archive_id)
    place = look_up.find(settings, archive_id, archive)
    _record_access(settings, "erase request", place.archive, place.archive_id)
    erasure.request(settings, place, reason.strip(), requester, output.report)
    click.echo(
        f"{requester.name} requests that {place.archive_id} is erased from"
        f" {place.archive}. Now another person runs: postfix-archive erase approve"
        f" {place.archive_id}"
    )


@erase.command("list")
@click.option("--all", "has_all", is_flag=True, help="Also what was erased.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@with_settings
def list_(settings: Settings, has_all: bool, as_json: bool) -> None:
    """List the open requests, oldest first."""
    requests = erasure.read(settings, has_all=has_all)
    held = HoldNames(settings, output.report)
    for each in requests:
        names = held.of(each) if each.is_open else ()
        if as_json:
            click.echo(json.dumps(_to_json(each, names)))
        else:
            click.echo(_line(each, names))
    if not requests and not as_json:
        click.echo("There are no requests.")


@erase.command("approve")
@click.argument("archive_id", metavar="ID")
@archive_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_settings
def approve(
    settings: Settings, archive_id: str, archive: str | None, yes: bool
) -> None:
    """Erase a message whose erasure another person has requested."""
    approver = _person(settings, "approve", archive_id)
    one = erasure.find(settings, archive_id, archive or "")
    erasure.require_other(one, approver)
    if one.is_open:
        erasure.require_free(settings, one, output.report)
        _record_access(settings, "erase approve", one.archive, one.archive_id)
        _show_effect(settings, one, erasure.copies(settings, one))
        if not yes:
            click.confirm("Erase it?", abort=True)
    erasure.approve(settings, one, approver, output.report)
    if one.is_open:
        click.echo(f"{one.archive_id} is erased from {one.archive}.")
    else:
        click.echo(
            f"{one.archive_id} was erased {one.approved}: nothing of it is left."
        )


@erase.command("withdraw")
@click.argument("archive_id", metavar="ID")
@archive_option
@with_settings
def withdraw(settings: Settings, archive_id: str, archive: str | None) -> None:
    """Withdraw a request: the message stays."""
    who = _person(settings, "withdraw", archive_id)
    one = erasure.find(settings, archive_id, archive or "")
    erasure.withdraw(settings, one, who)
    click.echo(
        f"The request of {one.requester.name} for {one.archive_id} is withdrawn."
    )


def _person(settings: Settings, action: str, archive_id: str) -> Person:
    command = f"erase {action} {archive_id}"
    decisions.require_writer(settings.archive_store_directory, command)
    return erasure.current_person(settings)


def _record_access(
    settings: Settings, action: str, archive: str, archive_id: str
) -> None:
    """Record who looked, without the reason of the request, which may be erased."""
    access = recorder(settings, "erase", action, archive_id)
    access.record({archive: [archive_id]})


def _show_effect(settings: Settings, one: Request, copies: Copies) -> None:
    """Print what goes, and what an erasure cannot reach."""
    click.echo(
        f"{one.archive_id} in {one.archive}: erasure requested {one.time} by"
        f" {one.requester.name}, reason: {safe_text(one.reason)}"
    )
    click.echo(
        "Goes: the copy, outcome reports, all details in the journal, and the words in"
        " the index."
    )
    click.echo("Stays: digests, times, and the names of the two people.")
    click.echo("Cannot be reached, so look there yourself:")
    for each in copies.exports:
        click.echo(f"  {each.action} {each.time} by {safe_text(str(each.user))}")
    for queue_ids in copies.queue_ids:
        click.echo(f"  mailed to {one.archive}, queue ids {safe_text(queue_ids)}")
    for archive in copies.archives:
        click.echo(f"  {archive} has it too: request its erasure there")
    if settings.archive_object_store:
        click.echo(
            f"  {settings.archive_object_store}: the copy goes as soon as its lock"
            f" ({settings.archive_object_lock}) lets it, see verify --object-store"
        )
    click.echo("  backups of the store")
    click.echo("  the mailboxes of sender and recipients")


def _line(one: Request, names: tuple[str, ...] | None) -> str:
    parts = [one.archive_id, one.archive, f"requested {one.time}"]
    parts += [f"by {one.requester.name}"]
    parts += [f"reason={one.reason!r}"] if one.is_open else []
    parts += [] if one.is_open else [f"erased {one.approved} by {one.approver}"]
    parts += [f"held by {', '.join(names)}"] if names else []
    return safe_text("  ".join(parts))


def _to_json(one: Request, names: tuple[str, ...] | None) -> dict[str, Any]:
    return {
        "id": one.archive_id,
        "archive": one.archive,
        "requested": one.time,
        "requested_by": one.requester.name,
        "reason": one.reason,
        "holds": None if names is None else list(names),
        "is_open": one.is_open,
        "approved": one.approved,
        "approved_by": one.approver,
    }
