"""Outcomes that are known before the archive copy is stored, for the copy itself.

Used by archive_transport.transport, only if archive_wait_for_outcome is set: it costs
imports. outcomes.follower saves the outcomes; if none runs, the archive copy waits for
the configured time and no longer.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import urllib.parse
from dataclasses import replace

from postfix_archive.config.settings import Settings
from postfix_archive.errors import OutcomePending
from postfix_archive.message.envelope import Envelope
from postfix_archive.outcomes import follower_state, outcome_report
from postfix_archive.store import journal_event
from postfix_archive.store.outcome import Outcome
from postfix_archive.store.outcome_summary import OutcomeSummary


def find_outcomes(
    settings: Settings, envelope: Envelope, now: int
) -> outcome_report.KnownOutcomes:
    """Return the outcomes of the recipients, empty if the waiting time is over.

    now is Unix time. Raises OutcomePending while they are unknown and there is time
    left: at most half of archive_rescue_after, so that rescue never takes the copy
    first.
    """
    outcomes = _early_outcomes(settings.archive_fallback_directory, envelope.archive_id)
    results = OutcomeSummary()
    results.add_capture(envelope, is_counted=True)
    queue_id = envelope.queue_id.decode("ascii", "replace")
    for recipient_outcome in outcomes:
        results.add(replace(recipient_outcome, capture_queue_id=queue_id))
    if results.is_settled:
        return outcome_report.known_outcomes(results)
    limit = min(settings.archive_wait_for_outcome, settings.archive_rescue_after // 2)
    if envelope.arrival is None or envelope.is_incomplete or not envelope.recipients:
        return outcome_report.KnownOutcomes()
    if now - envelope.arrival < limit:
        raise OutcomePending(
            f"{envelope.archive_id}: archive copy waits up to {limit} s for the outcome"
            " (archive_wait_for_outcome)"
        )
    return outcome_report.KnownOutcomes()


def _early_outcomes(directory: str, archive_id: str) -> list[Outcome]:
    """Return the outcomes of a message that is not stored yet, [] if not all are known.

    An unreadable database counts as empty.
    """
    path = urllib.parse.quote(f"{directory}/{follower_state.DATABASE_NAME}")
    uri = f"file:{path}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            query = "SELECT outcomes FROM early WHERE id = ?"
            row = database.execute(query, (archive_id,)).fetchone()
    except sqlite3.Error:
        return []
    return (
        [journal_event.parse_outcome(each) for each in json.loads(row[0])]
        if row
        else []
    )
