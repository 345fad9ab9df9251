"""The command postfix-archive status: what is archived, what waits, what is amiss.

Only looks. Shouts while the gate past the archive is open.
"""

from __future__ import annotations

import json
from typing import Any

import click

from postfix_archive.back import config, gap, mailq, reading
from postfix_archive.core.settings import Settings

FAILED = 2  # as monitoring plugins have it: critical


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Say how many messages each archive has, what waits, and if the gate is open."""
    settings = config.load(ctx.obj)
    told = {
        "gap": gap.read(ctx.obj),
        "archives": _archives(settings),
        "waiting": len(mailq.waiting(ctx.obj)),
    }
    if as_json:
        click.echo(json.dumps(told))
    else:
        _print(told)
    ctx.exit(FAILED if told["gap"] else 0)


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


def _print(told: dict[str, Any]) -> None:
    if told["gap"]:
        click.echo(shout(told["gap"]))
    for each in told["archives"]:
        last = f", the last at {each['last']}" if each["last"] else ""
        click.echo(f"{each['archive']}: {each['count']} messages{last}")
        for one in each["gaps"]:
            end = one.get("closed", "now")
            click.echo(f"  gap: {one['opened']} to {end}, by {one['by']}: {one['why']}")
    if not told["archives"]:
        click.echo("Nothing is archived yet.")
    click.echo(f"Waiting for the archive in the queue: {told['waiting']}")
