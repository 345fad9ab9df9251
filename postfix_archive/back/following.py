"""Follows Postfix's log and tells the journals what became of each recipient.

Used by front/outcomes. A piece of log at a time: read it, judge, append to the
journals, note how far that was. Whoever dies in between reads the same piece again, and
what the journals have by then is not said twice: so each outcome stands there once.
"""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Iterator

from postfix_archive.back import acting, followed, journal, logfile, reading
from postfix_archive.back.followed import Capture, Followed
from postfix_archive.core import envelope, logline, outcome, record, trace
from postfix_archive.core.errors import JournalFailed
from postfix_archive.core.outcome import Outcome
from postfix_archive.core.passage import Passage
from postfix_archive.core.queuefile import QueueFile
from postfix_archive.core.resolving import MOMENT, Resolver
from postfix_archive.core.settings import Settings

PIECE = 5000  # lines of log
SELDOM = 30.0  # seconds between two notes that there is nothing new
PLACE, FILTERS = "place", "filters"
TOO_OLD = 30 * 86400  # seconds: no message waits longer, and no log is kept
NEAR = 120.0  # seconds between a queue file's first line and its arrival
KINDS = ("archived", "supplement")
Lines = list[tuple[str, float]]  # of the log, each with its time


class Follower:
    """Reads on where the last one ended."""

    def __init__(self, settings: Settings, log: str, filters: tuple[str, ...]) -> None:
        """Begin; log is the file that is written to, "" for systemd's journal."""
        self._settings = settings
        self._folder = settings.archive_fallback_directory
        self._touched_at: dict[str, float] = {}  # captures that more may be said of
        self._is_first = True
        self._looked = float("-inf")  # by the monotonic clock
        with acting.as_owner(self._folder):
            self._state = Followed(self._folder)
            self._passage = Passage(self._all_filters(filters))
            self._queue = self._passage.queue
            self._state.load(self._queue)
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

    def read(self) -> Lines:
        """Return the next piece of log; nothing is done yet. Raises LogUnreadable."""
        return list(self._reader.new(PIECE))

    def take(self, piece: Lines) -> None:
        """Take in a piece of log.

        What it means is in the journals, durably, on return. After JournalFailed and
        StoreFailed another follower has to begin, from what is written down.
        """
        for text, at in piece:
            line = logline.read(text)
            if line is not None:
                self._passage.take(line, at)
        with acting.as_owner(self._folder):
            new = self._read_journals()
            if piece or new or self._is_first:
                self._judge(new)
                self._state.note(PLACE, self._reader.place.written())
                self._state.save(self._queue)
                self._state.commit()
        if len(piece) < PIECE and not self.absent:
            self._note_end(has_new=bool(piece))

    def _note_end(self, *, has_new: bool) -> None:
        """Note that the log was read to its end, now and then if it stands still."""
        now = time.monotonic()
        if has_new or now - self._looked > SELDOM:
            followed.note(self._folder)
            self._looked = now

    def close(self) -> None:
        """Let go of the state."""
        self._state.close()

    # --- what the archive has ---------------------------------------------------------

    def _read_journals(self) -> set[str]:
        """Take in what the journals have new; return the capsules they tell of."""
        new: set[str] = set()
        store = self._settings.archive_store_directory
        for archive in reading.archives(store):
            path = f"{store}/{archive}/{journal.NAME}"
            word = f"journal {archive}"
            before = int(self._state.word(word) or 0)
            for raw, offset in _lines_from(path, before):
                new |= self._take(archive, raw)
                self._state.note(word, str(offset))
        return new

    def _take(self, archive: str, raw: bytes) -> set[str]:
        try:
            event = json.loads(raw)
        except (ValueError, RecursionError):
            return set()  # torn, or damaged: for verify
        if not record.is_event(event):
            return set()
        if event["event"] in KINDS:
            capture = _capture(archive, event)
            self._state.add(capture)
            return {capture.capsule}
        if event["event"] == outcome.EVENT and outcome.is_event(event):
            said = outcome.from_event(event)
            self._state.say(_said(archive, event["id"], said))
        return set()

    # --- what that means --------------------------------------------------------------

    def _judge(self, new: set[str]) -> None:
        """Tell the journals what is new of every capture that may be affected.

        new are the capsules that the journals did not tell of before.
        """
        touched = self._touched()
        wanted: set[str] = set()
        for capture in self._state.captures():
            file = self._file_of(capture)
            if file is not None:
                wanted |= self._passage.reached(file)
                if self._is_first or file.key in touched or capture.capsule in new:
                    self._touched_at[capture.capsule] = self._queue.now
            if file is None or capture.capsule in self._touched_at:
                if self._told(capture, file):
                    self._settle(capture, file)
        since = self._queue.now - MOMENT
        kept = {name: at for name, at in self._touched_at.items() if at >= since}
        self._touched_at = kept
        self._is_first = False
        wanted |= self._uncaptured()
        self._queue.forget(wanted)

    def _told(self, capture: Capture, file: QueueFile | None) -> bool:
        """Append what is new of a capture; tell whether all of it is settled."""
        new: list[Outcome] = []
        settled = True
        record_key = (capture.archive, capture.record_id, capture.queue_id)
        for recipient, original in capture.recipients:
            if self._state.is_said((*record_key, recipient, original, "", False)):
                continue
            found = self._outcomes(capture, file, recipient, original)
            new += [each for each in found if not self._is_said(capture, each)]
            settled &= bool(found) and found[0].is_settled
        if new:
            self._append(capture, new)
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

    def _is_said(self, capture: Capture, one: Outcome) -> bool:
        """Tell whether the journal has it; of what only passes, nothing is said."""
        if one.kind == outcome.WAITING and not one.is_worth_telling:
            return True
        return self._state.is_said(_said(capture.archive, capture.record_id, one))

    def _append(self, capture: Capture, new: list[Outcome]) -> None:
        folder = f"{self._settings.archive_store_directory}/{capture.archive}"
        now = trace.timestamp(time.time())
        with journal.Journal(folder) as events:
            events.extend(
                now,
                [(outcome.EVENT, {"id": capture.record_id, **e.words()}) for e in new],
            )
        for each in new:
            self._state.say(_said(capture.archive, capture.record_id, each))

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


def _capture(archive: str, event: dict[str, object]) -> Capture:
    text = str(event["envelope"]).encode("utf-8", "surrogateescape")
    sealed = envelope.parse(text)
    archived = datetime.datetime.fromisoformat(str(event["time"])).timestamp()
    return Capture(
        archive=archive,
        capsule=str(event.get("capsule", event["seq"])),
        record_id=str(event["id"]),
        archive_id=sealed.archive_id,
        queue_id=sealed.queue_id.decode("ascii", "replace"),
        at=float(sealed.arrival or archived),
        recipients=tuple(
            (_text(each.final), _text(each.original if each.expanded else b""))
            for each in sealed.recipients
        ),
    )


def _text(address: bytes) -> str:
    return address.decode("utf-8", "surrogateescape")


def _said(archive: str, record_id: str, one: Outcome) -> followed.Said:
    waits = one.kind == outcome.WAITING
    words = (one.of, one.recipient, one.original, one.parent)
    return (archive, record_id, *words, waits)


def _lines_from(path: str, offset: int) -> Iterator[tuple[bytes, int]]:
    """Give the whole lines of a journal from an offset on, each with its end.

    A journal that ends before was put in the place of another: it is read anew.
    """
    try:
        with open(path, "rb") as opened:
            if os.fstat(opened.fileno()).st_size < offset:
                offset = 0
            opened.seek(offset)
            for raw in opened:
                if not raw.endswith(b"\n"):
                    return
                offset += len(raw)
                yield raw, offset
    except FileNotFoundError:
        return
    except OSError as problem:
        raise JournalFailed(f"{path}: {problem.strerror}") from problem
