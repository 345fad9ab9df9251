"""Follows Postfix's log and appends the outcome of each recipient to the journals.

Used by cli.outcomes. One batch of log lines at a time: read it, resolve, append to the
journals, save the position. A process that is killed in between reads the same batch
again and skips the outcomes that the journals have by then, so each outcome is recorded
once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from postfix_archive.back import acting, captures, followed, logfile, store
from postfix_archive.back.captures import Captures
from postfix_archive.back.due import Due
from postfix_archive.back.followed import Capture, Followed
from postfix_archive.core import logline, outcome, trace
from postfix_archive.core.outcome import Outcome
from postfix_archive.core.passage import Passage
from postfix_archive.core.queuefile import QueueFile
from postfix_archive.core.resolving import MOMENT, Resolver
from postfix_archive.core.settings import Settings

PIECE = 5000  # lines of log
NOTED = 30.0  # seconds between two touches while nothing is new
PLACE, FILTERS = "place", "filters"
BEGUN = "begun"  # Unix time of the first line that was read
ALL = "all"  # Unix time of the last check of all captures
SELDOM = 3600.0  # seconds between two such checks
TOO_OLD = 30 * 86400  # seconds: no message is queued, no log is kept for longer
NEAR = 120.0  # seconds between a queue file's first log line and its arrival time
Lines = list[tuple[str, float]]  # each with its Unix time


class Follower:
    """Reads the log on from where the last follower ended."""

    def __init__(
        self,
        settings: Settings,
        log: str,
        filters: tuple[str, ...],
    ) -> None:
        """Begin; log is the path of the current log file, "" for systemd's journal."""
        self._settings = settings
        self._folder = settings.archive_fallback_directory
        self._touched_at: dict[str, float] = (
            {}
        )  # capsule -> log time of its last change
        self._new: set[str] = set()  # capsules not resolved yet
        self._is_first = True
        self._looked = float("-inf")  # time.monotonic()
        with acting.as_owner(self._folder):
            self._state = Followed(self._folder)
            self._passage = Passage(self._all_filters(filters))
            self._queue = self._passage.queue
            self._state.load(self._queue)
        self._captures = Captures(settings, self._state)
        self._due = Due(settings, self._state)
        self._reader = logfile.Reader(log, logfile.place(self._state.word(PLACE)))

    def _all_filters(self, now: tuple[str, ...]) -> tuple[str, ...]:
        """Return the current and all earlier filters: mail may still be in those."""
        before = json.loads(self._state.word(FILTERS) or "[]")
        found = sorted({*before, *now})
        self._state.note(FILTERS, json.dumps(found))
        return tuple(found)

    @property
    def lost(self) -> str:
        """A warning that a part of the log was not found, or ""."""
        return self._reader.lost

    @property
    def absent(self) -> str:
        """A warning that the log does not exist at the moment, or ""."""
        return self._reader.absent

    @property
    def not_understood(self) -> int:
        """The number of lines that look like delivery attempts and are ambiguous."""
        return self._passage.not_understood

    @property
    def complaints(self) -> list[str]:
        """Why outcome reports are delayed, and which of them cannot be made."""
        return [*([self._due.waits] if self._due.waits else []), *self._due.damaged]

    def read(self) -> Lines:
        """Return the next batch of log lines; changes nothing. Raises LogUnreadable."""
        return list(self._reader.new(PIECE))

    def take(self, piece: Lines) -> None:
        """Process a batch of log lines.

        On return its outcomes are durable in the journals, and the outcome reports of
        the records that it settles are stored. After JournalFailed and StoreFailed
        begin again with a new Follower, from the saved state.
        """
        if piece and not self._state.word(BEGUN):
            self._state.note(BEGUN, str(piece[0][1]))
        for text, at in piece:
            line = logline.read(text)
            if line is not None:
                self._passage.take(line, at)
        with acting.as_owner(self._folder):
            self._new |= self._captures.read()
            if piece or self._new or self._is_first:
                self._judge()
                self._state.note(PLACE, self._reader.place.written())
                self._state.save(self._queue)
                self._new |= self._captures.read()  # skips our own appended lines
                self._state.commit()
            if self._state.due():
                self._due.keep(int(time.time()))
                self._state.commit()
        if len(piece) < PIECE and not self.absent:
            self._note_end(has_new=bool(piece))

    def _note_end(self, *, has_new: bool) -> None:
        """Record that the log was read to its end; every 30 s if nothing is new."""
        now = time.monotonic()
        if has_new or now - self._looked > NOTED:
            followed.note(self._folder)
            self._looked = now

    def close(self) -> None:
        """Close the state."""
        self._state.close()

    # --- outcomes ---------------------------------------------------------------------

    def _judge(self) -> None:
        """Append the new outcomes of every capture that may be affected."""
        touched = {*self._queue.by_key} if self._is_first else self._touched()
        told: dict[followed.Said, Outcome] = {}
        settled: list[tuple[Capture, QueueFile | None, bool]] = []
        begun = float(self._state.word(BEGUN) or "inf")
        for capture in self._affected(touched):
            file = self._file_of(capture)
            is_new = capture.capsule in self._new
            if file is not None and (file.key in touched or is_new):
                self._touched_at[capture.capsule] = self._queue.now
            is_settled = self._is_settled(capture, file, told)
            if is_settled or _is_hopeless(capture, file, begun):
                settled.append((capture, file, is_settled))
        self._append(told)
        if self._settings.archive_wait_for_outcome:
            self._tell_early(touched)
        for capture, file, is_known in settled:
            is_last = self._state.settle(capture, has_report=is_known)
            if file is not None and is_last:
                file.is_told = True
                self._queue.touch(file)
        self._new.clear()
        since = self._queue.now - MOMENT
        kept = {name: at for name, at in self._touched_at.items() if at >= since}
        self._touched_at = kept
        self._is_first = False
        self._queue.forget(self._wanted())

    def _affected(self, touched: set[str]) -> Iterator[Capture]:
        """Yield the captures with possible news; all captures once an hour."""
        now = time.time()
        if now - float(self._state.word(ALL) or 0) > SELDOM:
            self._state.note(ALL, str(now))
            yield from self._state.captures()
            return
        files = self._queue.named(list(touched))
        yield from self._state.captures_of(
            archive_ids=[file.archive_id for file in files if file.archive_id],
            queue_ids=[file.queue_id for file in files if not file.archive_id],
            capsules=[*{*self._new, *self._touched_at}],
        )

    def _is_settled(
        self,
        capture: Capture,
        file: QueueFile | None,
        told: dict[followed.Said, Outcome],
    ) -> bool:
        """Add a capture's new outcomes; tell whether all its recipients are settled."""
        settled = True
        record_key = (capture.archive, capture.record_id, capture.queue_id)
        for recipient, original in capture.recipients:
            if self._state.is_said((*record_key, recipient, original, "", False)):
                continue
            found = self._outcomes(capture, file, recipient, original)
            for recipient_outcome in found:
                said = captures.said(
                    capture.archive, capture.record_id, recipient_outcome
                )
                if not self._is_said(said, recipient_outcome):
                    told[said] = recipient_outcome
            settled &= bool(found) and found[0].is_settled
        return settled

    def _outcomes(
        self, capture: Capture, file: QueueFile | None, recipient: str, original: str
    ) -> list[Outcome]:
        if file is None:
            return []
        resolver = Resolver(self._passage, file, of=capture.queue_id)
        return resolver.outcomes(recipient, original)

    def _is_said(self, said: followed.Said, one: Outcome) -> bool:
        """Tell whether the journal has an outcome or does not need it (in transit)."""
        if one.kind == outcome.WAITING and not one.is_worth_telling:
            return True
        return self._state.is_said(said)

    def _append(self, told: dict[followed.Said, Outcome]) -> None:
        """Append outcomes to the journals, with one fsync for each journal."""
        now = trace.timestamp(time.time())
        for archive in {said[0] for said in told}:
            mine = [
                (said[1], recipient_outcome)
                for said, recipient_outcome in told.items()
                if said[0] == archive
            ]
            place = store.Archive(self._settings.archive_store_directory, archive)
            place.outcomes_of(mine, now)
        for said in told:
            self._state.say(said)

    def _tell_early(self, touched: set[str]) -> None:
        """Save the outcomes of messages whose archive copies wait for them."""
        for file in self._queue.named(list(touched)):
            if file.archive_id:
                told = Resolver(self._passage, file, of=file.queue_id).all()
                if told:
                    self._state.tell_early(file.archive_id, file.begun, told)
        self._state.forget_early(self._queue.now - TOO_OLD)

    # --- queue files of captures ------------------------------------------------------

    def _file_of(self, capture: Capture) -> QueueFile | None:
        found = self._queue.captured_as(capture.archive_id)
        if found is not None:
            return found
        named = self._queue.current(capture.queue_id)
        if named is not None and abs(named.begun - capture.at) < NEAR:
            self._queue.captured(named, capture.archive_id)
            return named
        return None

    def _touched(self) -> set[str]:
        """Return the keys of the changed queue files and of all that lead to them."""
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

    def _wanted(self) -> set[str]:
        """Return the keys of queue files that unsettled captures need."""
        before = self._queue.now - TOO_OLD
        found: set[str] = set()
        for file in self._queue.by_key.values():
            if file.archive_id and file.begun > before and not file.is_told:
                found |= self._passage.reached(file)
        return found


def _is_hopeless(capture: Capture, file: QueueFile | None, begun: float) -> bool:
    """Tell whether the log cannot tell: capture too old, or older than the log."""
    is_before = file is None and capture.at < begun - NEAR
    return is_before or time.time() - capture.at > TOO_OLD
