"""The command postfix-archive status: what is archived, what waits, what is wrong.

Changes nothing, except for --write, which the timer runs. Prints the same numbers as
text, as JSON and for Prometheus; the first line of the text says that the bypass is on.
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

READABLE = 0o644  # node_exporter runs as another user
WAITING = {
    "queue": "Copies waiting in Postfix's queue",
    "fallback": "Copies waiting in the fallback directory",
    "filter": "Messages waiting for the stamp filter",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--prometheus", "as_metrics", is_flag=True, help="Print Prometheus metrics."
)
@click.option(
    "--write", is_flag=True, help="Write metrics to archive_prometheus_file, if set."
)
@click.pass_context
def status(ctx: click.Context, as_json: bool, as_metrics: bool, write: bool) -> None:
    """Show archived and waiting messages, and alarms.

    Exit codes are those of monitoring plugins: 0 OK, 1 copies wait or the last
    reconcile run found messages missing, 2 mail is at risk: on hold, stuck at the stamp
    filter, or not archived because the bypass is on.
    """
    if as_json + as_metrics + write > 1:
        raise click.UsageError("--json, --prometheus and --write exclude each other")
    settings = config.load(ctx.obj)
    if write and not settings.archive_prometheus_file:
        return
    found = measuring.stands(ctx.obj, settings)
    if write:
        _write(settings.archive_prometheus_file, metrics.text(found))
        return  # no exit code: the same timer runs the rescue, which raises alarms
    if as_json:
        click.echo(json.dumps(_facts(found)))
    elif as_metrics:
        click.echo(metrics.text(found), nl=False)
    else:
        for line in _lines(found):
            click.echo(line)
    ctx.exit(found.severity)


def _write(path: str, text: str) -> None:
    """Write the file as the owner of its directory, readable by all."""
    with acting.as_owner(os.path.dirname(path)):
        files.replace(path, text.encode(), READABLE)


def _facts(found: Standing) -> dict[str, Any]:
    return {
        "gap": found.bypass,
        "archives": [_archive(name, each) for name, each in found.tallies.items()],
        "trouble": "; ".join(found.damage),
        **{name: dataclasses.asdict(each) for name, each in found.backlogs.items()},
        "held": found.on_hold,
        "space": {k: dataclasses.asdict(v) for k, v in found.file_systems.items()},
        "reconciled": _reconciled(found),
        "rescued": _time(found.rescue_time),
        "followed": _time(found.followed_until),
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
    run = found.reconcile_run
    if run is None:
        return None
    when = {"time": _time(run.time), "since": run.since, "until": run.until}
    return {**when, **run.counts}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else trace.timestamp(seconds)


def shout(record: dict[str, Any]) -> str:
    """Return the warning about a bypass that is on, or not in every journal."""
    if "closed" in record:
        return (
            f"BYPASS: mail was UNARCHIVED from {record['opened']} to"
            f" {record['closed']}; to record this in every journal run postfix-archive"
            " bypass off again"
        )
    return (
        f"BYPASS: mail is UNARCHIVED since {record['opened']}, by {record['by']}:"
        f" {record['why']}; to end this run postfix-archive bypass off"
    )


def _lines(found: Standing) -> Iterator[str]:
    """Yield the status as lines of text."""
    if found.bypass:
        yield shout(dict(found.bypass))
    for name, each in found.tallies.items():
        yield from _of_archive(name, each)
    for error in found.damage:
        yield _plain(f"Store error: {error}")
    if not found.tallies and not found.store_errors:
        yield "Nothing is archived yet."
    for place, space in found.file_systems.items():
        free, size = _bytes(space.free), _bytes(space.size)
        yield f"Free space, {place}: {free} of {size}"
    yield from _last_run(found)
    if found.on_hold:
        since = min(found.on_hold.values())
        yield f"ON HOLD before expiry: {len(found.on_hold)}, since {since}"
    for place, where in WAITING.items():
        one = found.backlogs[place]
        more = _plain(f", since {one.since}: {one.why}") if one.count else ""
        yield f"{where}: {one.count}{more}"


def _of_archive(name: str, each: Tally) -> Iterator[str]:
    last = f", last at {each.last_archived}" if each.last_archived else ""
    yield f"{name}: {each.messages} messages{last}"
    outcomes = _counted({**each.outcomes, "waiting": len(each.waiting)})
    if outcomes:
        yield f"  recipients: {outcomes}"
    stamps = _counted({k: each.stamps[k] for k in (stamp.FORGED, stamp.ALTERED)})
    if stamps:
        yield f"  stamps: {stamps}"
    for one in each.gaps.values():
        period = f"{one['opened']} to {one.get('closed', 'now')}"
        yield _plain(f"  bypass: {period}, by {one['by']}: {one['why']}")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _last_run(found: Standing) -> Iterator[str]:
    run = found.reconcile_run
    if run is None:
        return
    accepted, missing = run.counts[standing.ACCEPTED], found.missing
    word = "MISSING" if missing else "missing"
    told = f"{missing} {word} of {accepted} accepted"
    period = f"from {run.since} to {run.until}"
    yield _plain(f"Reconciled at {_time(run.time)}: {told} {period}")


def _plain(text: str) -> str:
    """Return text from a journal or the queue, safe to print on a terminal."""
    return shown(text.encode("utf-8", "replace"))


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
