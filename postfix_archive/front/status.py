"""The command postfix-archive status: what is archived, what waits, what is amiss.

Only looks. Shouts while the gate past the archive is open.
"""

from __future__ import annotations

import json
import time
from typing import Any

import click

from postfix_archive.back import config, fallback, gap, mailq, reading, rescue
from postfix_archive.core import finding, rescuing, trace
from postfix_archive.core.errors import ArchiveError
from postfix_archive.core.observed import Waiting
from postfix_archive.core.record import shown
from postfix_archive.core.settings import Settings

WAITING = {
    "queue": "Copies waiting in Postfix's queue",
    "fallback": "Copies waiting in the fallback directory",
    "filter": "Messages waiting for the stamp filter",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Say how many messages each archive has, what waits, and if the gate is open."""
    settings = config.load(ctx.obj)
    waiting = mailq.queued(ctx.obj)
    capsules = [each for each in waiting if rescuing.is_capsule(each)]
    originals = [each for each in waiting if rescuing.is_at_filter(each)]
    told: dict[str, Any] = {
        "gap": gap.read(ctx.obj),
        "archives": [],
        "trouble": "",
        "queue": _queued(capsules),
        "filter": _queued(originals),
        "fallback": _fallback(settings),
        "held": rescue.held(ctx.obj),
    }
    try:
        told["archives"] = _archives(settings)
    except ArchiveError as error:
        told["trouble"] = str(error)
    if as_json:
        click.echo(json.dumps(told))
    else:
        _print(told, settings)
    ctx.exit(_severity(told))


def _severity(told: dict[str, Any]) -> int:
    """Return the exit code: 2 while mail is in danger, 1 while copies wait."""
    stuck = told["filter"]["age"] >= rescuing.NOTICED
    if told["gap"] or told["held"] or told["trouble"] or stuck:
        return finding.CRITICAL
    late = told["queue"]["age"] >= rescuing.NOTICED or told["queue"]["tried"]
    return finding.WARNING if late or told["fallback"]["count"] else finding.OK


def _queued(waiting: list[Waiting]) -> dict[str, Any]:
    """Return how many wait in the queue, since when (seconds), and why."""
    oldest = max(waiting, key=lambda each: each.age, default=None)
    return {
        "count": len(waiting),
        "age": oldest.age if oldest else 0,
        "since": trace.timestamp(time.time() - oldest.age) if oldest else None,
        "why": oldest.reason if oldest else None,
        "tried": any(any(each.reasons) for each in waiting),
    }


def _fallback(settings: Settings) -> dict[str, Any]:
    folder = settings.archive_fallback_directory
    found = fallback.waiting(folder)
    since = trace.timestamp(found[0][0]) if found else None
    why = fallback.why(folder) if found else None
    return {"count": len(found), "since": since, "why": why}


def shout(record: dict[str, Any]) -> str:
    """Return the line that stands first as long as the gate is open."""
    if "closed" in record:
        return (
            f"GAP: mail was UNARCHIVED from {record['opened']} to {record['closed']},"
            " and a journal does not say so yet: postfix-archive bypass off"
        )
    return (
        f"GAP: mail flows UNARCHIVED since {record['opened']}, by {record['by']}:"
        f" {record['why']}. postfix-archive bypass off closes it."
    )


def _archives(settings: Settings) -> list[dict[str, Any]]:
    store = settings.archive_store_directory
    found = []
    for each in reading.archives(store) if settings.stores else ():
        kept = list(reading.records(store, each).values())
        last = kept[-1].events[0]["time"] if kept else None
        gaps = reading.gaps(store, each)
        found.append({"archive": each, "count": len(kept), "last": last, "gaps": gaps})
    return found


def _print(told: dict[str, Any], settings: Settings) -> None:
    if told["gap"]:
        click.echo(shout(told["gap"]))
    for each in told["archives"]:
        last = f", the last at {each['last']}" if each["last"] else ""
        click.echo(f"{each['archive']}: {each['count']} messages{last}")
        for one in each["gaps"]:
            end = one.get("closed", "now")
            said = f"  gap: {one['opened']} to {end}, by {one['by']}: {one['why']}"
            click.echo(shown(said.encode("utf-8", "replace")))
    if told["trouble"]:
        click.echo(f"The store cannot be read: {told['trouble']}")
    elif not told["archives"]:
        click.echo("Nothing is archived yet.")
    if told["held"]:
        since = min(told["held"].values())
        click.echo(f"HELD before they would expire: {len(told['held'])}, since {since}")
    for name, where in WAITING.items():
        one = told[name]
        more = (
            f", since {one['since']}: {shown(one['why'].encode('utf-8', 'replace'))}"
            if one["count"]
            else ""
        )
        click.echo(f"{where}: {one['count']}{more}")
