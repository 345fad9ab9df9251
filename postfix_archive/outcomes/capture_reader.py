"""Reads new captures and recorded outcomes from the journals, for the follower.

Used by outcomes.follower, once for each batch of log lines. What it reads, and up to
where, is saved in outcomes.follower_state: each journal line counts once. Raises
JournalFailed and StoreFailed.
"""

from __future__ import annotations

import datetime

from postfix_archive.config.settings import Settings
from postfix_archive.message import address
from postfix_archive.message.envelope import Envelope
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

MAX_CAPSULES = 10_000  # new captures at once whose names are kept in memory


class CaptureReader:
    """The journals of all archives, read on from the saved offsets."""

    def __init__(self, settings: Settings, state: FollowerState) -> None:
        """Begin; what is read is saved in state."""
        self._store_directory = settings.archive_store_directory
        self._state = state
        self.has_more = False

    def read_new(self) -> set[str]:
        """Process the new lines of all journals; return the capsules in them.

        Of more than MAX_CAPSULES only the first ones, and ``has_more`` is true: the
        memory does not grow with a backlog. All of them are saved.
        """
        capsules: set[str] = set()
        self.has_more = False
        for archive in record_reader.archives(self._store_directory):
            path = journal_reader.path_of(self._store_directory, archive)
            key = f"journal {archive}"
            start = end = int(self._state.get_value(key) or 0)
            for line in journal_reader.lines(path, start):
                capsule = self._process_line(archive, line)
                if capsule and len(capsules) < MAX_CAPSULES:
                    capsules.add(capsule)
                elif capsule:
                    self.has_more = True
                end = line.end
            if end != start:
                self._state.set_value(key, str(end))
        return capsules

    def _process_line(self, archive: str, line: journal_reader.Line) -> str:
        """Save what matters of a line; return the capsule of a capture, or "".

        Of a record that is settled only a new capture matters.
        """
        event = journal_reader.valid_event(line)
        if event is None or "id" not in event:
            return ""
        capsule = ""
        if event["event"] in journal.CAPTURE_EVENTS:
            envelope = journal_event.parse_envelope(event)
            if envelope.imported:
                return ""  # no log of this host has its outcome
            capture = _make_capture(archive, event, envelope)
            self._state.add_capture(capture)
            capsule = capture.capsule
        elif not self._state.is_open(archive, event["id"]):
            return ""
        if event["event"] == journal.OUTCOME:
            self._add_recorded_outcome(archive, event)
        self._state.add_journal_line(archive, event["id"], line.offset)
        return capsule

    def _add_recorded_outcome(self, archive: str, event: Event) -> None:
        recorded = journal_event.parse_outcome(event)
        if self._state.has_capture(archive, event["id"], recorded.capture_queue_id):
            key = outcome_key(archive, event["id"], recorded)
            self._state.add_recorded_outcome(key)


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


def _make_capture(archive: str, event: Event, envelope: Envelope) -> PendingCapture:
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
        archive_count=len(envelope.requests),
    )
