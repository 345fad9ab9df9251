"""One run of reconcile: reads log, queue and archive in the order that makes it right.

Used by cli/reconcile. The order avoids false alarms about mail in transit: first the
log, then queue and fallback directory, then the log lines written meanwhile, then the
journals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from postfix_archive.config import archive_cf
from postfix_archive.maillog import location, log_reader
from postfix_archive.postfix import archive_services, postfix_command
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.reconcile import acceptances, archive_lookup
from postfix_archive.reconcile.causes import Classifier
from postfix_archive.reconcile.log_scan import LogScan
from postfix_archive.reconcile.messages import Message
from postfix_archive.reconcile.summary import Result
from postfix_archive.reconcile.totals import Totals
from postfix_archive.store import record_reader

LogLines = Iterator[tuple[str, float]]
LEAD_SECONDS = 300.0  # seconds before since: actions are logged before the queue id
LINES_PER_STEP = 5_000  # after which finished messages are classified
LOOKUP_BATCH = 20_000  # captured messages that are looked up in the journals at once
INFINITY = float("inf")


class Reconciliation:
    """One reconcile run over the log of one Postfix instance.

    since and until limit the messages by the time at which Postfix accepted them, in
    seconds since 1970; logs are the log files to read, none: the instance's own.
    """

    def __init__(
        self,
        directory: str,
        since: float | None,
        until: float | None,
        logs: tuple[str, ...],
    ) -> None:
        """Initialise. Raises ArchiveError if the configuration cannot be read."""
        self.started = time.time()
        self._directory = directory
        self._settings = archive_cf.load(directory)
        self._postfix_config = postfix_command.read_configuration(directory)
        self._since = since
        self._has_until = until is not None
        self._until = until if until is not None else self.started
        self._logs = logs
        self._last_lines: tuple[float, list[str]] = (0.0, [])
        self._scan = LogScan(
            _syslog_names(self._postfix_config),
            archive_services.content_filters(self._postfix_config),
            has_store=self._settings.has_store,
        )

    def run(self, show_progress: Callable[[float], None]) -> Result:
        """Read the log, queue and archive; return the result.

        Calls show_progress with the Unix time in the log up to which it is read.
        """
        lines = self._log_lines(max(0.0, (self._since or 0.0) - LEAD_SECONDS))
        first = next(lines, None)
        begin = self._since if self._since is not None else first[1] if first else 0.0
        totals = self._new_totals(begin)
        if first is not None:
            self._read_line(*first)
            self._read_lines(lines, totals, show_progress)
        pending = archive_lookup.pending(self._directory, self._settings)
        if first is not None:
            for text, timestamp in self._new_lines():
                self._read_line(text, timestamp)
        totals.add_remaining(pending)
        unconfirmed = totals.unconfirmed()
        totals.finish(pending, self._ids_in_journals(unconfirmed, None))
        return Result(totals, pending, begin, self._until, self._arrival_after_log())

    def _arrival_after_log(self) -> float:
        """Return when the newest archived message arrived if the log ends before it.

        Unix time; 0 if the log goes on, or only a part of it was to be read.
        """
        if self._logs or self._has_until or not self._settings.has_store:
            return 0.0
        arrival = record_reader.last_arrival(self._settings.archive_store_directory)
        is_after = arrival > self._scan.last_line_time + location.STALE_SECONDS
        return arrival if is_after and arrival >= (self._since or 0.0) else 0.0

    def save_summary(self, result: Result) -> None:
        """Save the counts for status. Raises StoreFailed."""
        archive_lookup.save_summary(self._settings, result.summary())

    def _new_totals(self, begin: float) -> Totals:
        bypass_periods = archive_lookup.bypass_periods(
            self._directory, self._settings, begin
        )
        classifier = Classifier(
            self._postfix_config,
            bypass_periods,
            self._scan.archiving_processes,
            archive_cf.readable_keys(self._settings),
        )
        since = self._since if self._since is not None else -INFINITY
        return Totals(
            self._scan,
            classifier,
            since,
            self._until,
            archive_begin=archive_lookup.archive_begin(self._settings),
            accepted=acceptances.read(self._directory),
        )

    def _read_lines(
        self, lines: LogLines, totals: Totals, show_progress: Callable[[float], None]
    ) -> None:
        """Read the log; classify finished messages as it goes, to save memory."""
        for number, (text, timestamp) in enumerate(lines, 1):
            self._read_line(text, timestamp)
            if number % LINES_PER_STEP == 0:
                show_progress(timestamp)
                totals.add(self._scan.pop_finished())
                if len(totals.captured) >= LOOKUP_BATCH:
                    self._confirm(totals)

    def _read_line(self, text: str, timestamp: float) -> None:
        self._scan.read_line(text, timestamp)
        last_timestamp, texts = self._last_lines
        if timestamp > last_timestamp:
            self._last_lines = (timestamp, [text])
        elif timestamp == last_timestamp:
            texts.append(text)

    def _new_lines(self) -> LogLines:
        """Yield the lines written since the log was read to its end."""
        last_timestamp, seen = self._last_lines[0], list(self._last_lines[1])
        for text, timestamp in self._log_lines(last_timestamp):
            if timestamp == last_timestamp and text in seen:
                seen.remove(text)
            else:
                yield text, timestamp

    def _log_lines(self, since: float) -> LogLines:
        if self._logs:
            return log_reader.lines_of_files(list(self._logs), since)
        return log_reader.lines_since(self._postfix_config, since)

    def _confirm(self, totals: Totals) -> None:
        captured = totals.captured
        totals.confirm(
            self._ids_in_journals(captured, max(each.time for each in captured))
        )

    def _ids_in_journals(self, messages: list[Message], end: float | None) -> set[str]:
        """Return the ids of these that journals have; end: the last one's arrival."""
        archive_ids = {
            archive_id for each in messages for archive_id in each.archive_ids
        }
        begin = min((each.time for each in messages), default=0.0)
        return archive_lookup.ids_in_journals(self._settings, archive_ids, begin, end)


def _syslog_names(config: Configuration) -> set[str]:
    """Return the names under which this instance and its services log."""
    names = {config.value("syslog_name", service) for service in config.services}
    return names | {config.value("syslog_name")}
