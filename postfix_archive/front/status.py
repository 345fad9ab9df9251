"""The command postfix-archive status: what is archived, what waits, what is amiss.

Only looks. Shouts while the gate past the archive is open. The same numbers for people,
for programs, and for Prometheus.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

import click

from postfix_archive.back import acting, config, files, measuring
from postfix_archive.core import metrics, stamp, standing, trace
from postfix_archive.core.record import shown
from postfix_archive.core.standing import Standing
from postfix_archive.core.tally import Tally

READABLE = 0o644  # node_exporter has a user of its own
WAITING = {
    "queue": "Copies waiting in Postfix's queue",
    "fallback": "Copies waiting in the fallback directory",
    "filter": "Messages waiting for the stamp filter",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--prometheus", "as_metrics", is_flag=True, help="Prometheus' text format."
)
@click.option(
    "--write", is_flag=True, help="That, into archive_prometheus_file, if there is one."
)
@click.pass_context
def status(ctx: click.Context, as_json: bool, as_metrics: bool, write: bool) -> None:
    """Say how many messages each archive has, what waits, and if the gate is open."""
    if as_json + as_metrics + write > 1:
        raise click.UsageError("--json, --prometheus and --write exclude each other")
    settings = config.load(ctx.obj)
    if write and not settings.archive_prometheus_file:
        return
    found = measuring.stands(ctx.obj, settings)
    if write:
        _write(settings.archive_prometheus_file, metrics.text(found))
        return  # rescue and return, which the same timer runs, sound the alarm
    if as_json:
        click.echo(json.dumps(_facts(found)))
    elif as_metrics:
        click.echo(metrics.text(found), nl=False)
    else:
        for line in _lines(found):
            click.echo(line)
    ctx.exit(found.severity)


def _write(path: str, text: str) -> None:
    """Write the file as the owner of its folder, and readable for all."""
    with acting.as_owner(os.path.dirname(path)):
        files.replace(path, text.encode(), READABLE)


def _facts(found: Standing) -> dict[str, Any]:
    return {
        "gap": found.gap,
        "archives": [_archive(name, each) for name, each in found.tallies.items()],
        "trouble": "; ".join(found.damage),
        **{name: dataclasses.asdict(each) for name, each in found.waits.items()},
        "held": found.held,
        "space": {k: dataclasses.asdict(each) for k, each in found.spaces.items()},
        "reconciled": _reconciled(found),
        "rescued": _time(found.rescued),
        "followed": _time(found.followed),
    }


def _archive(name: str, each: Tally) -> dict[str, Any]:
    return {
        "archive": name,
        "count": each.messages,
        "last": each.last_archived or None,
        "gaps": list(each.gaps.values()),
        "supplements": each.supplements,
        "mailed": each.mailed,
        "original_bytes": each.received_bytes,
        "store_bytes": each.copy_bytes + each.offset,
        "stamps": each.stamps,
        "outcomes": each.outcomes,
        "waiting_recipients": len(each.waiting),
        "damaged_lines": each.damaged,
    }


def _reconciled(found: Standing) -> dict[str, Any] | None:
    run = found.reconciled
    if run is None:
        return None
    when = {"time": _time(run.time), "since": run.since, "until": run.until}
    return {**when, **run.counts}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else trace.timestamp(seconds)


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


def _lines(found: Standing) -> Iterator[str]:
    """What people read, line by line."""
    if found.gap:
        yield shout(dict(found.gap))
    for name, each in found.tallies.items():
        yield from _of_archive(name, each)
    for each_trouble in found.damage:
        yield _plain(f"The store cannot be read: {each_trouble}")
    if not found.tallies and not found.trouble:
        yield "Nothing is archived yet."
    for place, space in found.spaces.items():
        yield f"Free for the {place}: {_bytes(space.free)} of {_bytes(space.size)}"
    yield from _last_run(found)
    if found.held:
        since = min(found.held.values())
        yield f"HELD before they would expire: {len(found.held)}, since {since}"
    for place, where in WAITING.items():
        one = found.waits[place]
        more = _plain(f", since {one.since}: {one.why}") if one.count else ""
        yield f"{where}: {one.count}{more}"


def _of_archive(name: str, each: Tally) -> Iterator[str]:
    last = f", the last at {each.last_archived}" if each.last_archived else ""
    yield f"{name}: {each.messages} messages{last}"
    became = {**each.outcomes, "waiting": len(each.waiting)}
    said = ", ".join(f"{count} {kind}" for kind, count in became.items() if count)
    if said:
        yield f"  recipients: {said}"
    stamps = {kind: each.stamps[kind] for kind in (stamp.FORGED, stamp.ALTERED)}
    said = ", ".join(f"{count} {kind}" for kind, count in stamps.items() if count)
    if said:
        yield f"  stamps: {said}"
    for one in each.gaps.values():
        end = one.get("closed", "now")
        yield _plain(f"  gap: {one['opened']} to {end}, by {one['by']}: {one['why']}")


def _last_run(found: Standing) -> Iterator[str]:
    run = found.reconciled
    if run is None:
        return
    accepted, missing = run.counts[standing.ACCEPTED], found.missing
    word = "MISSING" if missing else "missing"
    told = f"{missing} {word} of {accepted} accepted from {run.since} to {run.until}"
    yield _plain(f"Reconciled at {_time(run.time)}: {told}")


def _plain(text: str) -> str:
    """Text of a journal or of the queue, safe on a terminal."""
    return shown(text.encode("utf-8", "replace"))


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
