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

from postfix_archive.back import followed
from postfix_archive.core import outcome, outcome_report
from postfix_archive.core.envelope import Envelope
from postfix_archive.core.errors import OutcomeAwaited
from postfix_archive.core.outcome import Outcome
from postfix_archive.core.results import Results
from postfix_archive.core.settings import Settings


def known(settings: Settings, sealed: Envelope, now: int) -> outcome_report.Became:
    """Return the outcomes of the recipients, empty if the waiting time is over.

    now is Unix time. Raises OutcomeAwaited while they are unknown and there is time
    left: at most half of archive_rescue_after, so that rescue never takes the copy
    first.
    """
    told = _early(settings.archive_fallback_directory, sealed.archive_id)
    found = Results()
    found.capture(sealed, counts=True)
    queue_id = sealed.queue_id.decode("ascii", "replace")
    for recipient_outcome in told:
        found.became(replace(recipient_outcome, of=queue_id))
    if found.is_settled:
        return outcome_report.became(found)
    limit = min(settings.archive_wait_for_outcome, settings.archive_rescue_after // 2)
    if sealed.arrival is None or sealed.incomplete or not sealed.recipients:
        return outcome_report.Became()
    if now - sealed.arrival < limit:
        raise OutcomeAwaited(
            f"{sealed.archive_id}: archive copy waits up to {limit} s for the outcome"
            " (archive_wait_for_outcome)"
        )
    return outcome_report.Became()


def _early(folder: str, archive_id: str) -> list[Outcome]:
    """Return the outcomes of a message that is not stored yet, [] if not all are known.

    An unreadable database counts as empty.
    """
    place = f"file:{urllib.parse.quote(f'{folder}/{followed.NAME}')}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(place, uri=True)) as base:
            query = "SELECT outcomes FROM early WHERE id = ?"
            found = base.execute(query, (archive_id,)).fetchone()
    except sqlite3.Error:
        return []
    return [outcome.from_event(each) for each in json.loads(found[0])] if found else []
