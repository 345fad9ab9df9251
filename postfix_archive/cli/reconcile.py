"""The command postfix-archive reconcile: compares accepted and archived messages.

reconcile/log_scan reads the log and reconcile/totals counts. The order avoids false
alarms about mail in transit: first the log, then queue and fallback directory, then the
log lines written meanwhile, then the journals.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
import time
from collections.abc import Callable, Iterator

import click

from postfix_archive import monitoring
from postfix_archive.cli.options import Date
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError
from postfix_archive.maillog import log_reader
from postfix_archive.postfix import archive_services, postfix_command
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.reconcile import archive_lookup
from postfix_archive.reconcile.causes import Classifier
from postfix_archive.reconcile.log_scan import LogScan
from postfix_archive.reconcile.messages import Message
from postfix_archive.reconcile.summary import Result
from postfix_archive.reconcile.totals import Totals

LogLines = Iterator[tuple[str, float]]
LEAD_SECONDS = 300.0  # seconds before --since: actions are logged before the queue id
LINES_PER_STEP = 5_000  # after which finished messages are classified
LOOKUP_BATCH = 20_000  # captured messages that are looked up in the journals at once
PROGRESS_DELAY = 2.0  # seconds after which a progress bar is shown
PROGRESS_STEPS = 1_000  # of the progress bar
INFINITY = float("inf")


@click.command()
@click.option("--since", type=Date(), help="Only messages accepted at or after DATE.")
@click.option("--until", type=Date(), help="Only messages accepted before DATE.")
@click.option(
    "--log",
    "logs",
    multiple=True,
    metavar="FILE",
    help="Log file; may be repeated, oldest first.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def reconcile(
    ctx: click.Context,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    logs: tuple[str, ...],
    as_json: bool,
) -> None:
    """List accepted messages that are not archived.

    Compares the messages that Postfix accepted, by its log, with the archive.

    Exit codes are those of monitoring plugins: 0 nothing is missing, 1 messages wait
    too long, were rescued or are unclear, 2 messages are missing, 3 log, queue or
    archive cannot be read.
    """
    try:
        reconciliation = Reconciliation(ctx.obj, since, until, logs)
        result = reconciliation.run()
        reconciliation.save_summary(result)
    except (ArchiveError, OSError) as error:
        fields = {"status": "UNKNOWN", "reason": str(error)}
        click.echo(json.dumps(fields) if as_json else f"UNKNOWN: {error}")
        ctx.exit(monitoring.UNKNOWN)
    for text in [json.dumps(result.to_json())] if as_json else result.text_lines():
        click.echo(text)
    ctx.exit(result.severity)


class Reconciliation:
    """One reconcile run over the log of one Postfix instance.

    since and until limit the messages by the time at which Postfix accepted them; logs
    are the log files to read, none: the instance's own.
    """

    def __init__(
        self,
        directory: str,
        since: datetime.datetime | None,
        until: datetime.datetime | None,
        logs: tuple[str, ...],
    ) -> None:
        self.directory = directory
        self.settings: Settings = archive_cf.load(directory)
        self.postfix_config: Configuration = postfix_command.read_configuration(
            directory
        )
        self.started = time.time()
        self.since = since.timestamp() if since else None
        self.until = until.timestamp() if until else self.started
        self._logs = logs
        self._last_lines: tuple[float, list[str]] = (0.0, [])
        has_store = self.settings.has_store
        syslog_names = {
            self.postfix_config.value("syslog_name", e)
            for e in self.postfix_config.services
        }
        syslog_names.add(self.postfix_config.value("syslog_name"))
        self.scan = LogScan(
            syslog_names, content_filters(self.postfix_config), has_store=has_store
        )

    def run(self) -> Result:
        """Read the log, queue and archive; return the result."""
        lines = self._log_lines(max(0.0, (self.since or 0.0) - LEAD_SECONDS))
        first = next(lines, None)
        begin = self.since if self.since is not None else first[1] if first else 0.0
        totals = self._new_totals(begin)
        if first is not None:
            self._read_line(*first)
            self._read_lines(lines, totals)
        pending = archive_lookup.pending(self.directory, self.settings)
        if first is not None:
            for text, timestamp in self._new_lines():
                self._read_line(text, timestamp)
        totals.add_remaining(pending)
        unconfirmed = totals.unconfirmed()
        totals.finish(pending, self._ids_in_journals(unconfirmed, None))
        return Result(totals, pending, begin, self.until)

    def save_summary(self, result: Result) -> None:
        """Save the counts for status; a failure is only reported."""
        try:
            archive_lookup.save_summary(self.settings, result.summary())
        except ArchiveError as error:
            click.echo(f"summary for status not saved: {error}", err=True)

    def _new_totals(self, begin: float) -> Totals:
        bypass_periods = archive_lookup.bypass_periods(
            self.directory, self.settings, begin
        )
        classifier = Classifier(
            self.postfix_config, bypass_periods, self.scan.archiving_processes
        )
        since = self.since if self.since is not None else -INFINITY
        return Totals(self.scan, classifier, since, self.until)

    def _read_lines(self, lines: LogLines, totals: Totals) -> None:
        """Read the log; classify finished messages as it goes, to save memory."""
        with progress_bar(self.started) as show_progress:
            for number, (text, timestamp) in enumerate(lines, 1):
                self._read_line(text, timestamp)
                if number % LINES_PER_STEP == 0:
                    show_progress(timestamp)
                    totals.add(self.scan.pop_finished())
                    if len(totals.captured) >= LOOKUP_BATCH:
                        self._confirm(totals)

    def _read_line(self, text: str, timestamp: float) -> None:
        self.scan.read_line(text, timestamp)
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
        return log_reader.lines_since(self.postfix_config, since)

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
        queue_ids = {e.queue_id: e.time for e in messages if not e.archive_ids}
        begin = min((each.time for each in messages), default=0.0)
        return archive_lookup.ids_in_journals(
            self.settings, archive_ids, queue_ids, begin, end
        )


def content_filters(postfix_config: Configuration) -> tuple[str, ...]:
    """Return the host's content filters other than ours, as transport:nexthop."""
    values = {
        postfix_config.value("content_filter", each) for each in postfix_config.services
    }
    values |= {
        postfix_config.value("content_filter"),
        postfix_config.value("archive_next_filter"),
    }
    own_prefixes = (
        archive_services.STAMP_TRANSPORT,
        "archive:",
        "archive-relay:",
        "archive-local:",
    )
    return tuple(
        sorted(each for each in values if each and not each.startswith(own_prefixes))
    )


@contextlib.contextmanager
def progress_bar(end: float) -> Iterator[Callable[[float], None]]:
    """Yield a function that shows the progress up to a time in the log.

    On a terminal only, and only if the run takes longer than PROGRESS_DELAY.
    """
    started = time.monotonic()
    if not sys.stderr.isatty():
        yield lambda timestamp: None
        return
    with click.progressbar(length=PROGRESS_STEPS, label="log", file=sys.stderr) as bar:
        first: list[float] = []

        def show(timestamp: float) -> None:
            first[:] = first or [timestamp]
            done = (timestamp - first[0]) / max(1.0, end - first[0])
            if time.monotonic() - started > PROGRESS_DELAY:
                bar.update(min(PROGRESS_STEPS, int(PROGRESS_STEPS * done)) - bar.pos)

        yield show
