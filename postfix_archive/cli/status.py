"""The command postfix-archive status: what is archived, what waits, what is wrong.

Changes nothing, except for --write, which the timer runs. Prints the same numbers as
text, as JSON and for Prometheus; the first line of the text says that the bypass is on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import click

from postfix_archive.config import archive_cf
from postfix_archive.message import dates, stamp
from postfix_archive.message.printable import safe_text
from postfix_archive.replicate import replication_lag
from postfix_archive.search.index_lag import Lag
from postfix_archive.status import (
    collect,
    overview,
    prometheus_text,
    status_file,
    status_json,
)
from postfix_archive.status.overview import Snapshot
from postfix_archive.store.bypass_period import BypassPeriod
from postfix_archive.store.tally import Tally
from postfix_archive.system import files, privileges

METRICS_FILE_MODE = 0o644  # node_exporter runs as another user
WAITING_LABELS = {
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
    "--write",
    is_flag=True,
    help="Write it for the web page, and for archive_prometheus_file.",
)
@click.pass_context
def status(ctx: click.Context, as_json: bool, as_metrics: bool, write: bool) -> None:
    """Show what is archived, what waits and what is wrong.

    Exit codes are those of monitoring plugins: 0 OK, 1 copies wait or the last
    reconcile run found messages missing, 2 mail is at risk: on hold, stuck at the stamp
    filter, or not archived because the bypass is on.
    """
    if as_json + as_metrics + write > 1:
        raise click.UsageError("--json, --prometheus and --write exclude each other")
    settings = archive_cf.load(ctx.obj)
    path = settings.archive_prometheus_file
    has_page = status_file.is_wanted(settings)
    if write:
        collect.save_journal_ends(settings)  # also where the queue cannot be read
        if not (path or has_page):
            return
    snapshot = collect.snapshot(ctx.obj, settings)
    if write:
        if has_page:
            status_file.save(settings, snapshot)
        if path:
            _write(path, prometheus_text.text(snapshot))
        return  # no exit code: the same timer runs the rescue, which raises alarms
    if as_json:
        click.echo(json.dumps(status_json.to_json(snapshot)))
    elif as_metrics:
        click.echo(prometheus_text.text(snapshot), nl=False)
    else:
        for line in _text_lines(snapshot):
            click.echo(line)
    ctx.exit(snapshot.severity)


def _write(path: str, text: str) -> None:
    """Write the file as the owner of its directory, readable by all."""
    with privileges.as_owner(os.path.dirname(path)):
        files.replace(path, text.encode(), METRICS_FILE_MODE)


def bypass_warning(period: BypassPeriod) -> str:
    """Return the warning about a bypass that is on, or not in every journal."""
    if period.ended:
        return (
            f"BYPASS: mail was UNARCHIVED from {period.interval}; to record this in"
            " every journal run postfix-archive bypass off again"
        )
    return (
        f"BYPASS: mail is UNARCHIVED since {period.started}, by {period.started_by}:"
        f" {period.reason}; to end this run postfix-archive bypass off"
    )


def _text_lines(snapshot: Snapshot) -> Iterator[str]:
    """Yield the status as lines of text."""
    if snapshot.bypass:
        yield bypass_warning(snapshot.bypass)
    for name, tally in snapshot.tallies.items():
        yield from _archive_lines(name, tally)
        if name in snapshot.index_lags:
            yield from _index_lines(snapshot.index_lags[name])
        if name in snapshot.replication_lags:
            yield from _replication_lines(snapshot.replication_lags[name])
    for error in snapshot.damage:
        yield safe_text(f"Store error: {error}")
    if not snapshot.tallies and not snapshot.store_errors:
        yield "Nothing is archived yet."
    for place, file_system in snapshot.file_systems.items():
        free, size = _format_bytes(file_system.free), _format_bytes(file_system.size)
        yield f"Free space, {place}: {free} of {size}"
    yield from _seal_lines(snapshot)
    yield from _reconcile_lines(snapshot)
    if last := snapshot.last_verify:
        errors = f"{last.errors} ERRORS" if last.errors else "no errors"
        yield safe_text(f"Verified at {last.time}: {errors}, {last.files} files")
    if snapshot.on_hold:
        since = min(snapshot.on_hold.values())
        yield f"ON HOLD before expiry: {len(snapshot.on_hold)}, since {since}"
    for place, label in WAITING_LABELS.items():
        backlog = snapshot.backlogs[place]
        detail = (
            safe_text(f", since {backlog.since}: {backlog.reason}")
            if backlog.count
            else ""
        )
        yield f"{label}: {backlog.count}{detail}"


def _archive_lines(name: str, tally: Tally) -> Iterator[str]:
    last = f", last at {tally.last_archived}" if tally.last_archived else ""
    removed = f", {tally.removed} of them removed" if tally.removed else ""
    yield f"{name}: {tally.messages} messages{removed}{last}"
    outcomes = _format_counts({**tally.outcomes, "waiting": len(tally.waiting)})
    if outcomes:
        yield f"  recipients: {outcomes}"
    stamps = _format_counts({k: tally.stamps[k] for k in (stamp.FORGED, stamp.ALTERED)})
    if stamps:
        yield f"  stamps: {stamps}"
    for bypass in tally.bypasses.values():
        text = f"{bypass.interval}, by {bypass.started_by}: {bypass.reason}"
        yield safe_text(f"  bypass: {text}")


def _index_lines(lag: Lag) -> Iterator[str]:
    """Yield how far the index is behind, nothing while it is up to date."""
    if not lag.has_index:
        yield "  index: none; search needs it: postfix-archive index --once"
    elif lag.size and lag.seconds >= 1:
        yield f"  index: {lag.seconds:.0f} s behind, {_format_bytes(lag.size)}"


def _replication_lines(lag: replication_lag.Lag) -> Iterator[str]:
    """Yield how far the bucket is behind, nothing while it has all."""
    if lag.size:
        size = _format_bytes(lag.size)
        yield f"  object storage: {lag.seconds:.0f} s behind, {size} of the journal"
    if lag.removed:
        yield f"  object storage: {lag.removed} removed messages still locked there"


def _seal_lines(snapshot: Snapshot) -> Iterator[str]:
    """Yield when the store was last sealed, where anybody witnesses seals."""
    if snapshot.seal_state is None:
        return
    since = snapshot.seal_state.unsealed_since
    unsealed = f"; not sealed: what came since {since}" if since else ""
    yield f"Last seal: {snapshot.seal_state.sealed_at or 'none'}{unsealed}"


def _format_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _reconcile_lines(snapshot: Snapshot) -> Iterator[str]:
    run = snapshot.reconcile_run
    if run is None:
        return
    accepted, missing = run.counts[overview.ACCEPTED], snapshot.missing
    missing_word = "MISSING" if missing else "missing"
    text = f"{missing} {missing_word} of {accepted} accepted"
    if count := run.counts[overview.ACCEPTED_MISSING]:
        text += f", {count} missing ones accepted,"
    period = f"from {run.since} to {run.until}"
    yield safe_text(f"Reconciled at {dates.format_rfc3339(run.time)}: {text} {period}")


def _format_bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
