"""The commands purge and retention: how long mail is kept, and its removal.

The package retention does the work.
"""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Iterator

import click

from postfix_archive.access import access_entry
from postfix_archive.cli import output
from postfix_archive.cli.options import Date, with_settings
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError, NotRoot, PurgeRefused
from postfix_archive.message.printable import safe_text
from postfix_archive.retention import clock, notes, period_change, rules
from postfix_archive.retention.purge import Purge, Result
from postfix_archive.retention.rules import Decision
from postfix_archive.search import index_update, look_up
from postfix_archive.store import known_end, record_reader
from postfix_archive.system import privileges

PURGE_LOCK = "purge.lock"  # in archive_fallback_directory


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go, remove nothing.")
@click.option("--really", is_flag=True, help="Also more than archive_purge_limit.")
@click.option(
    "--clock-is-right", is_flag=True, help="Also by a clock far ahead of the last run."
)
@with_settings
def purge(
    settings: Settings, dry_run: bool, really: bool, clock_is_right: bool
) -> None:
    """Remove the records whose retention period is over.

    Records that a legal hold covers stay. A timer runs this once a day.
    """
    store = settings.archive_store_directory
    if not (settings.has_store or os.path.isdir(store)):
        return
    by = _become_owner(settings, "purge")
    path = f"{settings.archive_fallback_directory}/{PURGE_LOCK}"
    # As the owner: the store's may be root, as that of a mount point.
    with privileges.as_owner(settings.archive_fallback_directory):
        lock = privileges.try_lock(path)
    if lock < 0:
        raise PurgeRefused(f"another postfix-archive purge is running: it locks {path}")
    try:
        _require_whole(settings)
        now = time.time()
        doubt = clock.doubt(settings, now, is_confirmed=clock_is_right)
        run = Purge(settings, now=now, doubt=doubt, by=by, warn=output.report)
        archives = record_reader.archives(store)
        _purge(run, archives, is_dry=dry_run, is_confirmed=really)
        # A store that cannot be seen has no archives, too.
        if archives and not (dry_run or doubt):
            clock.record_run(settings, now)
    finally:
        os.close(lock)


def _require_whole(settings: Settings) -> None:
    """Raise PurgeRefused if a journal is lost: it may have holds and removals."""
    store, fallback = (
        settings.archive_store_directory,
        settings.archive_fallback_directory,
    )
    losses = known_end.losses(known_end.read(fallback, store), store)
    for archive, loss in losses.items():
        raise PurgeRefused(
            f"{store}/{archive}: {loss}, so nothing is removed;"
            f" {known_end.advice(fallback)}"
        )


def _purge(
    run: Purge, archives: list[str], *, is_dry: bool, is_confirmed: bool
) -> None:
    """Purge all archives; an error in one does not keep the others from it."""
    failures: list[ArchiveError] = []
    for archive in archives:
        try:
            result = run.run(archive, is_dry=is_dry, is_confirmed=is_confirmed)
        except ArchiveError as error:
            failures.append(error)
            continue
        for line in _lines(result, is_dry=is_dry):
            click.echo(safe_text(line))
    for failure in failures[1:]:
        output.report(f"{type(failure).__name__}: {failure}")
    if failures:
        raise failures[0]


def _become_owner(settings: Settings, action: str) -> str:
    """Take the user of the store's owner; return who runs this command."""
    user = access_entry.current_user()
    if os.geteuid() not in (0, _owner(settings)):
        raise NotRoot(
            "only root and the archive's user can do this: sudo postfix-archive"
            f" {action}"
        )
    privileges.become_owner(settings.archive_store_directory)
    return user.sudo_user or user.login or user.name


def _owner(settings: Settings) -> int:
    try:
        return os.stat(settings.archive_store_directory).st_uid
    except OSError:
        return 0


def _lines(result: Result, *, is_dry: bool) -> Iterator[str]:
    """Yield what a run has done in an archive; nothing if it had nothing to do."""
    verb = "would be removed" if is_dry else "removed"
    for (rule, period), count in sorted(result.counts_by_rule.items()):
        yield f"{result.archive}: {count} {verb} by {rule or 'no rule'} {period}"
    if is_dry:
        for archive_id, decision in result.due.items():
            yield f"{archive_id}  kept until {decision.until_text}"
    for archive_id, names in result.held.items():
        yield f"{archive_id}  stays: held by {', '.join(names)}"
    if result.finished:
        yield f"{result.archive}: {result.finished} earlier removals completed"


@click.group()
def retention() -> None:
    """Show and change how long mail is kept."""


@retention.command("show")
@click.argument("archive_id", metavar="[ID]", required=False)
@click.option(
    "--due", type=Date(), help="All messages whose noted period is over on DATE."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@with_settings
def show(
    settings: Settings,
    archive_id: str | None,
    due: datetime.datetime | None,
    as_json: bool,
) -> None:
    """Show by which rule, and until when, a message is kept.

    With --due: of all messages that can be purged on that day.
    """
    if (archive_id is None) == (due is None):
        raise click.UsageError("give ID, or --due DATE")
    if archive_id is not None:
        record = look_up.find_record(settings, archive_id)
        ids = {record.archive: [record.archive_id]}
    else:
        assert due is not None
        ids = {
            archive: notes.due_ids(settings, archive, due.date())
            for archive in record_reader.archives(settings.archive_store_directory)
            if index_update.has_index(settings, archive)
        }
    present_rules = rules.load(settings)
    for archive, some in ids.items():
        present = present_rules.decide(archive, some)
        for each in some:
            noted = rules.noted(look_up.find_record(settings, each, archive))
            click.echo(
                json.dumps(_to_json(archive, each, noted, present[each]))
                if as_json
                else safe_text(_line(each, noted, present[each]))
            )


def _line(archive_id: str, noted: Decision | None, present: Decision) -> str:
    if noted is None or noted == present:
        state = "" if noted else " (not noted yet)"
        return f"{archive_id}  {_text(present)}{state}"
    return (
        f"{archive_id}  noted: {_text(noted)}; by the present rules: {_text(present)}"
    )


def _text(decision: Decision) -> str:
    if decision.until is None:
        return f"permanent, by {decision.rule or 'no rule'}"
    return f"until {decision.until_text}, by {decision.rule} {decision.period}"


def _to_json(
    archive: str, archive_id: str, noted: Decision | None, present: Decision
) -> dict[str, object]:
    return {
        "archive": archive,
        "id": archive_id,
        "noted": noted.to_fields() if noted else None,
        "present": present.to_fields(),
    }


@retention.command("apply")
@click.option("--reason", required=True, metavar="TEXT", help="Why, for the journal.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_settings
def apply_(settings: Settings, reason: str, yes: bool) -> None:
    """Apply rules that became shorter to what was archived before.

    Says how many messages they are, and asks. Those that a legal hold covers are left.
    """
    if os.geteuid():
        raise NotRoot(
            "only root may shorten periods: sudo postfix-archive retention apply"
        )
    if not reason.strip():
        raise click.BadParameter("must not be empty", param_hint="--reason")
    by = _become_owner(settings, "retention apply")
    changes = []
    for archive in record_reader.archives(settings.archive_store_directory):
        change = period_change.find(settings, archive, output.report)
        changes.append(change)
        if change.held:
            click.echo(f"{archive}: {len(change.held)} held, left as they are")
        if change.shorter:
            click.echo(f"{archive}: {len(change.shorter)} records become shorter")
    if not any(each.shorter for each in changes):
        click.echo("No record becomes shorter.")
        return
    if not yes and not click.confirm("Note this in the journals?"):
        click.get_current_context().exit(output.EXIT_FAILURE)
    for change in changes:
        period_change.apply(settings, change, output.report, by=by, reason=reason)
