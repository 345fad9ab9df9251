"""Reads new journal lines: captures, and outcomes that are recorded already.

Used by outcomes.follower. Each line is processed once, and its offset saved for the
outcome report of its record.
"""

from __future__ import annotations

import datetime
import json
from typing import Any

from postfix_archive.back import followed, journal, reading
from postfix_archive.back.followed import FollowerState, PendingCapture
from postfix_archive.core import address, outcome, record
from postfix_archive.core.outcome import Outcome
from postfix_archive.core.settings import Settings


class CaptureReader:
    """The journals of all archives, read on from the saved offsets."""

    def __init__(self, settings: Settings, state: FollowerState) -> None:
        """Begin; what is read is saved in state."""
        self._store_directory = settings.archive_store_directory
        self._state = state

    def read_new(self) -> set[str]:
        """Process the new lines of all journals; return the capsules in them."""
        capsules: set[str] = set()
        for archive in reading.archives(self._store_directory):
            path = f"{self._store_directory}/{archive}/{journal.FILE_NAME}"
            key = f"journal {archive}"
            start = end = int(self._state.get_value(key) or 0)
            for raw_line, offset in reading.lines_from(path, start):
                capsules |= self._process_line(archive, raw_line, offset)
                end = offset + len(raw_line)
            if end != start:
                self._state.set_value(key, str(end))
        return capsules

    def _process_line(self, archive: str, raw_line: bytes, offset: int) -> set[str]:
        try:
            event = json.loads(raw_line)
        except (ValueError, RecursionError):
            return set()  # torn or damaged: postfix-archive verify reports it
        if not record.is_valid_event(event):
            return set()
        if "id" in event:
            self._state.add_journal_line(archive, event["id"], offset)
        if event["event"] in record.CAPTURE_EVENTS:
            capture = _parse_capture(archive, event)
            self._state.add_capture(capture)
            return {capture.capsule}
        if event["event"] == outcome.EVENT and outcome.is_event(event):
            self._state.add_recorded_outcome(
                outcome_key(archive, event["id"], outcome.from_event(event))
            )
        return set()


def outcome_key(
    archive: str, record_id: str, recipient_outcome: Outcome
) -> followed.OutcomeKey:
    """Return the key that identifies an outcome among all in the journals."""
    is_waiting = recipient_outcome.kind == outcome.WAITING
    parts = (
        recipient_outcome.capture_queue_id,
        recipient_outcome.recipient,
        recipient_outcome.original,
        recipient_outcome.parent,
    )
    return (archive, record_id, *parts, is_waiting)


def _parse_capture(archive: str, event: dict[str, Any]) -> PendingCapture:
    envelope = record.parse_envelope(event)
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
