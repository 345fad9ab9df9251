"""The commands history and access-service: who read archived mail, when and why."""

from __future__ import annotations

import datetime
import functools
import heapq
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from postfix_archive.access import access_journal, access_recorder
from postfix_archive.access import access_service as access_service_module
from postfix_archive.access import reader_group
from postfix_archive.access.access_entry import Entry
from postfix_archive.access.access_service import AccessService
from postfix_archive.access.decision import Decision
from postfix_archive.cli.options import ArchiveAddress, Date
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import NotRoot
from postfix_archive.message import dates
from postfix_archive.message.printable import safe_text
from postfix_archive.store import copy_file, journal_reader, record_reader
from postfix_archive.system import privileges

IDS_SHOWN = 3


@click.command()
@click.argument("archive_id", metavar="[ID]", required=False)
@click.option("--user", metavar="NAME", help="Only what this user read.")
@click.option(
    "--archive", type=ArchiveAddress(), metavar="ADDRESS", help="Only this archive."
)
@click.option("--since", type=Date(), help="Only accesses at or after DATE.")
@click.option("--until", type=Date(), help="Only accesses before DATE.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.pass_obj
def history(
    directory: str,
    archive_id: str | None,
    user: str | None,
    archive: str | None,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    as_json: bool,
) -> None:
    """Show who read archived mail, when and why, oldest first.

    With ID, or a prefix of it: who read this message.
    """
    store = archive_cf.load(directory).archive_store_directory
    archives = record_reader.selected_archives(store, archive)
    if archive_id is not None:
        _require_one(store, archives, archive_id)
    begin = dates.format_rfc3339(since.timestamp()) if since else ""
    end = dates.format_rfc3339(until.timestamp()) if until else "~"
    count = 0
    for address, entry in _merged(store, archives):
        is_in_time = begin <= entry.time < end
        if not is_in_time or not entry.is_of(user or "", archive_id or ""):
            continue
        count += 1
        if as_json:
            click.echo(json.dumps(_to_json(address, entry)))
        else:
            click.echo(_line(address, entry))
    if not count and not as_json:
        of_what = f" of {safe_text(archive_id)}" if archive_id else ""
        click.echo(f"No accesses{of_what} are recorded.")


def _require_one(store: str, archives: list[str], text: str) -> None:
    """Raise RecordNotFound if text is "" or a prefix of several ids that were read."""
    if not text.strip():
        raise record_reader.no_id()
    matches: dict[str, str] = {}  # archive id -> one of its archives
    for address, entry in _merged(store, archives):
        matches |= {each: address for each in entry.ids if each.startswith(text)}
        if len(matches) > record_reader.MATCH_LIMIT:
            break
    if len(matches) > 1:
        raise record_reader.ambiguous(text, [(matches[e], e) for e in matches])


def _merged(store: str, archives: list[str]) -> Iterator[tuple[str, Entry]]:
    """Yield the entries of all archives, oldest first."""
    streams = (_with_archive(store, address) for address in archives)
    return heapq.merge(*streams, key=lambda pair: pair[1].time)


def _with_archive(store: str, archive: str) -> Iterator[tuple[str, Entry]]:
    for entry in access_journal.entries(store, archive):
        yield archive, entry


def _line(archive: str, entry: Entry) -> str:
    shown = " ".join(entry.ids[:IDS_SHOWN])
    if len(entry.ids) > IDS_SHOWN:
        shown += f" and {len(entry.ids) - IDS_SHOWN} more"
    parts = [entry.time, str(entry.user), entry.action, archive]
    parts += [f"query={entry.query!r}"] if entry.query else []
    parts += [shown or "no message"]
    parts += [f"reason={entry.reason!r}"] if entry.reason else []
    return safe_text("  ".join(parts))


def _to_json(archive: str, entry: Entry) -> dict[str, Any]:
    return {
        "time": entry.time,
        "archive": archive,
        "user": entry.user.name,
        "uid": entry.user.uid,
        "login": entry.user.login,
        "sudo_user": entry.user.sudo_user,
        "web_user": entry.user.web_user,
        "action": entry.action,
        "query": entry.query,
        "reason": entry.reason,
        "ids": list(entry.ids),
    }


@click.command()
@click.pass_obj
def readers(directory: str) -> None:
    """Give archive_reader_group read access to store and index.

    Run it after a change of that setting; an empty one takes the access away.
    """
    settings = archive_cf.load(directory)
    if os.geteuid():
        raise NotRoot("only root may change groups: sudo postfix-archive readers")
    group = settings.archive_reader_group
    who = f"group {group}" if group else "only its owner"
    store = settings.archive_store_directory
    for address in record_reader.archives(store):
        journal_reader.require_format(journal_reader.path_of(store, address))
    # The store at the end: the doctor looks at its mode.
    for path in (settings.archive_index_directory, store):
        if os.path.isdir(path):
            count = reader_group.share(path, group)
            click.echo(f"{path}: {who} can read it; changed: {count}")


@click.command("access-service")
@click.pass_obj
def access_service(directory: str) -> None:
    """Record what members of archive_reader_group read.

    Runs until stopped. They can read the store and not write it. Also does for the web
    page what its process cannot do. Started by systemd or cron.
    """
    settings = archive_cf.load(directory)
    if os.geteuid():
        raise NotRoot(
            "only root may start it: sudo postfix-archive access-service; it then runs"
            " as the archive's user"
        )
    path = settings.archive_access_socket
    if access_service_module.is_running(path):
        # No error for cron to mail: the other one does it.
        click.echo(f"{path}: the access service is running")
        return

    def append(ids: Mapping[str, Sequence[str]], entry: Entry) -> None:
        access_recorder.append_or_log(settings, ids, entry, _warn)

    def decide(current_settings: Settings, decision: Decision) -> str:
        # Here, because the imports take long, and only hosts with a page need them.
        from postfix_archive.cli import web_decisions

        return web_decisions.carry_out(current_settings, decision, _warn)

    load = functools.partial(archive_cf.load, directory)
    with AccessService(load, append, decide, copy_file.fetch_moved) as service:
        privileges.become_owner(settings.archive_store_directory)
        service.serve_forever()


def _warn(text: str) -> None:
    click.echo(f"postfix-archive: {text}", err=True)
