"""What is known of a message before its copy is kept: so that the copy itself tells it.

Used by front/archive_transport where archive_wait_for_outcome is set, and by nobody
else: it costs imports. The follower of the log notes it; where none runs, the copy
waits for the time that was set, and no longer.
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
    """Return what became of the recipients; nothing where the time is over.

    now is Unix time. Raises OutcomeAwaited while it is not known and there is time.
    Never waits so long that a rescue would come: half of archive_rescue_after at most.
    """
    told = _early(settings.archive_fallback_directory, sealed.archive_id)
    found = Results()
    found.capture(sealed, counts=True)
    for each in told:
        found.became(replace(each, of=sealed.queue_id.decode("ascii", "replace")))
    if found.is_settled:
        return outcome_report.became(found)
    limit = min(settings.archive_wait_for_outcome, settings.archive_rescue_after // 2)
    if sealed.arrival is None or sealed.incomplete or not sealed.recipients:
        return outcome_report.Became()
    if now - sealed.arrival < limit:
        raise OutcomeAwaited(
            f"{sealed.archive_id} is kept back until its outcome is known, for"
            f" {limit} s at most (archive_wait_for_outcome)"
        )
    return outcome_report.Became()


def _early(folder: str, archive_id: str) -> list[Outcome]:
    """Return what is known of a message whose copy is not kept yet; [] if not all is.

    A state that cannot be read tells nothing.
    """
    place = f"file:{urllib.parse.quote(f'{folder}/{followed.NAME}')}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(place, uri=True)) as base:
            query = "SELECT outcomes FROM early WHERE id = ?"
            found = base.execute(query, (archive_id,)).fetchone()
    except sqlite3.Error:
        return []
    return [outcome.from_event(each) for each in json.loads(found[0])] if found else []
