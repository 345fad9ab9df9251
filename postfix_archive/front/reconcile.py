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

from postfix_archive.back import config, holdings, logfile, postconf
from postfix_archive.core import finding, gates
from postfix_archive.core.accepted import Message
from postfix_archive.core.causes import Judge
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import ArchiveError
from postfix_archive.core.reckoning import Reckoning
from postfix_archive.core.reconciled import Found
from postfix_archive.core.reconciling import Reconciling
from postfix_archive.core.settings import Settings
from postfix_archive.front.dates import Date

Lines = Iterator[tuple[str, float]]
EARLIER = 300.0  # seconds before --since: actions are logged before the queue id
LINES_PER_STEP = 5_000  # after which finished messages are classified
BATCH = 20_000  # captured messages that are looked up in the journals at once
PROGRESS_DELAY = 2.0  # seconds after which a progress bar is shown
PARTS = 1_000  # of the progress bar
ENDLESS = float("inf")


@click.command()
@click.option("--since", type=Date(), help="Only messages accepted since then.")
@click.option("--until", type=Date(), help="Only messages accepted before then.")
@click.option(
    "--log", "logs", multiple=True, metavar="FILE", help="Log file; oldest first."
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
        run = Run(ctx.obj, since, until, logs)
        found = run.found()
        run.note(found)
    except (ArchiveError, OSError) as problem:
        told = {"status": "UNKNOWN", "why": str(problem)}
        click.echo(json.dumps(told) if as_json else f"UNKNOWN: {problem}")
        ctx.exit(finding.UNKNOWN)
    for each in [json.dumps(found.words())] if as_json else found.lines():
        click.echo(each)
    ctx.exit(found.severity)


class Run:
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
        self.settings: Settings = config.load(directory)
        self.postfix: Configuration = postconf.read(directory)
        self.began = time.time()
        self.since = since.timestamp() if since else None
        self.until = until.timestamp() if until else self.began
        self._logs = logs
        self._last: tuple[float, list[str]] = (0.0, [])
        stores = self.settings.stores
        names = {self.postfix.value("syslog_name", e) for e in self.postfix.services}
        names.add(self.postfix.value("syslog_name"))
        self.log = Reconciling(names, filters(self.postfix), stores=stores)

    def found(self) -> Found:
        """Read the log, queue and archive; return the result."""
        lines = self._lines(max(0.0, (self.since or 0.0) - EARLIER))
        first = next(lines, None)
        begin = self.since if self.since is not None else first[1] if first else 0.0
        reckoning = self._reckoning(begin)
        if first is not None:
            self._take(*first)
            self._read(lines, reckoning)
        held = holdings.held(self.directory, self.settings)
        if first is not None:
            for text, at in self._new():
                self._take(text, at)
        reckoning.end(held)
        late = reckoning.late()
        reckoning.close(held, self._kept(late, None))
        return Found(reckoning, held, begin, self.until)

    def note(self, found: Found) -> None:
        """Save the counts for status; a failure is only reported."""
        try:
            holdings.note(self.settings, found.summary())
        except ArchiveError as problem:
            click.echo(f"summary for status not saved: {problem}", err=True)

    def _reckoning(self, begin: float) -> Reckoning:
        gaps = holdings.gaps(self.directory, self.settings, begin)
        judge = Judge(self.postfix, gaps, self.log.led)
        since = self.since if self.since is not None else -ENDLESS
        return Reckoning(self.log, judge, since, self.until)

    def _read(self, lines: Lines, reckoning: Reckoning) -> None:
        """Read the log; classify finished messages as it goes, to save memory."""
        with progress(self.began) as show:
            for number, (text, at) in enumerate(lines, 1):
                self._take(text, at)
                if number % LINES_PER_STEP == 0:
                    show(at)
                    reckoning.add(self.log.finished())
                    if len(reckoning.captured) >= BATCH:
                        self._confirm(reckoning)

    def _take(self, text: str, at: float) -> None:
        self.log.take(text, at)
        last, same = self._last
        if at > last:
            self._last = (at, [text])
        elif at == last:
            same.append(text)

    def _new(self) -> Lines:
        """Yield the lines written since the log was read to its end."""
        last, seen = self._last[0], list(self._last[1])
        for text, at in self._lines(last):
            if at == last and text in seen:
                seen.remove(text)
            else:
                yield text, at

    def _lines(self, since: float) -> Lines:
        if self._logs:
            return logfile.of_files(list(self._logs), since)
        return logfile.lines(self.postfix, since)

    def _confirm(self, reckoning: Reckoning) -> None:
        captured = reckoning.captured
        reckoning.confirm(self._kept(captured, max(each.time for each in captured)))

    def _kept(self, messages: list[Message], end: float | None) -> set[str]:
        """Return the ids of these that journals have; end: the last one's arrival."""
        ids = {archive_id for each in messages for archive_id in each.archive_ids}
        cut = {e.queue_id: e.time for e in messages if not e.archive_ids}
        begin = min((each.time for each in messages), default=0.0)
        return holdings.kept(self.settings, ids, cut, begin, end)


def filters(found: Configuration) -> tuple[str, ...]:
    """Return the host's content filters other than ours, as transport:nexthop."""
    given = {found.value("content_filter", each) for each in found.services}
    given |= {found.value("content_filter"), found.value("archive_next_filter")}
    ours = (gates.STAMP, "archive:", "archive-relay:", "archive-local:")
    return tuple(sorted(each for each in given if each and not each.startswith(ours)))


@contextlib.contextmanager
def progress(end: float) -> Iterator[Callable[[float], None]]:
    """Yield a function that shows the progress up to a time in the log.

    On a terminal only, and only if the run takes longer than PROGRESS_DELAY.
    """
    started = time.monotonic()
    if not sys.stderr.isatty():
        yield lambda timestamp: None
        return
    with click.progressbar(length=PARTS, label="log", file=sys.stderr) as bar:
        first: list[float] = []

        def show(timestamp: float) -> None:
            first[:] = first or [timestamp]
            done = (timestamp - first[0]) / max(1.0, end - first[0])
            if time.monotonic() - started > PROGRESS_DELAY:
                bar.update(min(PARTS, int(PARTS * done)) - bar.pos)

        yield show
