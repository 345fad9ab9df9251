"""The result of a reconcile run, as text and for JSON.

Used by cli/reconcile. The values of summary() are saved for the package status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from postfix_archive.core import causes, finding, record, trace
from postfix_archive.core.causes import KINDS
from postfix_archive.core.reckoning import Case, Held, Reckoning

SHOWN = 500  # missing messages in the text; --json has all
NAMES = {causes.NOT_REQUESTED: "not requested"}


@dataclass(frozen=True)
class Found:
    """The result of a run; since and until are in seconds since 1970."""

    reckoning: Reckoning
    held: Held
    since: float
    until: float

    @property
    def severity(self) -> int:
        """The exit code: 0, 1 or 2."""
        return self.reckoning.severity(self.held)

    def summary(self) -> dict[str, Any]:
        """Return the counts, with the time of the run and the period."""
        return {
            "time": trace.timestamp(self.held.now),
            "since": trace.timestamp(self.since),
            "until": trace.timestamp(self.until),
            "accepted": self.reckoning.accepted,
            **{kind: self.reckoning.counts[kind] for kind in KINDS},
            "unclear": self.reckoning.unclear,
        }

    def words(self) -> dict[str, Any]:
        """Return the whole result for JSON."""
        log = self.reckoning.log
        return {
            "status": finding.NAMES[self.severity],
            **self.summary(),
            "begun_before": log.before,
            "not_understood": log.not_understood,
            "ways": dict(_ways(self.reckoning.cases)),
            "rules": dict(self.reckoning.rules),
            "messages": [each.words() for each in self.reckoning.cases],
        }

    def lines(self) -> Iterator[str]:
        """Yield the whole result as lines of text."""
        times = f"{trace.timestamp(self.since)} to {trace.timestamp(self.until)}"
        yield f"accepted       {self.reckoning.accepted:9}  {times}"
        for kind in KINDS:
            more = self._more(kind)
            count = self.reckoning.counts[kind]
            yield f"{NAMES.get(kind, kind):15}{count:9}  {more}".rstrip()
        yield from self._sum()
        cases = [e for e in self.reckoning.cases if e.verdict.kind == causes.MISSING]
        if cases:
            yield ""
        for each in cases[:SHOWN]:
            yield _row(each)
        if len(cases) > SHOWN:
            yield f"and {len(cases) - SHOWN} more: --json has them all"

    def _more(self, kind: str) -> str:
        """Return the remark behind a count."""
        if kind == causes.NOT_REQUESTED:
            return _counted(self.reckoning.rules)
        cases = [each for each in self.reckoning.cases if each.verdict.kind == kind]
        if kind == causes.MISSING:
            return _counted(_ways(cases))
        since = min((e.since for e in cases if e.since is not None), default=None)
        if since is None:
            return ""
        places = _counted(Counter(filter(None, (each.where for each in cases))))
        oldest = f"oldest since {trace.timestamp(since)}"
        return f"{places}; {oldest}" if places else oldest

    def _sum(self) -> Iterator[str]:
        log = self.reckoning.log
        if not log.lines:
            yield (
                "The log has no lines of this Postfix instance: check maillog_file and"
                " syslog_name, or name the log with --log."
            )
        elif self.reckoning.unclear:
            yield (
                f"Totals do not match: {self.reckoning.unclear} accepted messages are"
                " not in Postfix's queue, and the log does not say what became of them."
            )
        else:
            yield "Totals match."
        if log.before:
            yield (
                f"{log.before} messages were already queued when the log"
                " begins; not counted."
            )
        if log.not_understood:
            yield (
                f"{log.not_understood} log lines of a stamp filter are ambiguous or"
                " truncated; not read."
            )


def _ways(cases: list[Case]) -> Counter[str]:
    found = (e.verdict.way for e in cases if e.verdict.kind == causes.MISSING)
    return Counter(found)


def _counted(counts: Counter[str]) -> str:
    return "; ".join(f"{count} {_plain(name)}" for name, count in counts.most_common())


def _row(case: Case) -> str:
    recipients = (
        f"{case.recipients} recipients" if case.recipients != 1 else "1 recipient"
    )
    when = trace.timestamp(case.time)
    sender = _plain(case.sender) or "<>"
    head = f"{when}  {case.queue_id}  {sender}  {recipients}"
    return f"{head}  {case.verdict.way}: {_plain(case.verdict.cause)}"


def _plain(text: str) -> str:
    """Return text from a log or a table, safe to print on a terminal."""
    return record.shown(text.encode("utf-8", "surrogateescape"))
