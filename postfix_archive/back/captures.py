"""Reads new journal lines: captures, and outcomes that are recorded already.

Used by outcomes.follower. Each line is processed once, and its offset saved for the
outcome report of its record.
"""

from __future__ import annotations

import datetime
import json
from typing import Any

from postfix_archive.back import followed, journal, reading
from postfix_archive.back.followed import Capture, Followed
from postfix_archive.core import address, outcome, record
from postfix_archive.core.outcome import Outcome
from postfix_archive.core.settings import Settings


class Captures:
    """The journals of all archives, read on from the saved offsets."""

    def __init__(self, settings: Settings, state: Followed) -> None:
        """Begin; what is read is saved in state."""
        self._folder = settings.archive_store_directory
        self._state = state

    def read(self) -> set[str]:
        """Process the new lines of all journals; return the capsules in them."""
        new: set[str] = set()
        for archive in reading.archives(self._folder):
            path = f"{self._folder}/{archive}/{journal.NAME}"
            word = f"journal {archive}"
            before = end = int(self._state.word(word) or 0)
            for raw, at in reading.lines_from(path, before):
                new |= self._take(archive, raw, at)
                end = at + len(raw)
            if end != before:
                self._state.note(word, str(end))
        return new

    def _take(self, archive: str, raw: bytes, at: int) -> set[str]:
        try:
            event = json.loads(raw)
        except (ValueError, RecursionError):
            return set()  # torn or damaged: postfix-archive verify reports it
        if not record.is_event(event):
            return set()
        if "id" in event:
            self._state.note_line(archive, event["id"], at)
        if event["event"] in record.CAPTURES:
            found = _capture(archive, event)
            self._state.add(found)
            return {found.capsule}
        if event["event"] == outcome.EVENT and outcome.is_event(event):
            self._state.say(said(archive, event["id"], outcome.from_event(event)))
        return set()


def said(archive: str, record_id: str, one: Outcome) -> followed.Said:
    """Return the key that identifies an outcome among all in the journals."""
    waits = one.kind == outcome.WAITING
    words = (one.of, one.recipient, one.original, one.parent)
    return (archive, record_id, *words, waits)


def _capture(archive: str, event: dict[str, Any]) -> Capture:
    sealed = record.sealed(event)
    archived = datetime.datetime.fromisoformat(event["time"]).timestamp()
    return Capture(
        archive=archive,
        capsule=str(event.get("capsule", event["seq"])),
        record_id=event["id"],
        archive_id=sealed.archive_id,
        queue_id=sealed.queue_id.decode("ascii", "replace"),
        at=float(sealed.arrival or archived),
        recipients=tuple(
            (
                address.as_text(recipient.final),
                address.as_text(recipient.original if recipient.expanded else b""),
            )
            for recipient in sealed.recipients
        ),
    )
