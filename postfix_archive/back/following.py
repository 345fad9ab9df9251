"""Follows Postfix's log and tells the journals what became of each recipient.

Used by front/outcomes. A piece of log at a time: read it, judge, append to the
journals, note how far that was. Whoever dies in between reads the same piece again, and
what the journals have by then is not said twice: so each outcome stands there once.
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
NOTED = 30.0  # seconds between two notes that there is nothing new
PLACE, FILTERS = "place", "filters"
BEGUN = "begun"  # time of the first line that was read
ALL = "all"  # when all captures were looked at
SELDOM = 3600.0  # seconds between two such looks
TOO_OLD = 30 * 86400  # seconds: no message waits longer, and no log is kept
NEAR = 120.0  # seconds between a queue file's first line and its arrival
Lines = list[tuple[str, float]]  # of the log, each with its time


class Follower:
    """Reads on where the last one ended."""

    def __init__(
        self,
        settings: Settings,
        log: str,
        filters: tuple[str, ...],
    ) -> None:
        """Begin; log is the file that is written to, "" for systemd's journal."""
        self._settings = settings
        self._folder = settings.archive_fallback_directory
        self._touched_at: dict[str, float] = {}  # captures that more may be said of
        self._new: set[str] = set()  # capsules that no judgement has seen yet
        self._is_first = True
        self._looked = float("-inf")  # by the monotonic clock
        with acting.as_owner(self._folder):
            self._state = Followed(self._folder)
            self._passage = Passage(self._all_filters(filters))
            self._queue = self._passage.queue
            self._state.load(self._queue)
        self._captures = Captures(settings, self._state)
        self._due = Due(settings, self._state)
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
    def absent(self) -> str:
        """Say that there is no log at this moment, if so."""
        return self._reader.absent

    @property
    def not_understood(self) -> int:
        """The number of lines that look like delivery attempts and cannot be read."""
        return self._passage.not_understood

    @property
    def complaints(self) -> list[str]:
        """Say why outcome reports wait, and which cannot be made."""
        return [*([self._due.waits] if self._due.waits else []), *self._due.damaged]

    def read(self) -> Lines:
        """Return the next piece of log; nothing is done yet. Raises LogUnreadable."""
        return list(self._reader.new(PIECE))

    def take(self, piece: Lines) -> None:
        """Take in a piece of log.

        What it means is in the journals, durably, on return, and the outcome reports
        of what it settles are kept. After JournalFailed and StoreFailed another
        follower has to begin, from what is written down.
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
                self._new |= self._captures.read()  # what was appended just now
                self._state.commit()
            if self._state.due():
                self._due.keep(int(time.time()))
                self._state.commit()
        if len(piece) < PIECE and not self.absent:
            self._note_end(has_new=bool(piece))

    def _note_end(self, *, has_new: bool) -> None:
        """Note that the log was read to its end, now and then if it stands still."""
        now = time.monotonic()
        if has_new or now - self._looked > NOTED:
            followed.note(self._folder)
            self._looked = now

    def close(self) -> None:
        """Let go of the state."""
        self._state.close()

    # --- what that means --------------------------------------------------------------

    def _judge(self) -> None:
        """Tell the journals what is new of every capture that may be affected."""
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
        """Give the captures of which more may be known; all of them now and then."""
        now = time.time()
        if now - float(self._state.word(ALL) or 0) > SELDOM:
            self._state.note(ALL, str(now))
            yield from self._state.captures()
            return
        files = self._queue.named(list(touched))
        yield from self._state.captures_of(
            archive_ids=[each.archive_id for each in files if each.archive_id],
            queue_ids=[each.queue_id for each in files if not each.archive_id],
            capsules=[*{*self._new, *self._touched_at}],
        )

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
                said = captures.said(capture.archive, capture.record_id, each)
                if not self._is_said(said, each):
                    told[said] = each
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
        for file in self._queue.named(list(touched)):
            if file.archive_id:
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
            self._queue.captured(named, capture.archive_id)
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

    def _wanted(self) -> set[str]:
        """Return what belongs to captures of which not all is told."""
        before = self._queue.now - TOO_OLD
        found: set[str] = set()
        for file in self._queue.by_key.values():
            if file.archive_id and file.begun > before and not file.is_told:
                found |= self._passage.reached(file)
        return found


def _is_hopeless(capture: Capture, file: QueueFile | None, begun: float) -> bool:
    """Tell whether nothing will be known of it: too old, or before the log began."""
    is_before = file is None and capture.at < begun - NEAR
    return is_before or time.time() - capture.at > TOO_OLD
