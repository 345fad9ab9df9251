"""Reads new captures and recorded outcomes from the journals, for the follower.

Used by outcomes.follower, once for each batch of log lines. What it reads, and up to
where, is saved in outcomes.follower_state: each journal line counts once. Raises
JournalFailed and StoreFailed.
"""

from __future__ import annotations

import datetime

from postfix_archive.config.settings import Settings
from postfix_archive.message import address
from postfix_archive.outcomes import follower_state
from postfix_archive.outcomes.follower_state import FollowerState, PendingCapture
from postfix_archive.store import (
    journal,
    journal_event,
    journal_reader,
    outcome,
    record_reader,
)
from postfix_archive.store.journal_event import Event
from postfix_archive.store.outcome import Outcome


class CaptureReader:
    """The journals of all archives, read on from the saved offsets."""

    def __init__(self, settings: Settings, state: FollowerState) -> None:
        """Begin; what is read is saved in state."""
        self._store_directory = settings.archive_store_directory
        self._state = state

    def read_new(self) -> set[str]:
        """Process the new lines of all journals; return the capsules in them."""
        capsules: set[str] = set()
        for archive in record_reader.archives(self._store_directory):
            path = journal_reader.path_of(self._store_directory, archive)
            key = f"journal {archive}"
            start = end = int(self._state.get_value(key) or 0)
            for line in journal_reader.lines(path, start):
                capsules |= self._process_line(archive, line)
                end = line.end
            if end != start:
                self._state.set_value(key, str(end))
        return capsules

    def _process_line(self, archive: str, line: journal_reader.Line) -> set[str]:
        event = journal_reader.valid_event(line)
        if event is None:
            return set()
        if "id" in event:
            self._state.add_journal_line(archive, event["id"], line.offset)
        if event["event"] in journal.CAPTURE_EVENTS:
            capture = _parse_capture(archive, event)
            self._state.add_capture(capture)
            return {capture.capsule}
        if event["event"] == journal.OUTCOME:
            recorded = journal_event.parse_outcome(event)
            key = outcome_key(archive, event["id"], recorded)
            self._state.add_recorded_outcome(key)
        return set()


def outcome_key(
    archive: str, record_id: str, recipient_outcome: Outcome
) -> follower_state.OutcomeKey:
    """Return the key that identifies an outcome among all in the journals."""
    is_waiting = recipient_outcome.kind == outcome.WAITING
    parts = (
        recipient_outcome.capture_queue_id,
        recipient_outcome.recipient,
        recipient_outcome.original,
        recipient_outcome.parent,
    )
    return (archive, record_id, *parts, is_waiting)


def _parse_capture(archive: str, event: Event) -> PendingCapture:
    envelope = journal_event.parse_envelope(event)
    archived_at = datetime.datetime.fromisoformat(event["time"]).timestamp()
    return PendingCapture(
        archive=archive,
        capsule=str(event.get("capsule", event["seq"])),
        record_id=event["id"],
        archive_id=envelope.archive_id,
        queue_id=envelope.queue_id.decode("ascii", "replace"),
        at=float(envelope.arrival or archived_at),
        recipients=tuple(
            (
                address.as_text(recipient.final),
                address.as_text(recipient.original if recipient.is_mapped else b""),
            )
            for recipient in envelope.recipients
        ),
    )
