"""Follows Postfix's log and tells the journals what became of each recipient.

Used by front/outcomes. A piece of log at a time: read it, judge, append to the
journals, note how far that was. Whoever dies in between reads the same piece again, and
what the journals have by then is not said twice: so each outcome stands there once.
"""

from __future__ import annotations

import json
import time

from postfix_archive.back import acting, followed, journal, logfile, reading, store
from postfix_archive.back.due import Due
from postfix_archive.back.followed import Capture, Followed
from postfix_archive.core import logline, outcome, record, trace
from postfix_archive.core.keyring import Keyring
from postfix_archive.core.outcome import Outcome
from postfix_archive.core.passage import Passage
from postfix_archive.core.queuefile import QueueFile
from postfix_archive.core.resolving import MOMENT, Resolver
from postfix_archive.core.settings import Settings

PIECE = 5000  # lines of log
PLACE, FILTERS = "place", "filters"
TOO_OLD = 30 * 86400  # seconds: no message waits longer, and no log is kept
NEAR = 120.0  # seconds between a queue file's first line and its arrival
KINDS = ("archived", "supplement")


class Follower:
    """Reads on where the last one ended."""

    def __init__(
        self,
        settings: Settings,
        keys: Keyring | None,
        log: str,
        filters: tuple[str, ...],
    ) -> None:
        """Begin; log is the file that is written to, "" for systemd's journal.

        Without the site keys outcome reports stay due.
        """
        self._settings = settings
        self._folder = settings.archive_fallback_directory
        self._touched_at: dict[str, float] = {}  # captures that more may be said of
        self._new: set[str] = set()  # capsules that no judgement has seen yet
        self._is_first = True
        with acting.as_owner(self._folder):
            self._state = Followed(self._folder)
            self._passage = Passage(self._all_filters(filters))
            self._queue = self._passage.queue
            self._state.load(self._queue)
        self._due = Due(settings, keys, self._state)
        self._reader = logfile.Reader(log, logfile.place(self._state.word(PLACE)))

    def _all_filters(self, now: tuple[str, ...]) -> tuple[str, ...]:
        """Return the filters there are, and those there were: mail may be with them."""
        before = json.loads(self._state.word(FILTERS) or "[]")
        found = sorted({*before, *now})
        self._state.note(FILTERS, json.dumps(found))
        return tuple(found)

    @property
    def lost(self) -> str:
        """Say that a part of the log was not there any more, if so."""
        return self._reader.lost

    @property
    def not_understood(self) -> int:
        """The number of lines that look like delivery attempts and cannot be read."""
        return self._passage.not_understood

    @property
    def complaints(self) -> list[str]:
        """Say why outcome reports wait, and which cannot be made."""
        return [*([self._due.waits] if self._due.waits else []), *self._due.damaged]

    def step(self) -> int:
        """Take in one piece of log; return its number of lines.

        What it means is in the journals, durably, on return, and the outcome reports
        of what it settles are kept. Raises LogUnreadable, JournalFailed, StoreFailed.
        """
        piece = list(self._reader.new(PIECE))
        for text, at in piece:
            line = logline.read(text)
            if line is not None:
                self._passage.take(line, at)
        with acting.as_owner(self._folder):
            self._new |= self._read_journals()
            if piece or self._new or self._is_first:
                self._judge()
                self._state.note(PLACE, self._reader.place.written())
                self._state.save(self._queue)
                self._new |= self._read_journals()  # what was appended just now
                self._state.commit()
            if self._state.due():
                self._due.keep(int(time.time()))
                self._state.commit()
        if len(piece) < PIECE:
            acting.note(self._folder, followed.LOOKED)
        return len(piece)

    def close(self) -> None:
        """Let go of the state."""
        self._state.close()

    # --- what the archive has ---------------------------------------------------------

    def _read_journals(self) -> set[str]:
        """Take in what the journals have new; return the capsules they tell of."""
        new: set[str] = set()
        folder = self._settings.archive_store_directory
        for archive in reading.archives(folder):
            path = f"{folder}/{archive}/{journal.NAME}"
            word = f"journal {archive}"
            before = int(self._state.word(word) or 0)
            end = before
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
            return set()  # torn, or damaged: for verify
        if not record.is_event(event):
            return set()
        if "id" in event:
            self._state.note_line(archive, event["id"], at)
        if event["event"] in KINDS:
            capture = followed.capture(archive, event)
            self._state.add(capture)
            return {capture.capsule}
        if event["event"] == outcome.EVENT and outcome.is_event(event):
            said = outcome.from_event(event)
            self._state.say(_said(archive, event["id"], said))
        return set()

    # --- what that means --------------------------------------------------------------

    def _judge(self) -> None:
        """Tell the journals what is new of every capture that may be affected."""
        touched = self._touched()
        wanted: set[str] = set()
        told: dict[followed.Said, Outcome] = {}
        settled: list[tuple[Capture, QueueFile | None]] = []
        for capture in self._state.captures():
            file = self._file_of(capture)
            if file is not None:
                wanted |= self._passage.reached(file)
                if (
                    self._is_first
                    or file.key in touched
                    or capture.capsule in self._new
                ):
                    self._touched_at[capture.capsule] = self._queue.now
            if file is None or capture.capsule in self._touched_at:
                if self._is_settled(capture, file, told):
                    settled.append((capture, file))
        self._append(told)
        if self._settings.archive_wait_for_outcome:
            self._tell_early(touched)
        for capture, file in settled:
            self._settle(capture, file)
        self._new.clear()
        since = self._queue.now - MOMENT
        kept = {name: at for name, at in self._touched_at.items() if at >= since}
        self._touched_at = kept
        self._is_first = False
        wanted |= self._uncaptured()
        self._queue.forget(wanted)

    def _is_settled(
        self,
        capture: Capture,
        file: QueueFile | None,
        told: dict[followed.Said, Outcome],
    ) -> bool:
        """Add what is new of a capture to told; tell whether all of it is settled."""
        settled = True
        record_key = (capture.archive, capture.record_id, capture.queue_id)
        for recipient, original in capture.recipients:
            if self._state.is_said((*record_key, recipient, original, "", False)):
                continue
            found = self._outcomes(capture, file, recipient, original)
            for each in found:
                said = _said(capture.archive, capture.record_id, each)
                if not self._is_said(said, each):
                    told[said] = each
            settled &= bool(found) and found[0].is_settled
        return settled or time.time() - capture.at > TOO_OLD

    def _settle(self, capture: Capture, file: QueueFile | None) -> None:
        self._state.settle(capture)
        if file is not None:
            file.is_told = True
            self._queue.touch(file)

    def _outcomes(
        self, capture: Capture, file: QueueFile | None, recipient: str, original: str
    ) -> list[Outcome]:
        if file is None:
            return []
        resolver = Resolver(self._passage, file, of=capture.queue_id)
        return resolver.outcomes(recipient, original)

    def _is_said(self, said: followed.Said, one: Outcome) -> bool:
        """Tell whether the journal has it; of what only passes, nothing is said."""
        if one.kind == outcome.WAITING and not one.is_worth_telling:
            return True
        return self._state.is_said(said)

    def _append(self, told: dict[followed.Said, Outcome]) -> None:
        """Tell the journals, each with one fsync."""
        now = trace.timestamp(time.time())
        for archive in {said[0] for said in told}:
            mine = [
                (said[1], each) for said, each in told.items() if said[0] == archive
            ]
            place = store.Archive(self._settings.archive_store_directory, archive)
            place.outcomes_of(mine, now)
        for said in told:
            self._state.say(said)

    def _tell_early(self, touched: set[str]) -> None:
        """Note what became of messages whose copies wait for just that."""
        for file in self._queue.by_key.values():
            if file.archive_id and (self._is_first or file.key in touched):
                told = Resolver(self._passage, file, of=file.queue_id).all()
                if told:
                    self._state.tell_early(file.archive_id, file.begun, told)
        self._state.forget_early(self._queue.now - TOO_OLD)

    # --- which queue files are whose --------------------------------------------------

    def _file_of(self, capture: Capture) -> QueueFile | None:
        found = self._queue.captured_as(capture.archive_id)
        if found is not None:
            return found
        named = self._queue.current(capture.queue_id)
        if named is not None and abs(named.begun - capture.at) < NEAR:
            return named
        return None

    def _touched(self) -> set[str]:
        """Return the keys of the changed queue files and of all they come from."""
        found: set[str] = set()
        left = list(self._queue.named(list(self._queue.changed)))
        while left:
            file = left.pop()
            if file.key in found:
                continue
            found.add(file.key)
            left += self._queue.named([file.parent])
            left += self._queue.alike(file)
        return found

    def _uncaptured(self) -> set[str]:
        """Return what belongs to captures that no journal has told of yet."""
        before = self._queue.now - TOO_OLD
        found: set[str] = set()
        for file in self._queue.by_key.values():
            if file.archive_id and file.begun > before and not file.is_told:
                found |= self._passage.reached(file)
        return found


def _said(archive: str, record_id: str, one: Outcome) -> followed.Said:
    waits = one.kind == outcome.WAITING
    words = (one.of, one.recipient, one.original, one.parent)
    return (archive, record_id, *words, waits)
