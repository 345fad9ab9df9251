"""The state of an instance as JSON: what ``status --json`` prints. Pure.

Used by cli/status and status_file.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from postfix_archive.message import dates
from postfix_archive.status.overview import Snapshot
from postfix_archive.store.tally import Tally


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot as a JSON object; docs/operating.md explains it."""
    return {
        "bypass": snapshot.bypass.to_json() if snapshot.bypass else None,
        "archives": [
            _archive_to_json(name, each) for name, each in snapshot.tallies.items()
        ],
        "errors": snapshot.damage,
        **{name: dataclasses.asdict(each) for name, each in snapshot.backlogs.items()},
        "on_hold": snapshot.on_hold,
        "file_systems": {
            name: dataclasses.asdict(each)
            for name, each in snapshot.file_systems.items()
        },
        "last_reconcile": _reconcile_run_to_json(snapshot),
        "last_verify": snapshot.last_verify and snapshot.last_verify._asdict(),
        "last_rescue": _timestamp(snapshot.rescue_time),
        "outcomes_followed": _timestamp(snapshot.followed_until),
        "seals": snapshot.seal_state._asdict() if snapshot.seal_state else None,
        "index": {
            name: {"behind_bytes": each.size, "behind_seconds": round(each.seconds)}
            for name, each in snapshot.index_lags.items()
            if each.has_index
        },
        "object_store": {
            name: {
                "behind_bytes": each.size,
                "behind_seconds": round(each.seconds),
                "undeleted_records": each.removed,
            }
            for name, each in snapshot.replication_lags.items()
        },
    }


def _archive_to_json(name: str, tally: Tally) -> dict[str, Any]:
    return {
        "archive": name,
        "messages": tally.messages,
        "removed": tally.removed,
        "last_archived": tally.last_archived or None,
        "bypasses": [each.to_json() for each in tally.bypasses.values()],
        "supplements": tally.supplements,
        "mailed": tally.mailed,
        "original_bytes": tally.received_bytes,
        "store_bytes": tally.copy_bytes + tally.offset,
        "stamps": tally.stamps,
        "outcomes": tally.outcomes,
        "waiting_recipients": len(tally.waiting),
        "damaged_lines": tally.damaged,
    }


def _reconcile_run_to_json(snapshot: Snapshot) -> dict[str, Any] | None:
    run = snapshot.reconcile_run
    if run is None:
        return None
    times = {"time": _timestamp(run.time), "since": run.since, "until": run.until}
    return {**times, **run.counts}


def _timestamp(seconds: float | None) -> str | None:
    return None if seconds is None else dates.format_rfc3339(seconds)
