"""Follows Postfix's log and appends the outcome of each recipient to the journals.

Used by outcomes.follower_service. One batch of log lines at a time: read it, resolve,
append to the journals, save the position. A process that is killed in between reads the
same batch again and skips the outcomes that the journals have by then, so each outcome
is recorded once.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import deque
from collections.abc import Iterator

from postfix_archive.config.settings import Settings
from postfix_archive.maillog import log_reader
from postfix_archive.maillog.queue_file import QueueFile
from postfix_archive.maillog.queue_tracker import QueueTracker
from postfix_archive.message import dates
from postfix_archive.outcomes import capture_reader, follower_state
from postfix_archive.outcomes.capture_reader import CaptureReader
from postfix_archive.outcomes.follower_state import FollowerState, PendingCapture
from postfix_archive.outcomes.report_queue import ReportQueue
from postfix_archive.outcomes.resolver import LOCAL_DELIVERY_SECONDS, Resolver
from postfix_archive.store import outcome
from postfix_archive.store.archive import of_settings
from postfix_archive.store.outcome import Outcome
from postfix_archive.system import privileges

BATCH_LINES = 5000  # lines of log
CAPTURES_PER_STEP = 1000  # captures whose outcomes are appended with one fsync
# Seconds of log time. A message for several archives is kept for KEEP_ENDED: another
# archive may have it later.
KEEP_SETTLED = 60.0
TOUCH_INTERVAL = 30.0  # seconds between two touches while nothing is new
POSITION_KEY, FILTERS_KEY = "place", "filters"
LOG_START_KEY = "begun"  # Unix time of the first line that was read, with a time
LAST_FULL_CHECK_KEY = "all"  # Unix time of the last check of all captures
FULL_CHECK_INTERVAL = 3600.0  # seconds between two such checks
MAX_AGE = 30 * 86400  # seconds: no message is queued, no log is kept for longer
# Seconds between a queue file's first log line and its arrival time.
MAX_ARRIVAL_DIFFERENCE = 120.0
TimedLines = list[tuple[str, float]]  # each with its Unix time


class Follower:
    """Reads the log on from where the last follower ended."""

    def __init__(
        self,
        settings: Settings,
        log_path: str,
        filters: tuple[str, ...],
    ) -> None:
        """Begin; log is the path of the current log file, "" for systemd's journal."""
        self._settings = settings
        self._directory = settings.archive_fallback_directory
        self._touch_times: dict[str, float] = (
            {}
        )  # capsule -> log time of its last change
        self._new_capsules: set[str] = set()  # capsules not resolved yet
        self._settled_keys: deque[tuple[float, set[str]]] = deque()
        self._is_first_batch = True
        self._last_touch = float("-inf")  # time.monotonic()
        with privileges.as_owner(self._directory):
            self._state = FollowerState(self._directory)
            self._tracker = QueueTracker(self._all_filters(filters))
            self._queue_files = self._tracker.queue_files
            self._state.load_queue_files(self._queue_files)
        self._capture_reader = CaptureReader(settings, self._state)
        self._report_queue = ReportQueue(settings, self._state)
        self._reader = log_reader.Reader(
            log_path, log_reader.parse_position(self._state.get_value(POSITION_KEY))
        )

    def _all_filters(self, filters: tuple[str, ...]) -> tuple[str, ...]:
        """Return the current and all earlier filters: mail may still be in those."""
        saved = json.loads(self._state.get_value(FILTERS_KEY) or "[]")
        merged = sorted({*saved, *filters})
        self._state.set_value(FILTERS_KEY, json.dumps(merged))
        return tuple(merged)

    @property
    def loss_warning(self) -> str:
        """A warning that a part of the log was not found, or ""."""
        return self._reader.loss_warning

    @property
    def absence_warning(self) -> str:
        """A warning that the log does not exist at the moment, or ""."""
        return self._reader.absence_warning

    @property
    def unparsed_count(self) -> int:
        """The number of lines that look like delivery attempts and are ambiguous."""
        return self._tracker.unparsed_count

    @property
    def report_warnings(self) -> list[str]:
        """Why outcome reports are delayed, and which of them cannot be made."""
        return [
            *(
                [self._report_queue.delay_warning]
                if self._report_queue.delay_warning
                else []
            ),
            *self._report_queue.damage_warnings,
        ]

    def read_batch(self) -> TimedLines:
        """Return the next batch of log lines; changes nothing. Raises LogUnreadable."""
        return list(self._reader.new_lines(BATCH_LINES))

    def process_batch(self, batch: TimedLines) -> None:
        """Process a batch of log lines.

        On return its outcomes are durable in the journals, and the outcome reports of
        the records that it settles are stored. After JournalFailed and StoreFailed
        begin again with a new Follower, from the saved state.
        """
        for text, at in batch:
            self._tracker.read(text, at)
        with privileges.as_owner(self._directory):
            log_start = next((at for _, at in batch if at), None)
            if log_start is not None and not self._state.get_value(LOG_START_KEY):
                self._state.set_value(LOG_START_KEY, str(log_start))
            self._read_captures()
            if batch or self._new_capsules or self._is_first_batch:
                self._update_outcomes()
                self._state.set_value(POSITION_KEY, self._reader.position.to_json())
                self._state.save_queue_files(self._queue_files)
                self._read_captures()  # skips our own appended lines
                self._state.commit()
            if self._state.has_due_reports():
                self._report_queue.process(int(time.time()))
                self._state.commit()
        if len(batch) < BATCH_LINES and not self.absence_warning:
            self._touch_last_read(has_new=bool(batch))

    def _read_captures(self) -> None:
        """Read new captures; after too many of them all are checked."""
        self._new_capsules |= self._capture_reader.read_new()
        if self._capture_reader.has_more:
            self._state.set_value(LAST_FULL_CHECK_KEY, "0")

    def _touch_last_read(self, *, has_new: bool) -> None:
        """Record that the log was read to its end; every 30 s if nothing is new."""
        now = time.monotonic()
        if has_new or now - self._last_touch > TOUCH_INTERVAL:
            follower_state.touch_last_read(self._directory)
            self._last_touch = now

    def close(self) -> None:
        """Close the state and the log."""
        self._reader.close()
        self._state.close()

    # --- outcomes ---------------------------------------------------------------------

    def _update_outcomes(self) -> None:
        """Append the new outcomes of every capture that may be affected."""
        affected_keys = (
            {*self._queue_files.by_key}
            if self._is_first_batch
            else self._affected_keys()
        )
        if self._settings.archive_wait_for_outcome:
            self._save_early_outcomes(affected_keys)
        captures = self._affected_captures(affected_keys)
        while some := list(itertools.islice(captures, CAPTURES_PER_STEP)):
            self._settle(some, affected_keys)
        self._new_capsules.clear()
        since = self._queue_files.now - LOCAL_DELIVERY_SECONDS
        recent = {name: at for name, at in self._touch_times.items() if at >= since}
        self._touch_times = recent
        self._is_first_batch = False
        self._drop_settled()
        self._queue_files.prune(self._needed_keys())

    def _drop_settled(self) -> None:
        """Drop the ended queue files of what was settled KEEP_SETTLED seconds ago."""
        limit = self._queue_files.now - KEEP_SETTLED
        while self._settled_keys and self._settled_keys[0][0] < limit:
            _, keys = self._settled_keys.popleft()
            for file in self._queue_files.find_by_keys(list(keys)):
                if file.end:
                    self._queue_files.drop(file)

    def _settle(self, captures: list[PendingCapture], affected_keys: set[str]) -> None:
        """Append the new outcomes of these captures; remove those that are settled."""
        new_outcomes: dict[follower_state.OutcomeKey, Outcome] = {}
        settled: list[tuple[PendingCapture, QueueFile | None, bool]] = []
        log_start = float(self._state.get_value(LOG_START_KEY) or "-inf")
        for capture in captures:
            file = self._find_queue_file(capture)
            is_new = capture.capsule in self._new_capsules
            if file is not None and (file.key in affected_keys or is_new):
                self._touch_times[capture.capsule] = self._queue_files.now
            is_settled = self._collect_outcomes(capture, file, new_outcomes)
            if is_settled or _is_unresolvable(capture, file, log_start):
                settled.append((capture, file, is_settled))
        self._append_to_journals(new_outcomes)
        for capture, file, is_known in settled:
            is_last = self._state.remove_capture(capture, has_report=is_known)
            if file is not None and is_last:
                file.is_settled = True
                self._queue_files.touch(file)
                if capture.archive_count == 1:
                    keys = self._tracker.reachable_keys(file)
                    self._settled_keys.append((self._queue_files.now, keys))

    def _affected_captures(self, affected_keys: set[str]) -> Iterator[PendingCapture]:
        """Yield the captures with possible news; all captures once an hour."""
        now = time.time()
        if (
            now - float(self._state.get_value(LAST_FULL_CHECK_KEY) or 0)
            > FULL_CHECK_INTERVAL
        ):
            self._state.set_value(LAST_FULL_CHECK_KEY, str(now))
            yield from self._state.captures()
            return
        files = self._queue_files.find_by_keys(list(affected_keys))
        yield from self._state.find_captures(
            archive_ids=[each for file in files for each in file.archive_ids],
            queue_ids=[
                queue_id
                for file in files
                if not file.archive_ids
                for queue_id in {file.first_queue_id, file.queue_id}
            ],
            capsules=[*{*self._new_capsules, *self._touch_times}],
        )

    def _collect_outcomes(
        self,
        capture: PendingCapture,
        file: QueueFile | None,
        new_outcomes: dict[follower_state.OutcomeKey, Outcome],
    ) -> bool:
        """Add a capture's new outcomes; tell whether all its recipients are settled."""
        is_settled = True
        record_key = (capture.archive, capture.record_id, capture.queue_id)
        for recipient, original in capture.recipients:
            if self._state.is_recorded((*record_key, recipient, original, "", False)):
                continue
            outcomes = self._resolve(capture, file, recipient, original)
            for recipient_outcome in outcomes:
                key = capture_reader.outcome_key(
                    capture.archive, capture.record_id, recipient_outcome
                )
                if not self._is_recorded(key, recipient_outcome):
                    new_outcomes[key] = recipient_outcome
            is_settled &= bool(outcomes) and outcomes[0].is_settled
        return is_settled

    def _resolve(
        self,
        capture: PendingCapture,
        file: QueueFile | None,
        recipient: str,
        original: str,
    ) -> list[Outcome]:
        if file is None:
            return []
        resolver = Resolver(self._tracker, file, capture_queue_id=capture.queue_id)
        return resolver.outcomes(recipient, original)

    def _is_recorded(
        self, key: follower_state.OutcomeKey, recipient_outcome: Outcome
    ) -> bool:
        """Tell whether the journal has an outcome or does not need it (in transit)."""
        if (
            recipient_outcome.kind == outcome.WAITING
            and not recipient_outcome.is_reportable
        ):
            return True
        return self._state.is_recorded(key)

    def _append_to_journals(
        self, new_outcomes: dict[follower_state.OutcomeKey, Outcome]
    ) -> None:
        """Append outcomes to the journals, with one fsync for each journal."""
        now = dates.format_rfc3339(time.time())
        for archive in {key[0] for key in new_outcomes}:
            archive_outcomes = [
                (key[1], recipient_outcome)
                for key, recipient_outcome in new_outcomes.items()
                if key[0] == archive
            ]
            store_archive = of_settings(self._settings, archive)
            store_archive.record_outcomes(archive_outcomes, now)
        for key in new_outcomes:
            self._state.add_recorded_outcome(key)

    def _save_early_outcomes(self, affected_keys: set[str]) -> None:
        """Save the outcomes of messages whose archive copies wait for them."""
        for file in self._queue_files.find_by_keys(list(affected_keys)):
            if file.archive_id:
                outcomes = Resolver(
                    self._tracker, file, capture_queue_id=file.queue_id
                ).settled_outcomes()
                if outcomes:
                    self._state.save_early_outcomes(
                        file.archive_id, file.begun, outcomes
                    )
        self._state.delete_early_outcomes(self._queue_files.now - MAX_AGE)

    # --- queue files of captures ------------------------------------------------------

    def _find_queue_file(self, capture: PendingCapture) -> QueueFile | None:
        captured_file = self._queue_files.find_by_archive_id(capture.archive_id)
        if captured_file is not None:
            return captured_file
        candidate = self._queue_files.current(capture.queue_id)
        if (
            candidate is not None
            and abs(candidate.begun - capture.at) < MAX_ARRIVAL_DIFFERENCE
        ):
            self._queue_files.add_archive_id(candidate, capture.archive_id)
            return candidate
        return None

    def _affected_keys(self) -> set[str]:
        """Return the keys of the changed queue files and of all that lead to them."""
        keys: set[str] = set()
        pending = list(
            self._queue_files.find_by_keys(list(self._queue_files.changed_keys))
        )
        while pending:
            file = pending.pop()
            if file.key in keys:
                continue
            keys.add(file.key)
            pending += self._queue_files.find_by_keys([file.parent])
            pending += self._queue_files.find_same_message_id(file)
        return keys

    def _needed_keys(self) -> set[str]:
        """Return the keys of queue files that unsettled captures need."""
        oldest = self._queue_files.now - MAX_AGE
        keys: set[str] = set()
        for file in self._queue_files.by_key.values():
            if file.archive_id and file.begun > oldest and not file.is_settled:
                keys |= self._tracker.reachable_keys(file)
        return keys


def _is_unresolvable(
    capture: PendingCapture, file: QueueFile | None, log_start: float
) -> bool:
    """Tell whether the log cannot tell: capture too old, or older than the log.

    While no line of the log was read, log_start is minus infinity: it may yet come.
    """
    is_before_log = file is None and capture.at < log_start - MAX_ARRIVAL_DIFFERENCE
    return is_before_log or time.time() - capture.at > MAX_AGE
