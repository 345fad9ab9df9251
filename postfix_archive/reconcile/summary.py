"""The result of a reconcile run, as text and for JSON.

Used by cli/reconcile. The values of summary() are saved for the package status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from postfix_archive import monitoring
from postfix_archive.message import dates
from postfix_archive.message.printable import safe_text
from postfix_archive.reconcile import causes
from postfix_archive.reconcile.causes import KINDS
from postfix_archive.reconcile.totals import Pending, Totals, UnarchivedMessage

MAX_SHOWN = 500  # missing messages in the text; --json has all
KIND_LABELS = {
    causes.NOT_REQUESTED: "not requested",
    causes.ACCEPTED: "accepted missing",
}


@dataclass(frozen=True)
class Result:
    """The result of a run; all times are in seconds since 1970.

    arrival_after_log is when a message arrived that is archived and not in the log, 0
    if there is none: the log is not the one that Postfix writes.
    """

    totals: Totals
    pending: Pending
    since: float
    until: float
    arrival_after_log: float = 0.0

    @property
    def severity(self) -> int:
        """The exit code: 0, 1 or 2."""
        stale = monitoring.WARNING if self.arrival_after_log else monitoring.OK
        return max(stale, self.totals.severity(self.pending))

    def summary(self) -> dict[str, Any]:
        """Return the counts, with the time of the run and the period."""
        return {
            "time": dates.format_rfc3339(self.pending.now),
            "since": dates.format_rfc3339(self.since),
            "until": dates.format_rfc3339(self.until),
            "accepted": self.totals.accepted,
            **{kind: self.totals.counts[kind] for kind in KINDS},
            "unclear": self.totals.unclear,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the whole result for JSON."""
        scan = self.totals.scan
        return {
            "status": monitoring.STATUS_NAMES[self.severity],
            **self.summary(),
            "queued_before_log": scan.queued_before,
            "before_archive": self.totals.before_archive,
            "unreadable_lines": scan.unreadable_count,
            "archived_after_log": (
                dates.format_rfc3339(self.arrival_after_log)
                if self.arrival_after_log
                else None
            ),
            "causes": dict(_count_causes(self.totals.unarchived)),
            "rules": dict(self.totals.rules),
            "acceptances": [
                {**each.to_json(), "messages": count}
                for each, count in self.totals.acceptances.items()
            ],
            "messages": [each.to_json() for each in self.totals.unarchived],
        }

    def text_lines(self) -> Iterator[str]:
        """Yield the whole result as lines of text."""
        period = (
            f"{dates.format_rfc3339(self.since)} to {dates.format_rfc3339(self.until)}"
        )
        yield f"accepted         {self.totals.accepted:9}  {period}"
        for kind in KINDS:
            remark = self._remark(kind)
            count = self.totals.counts[kind]
            yield f"{KIND_LABELS.get(kind, kind):17}{count:9}  {remark}".rstrip()
        yield from self._closing_lines()
        missing = [
            e for e in self.totals.unarchived if e.verdict.kind == causes.MISSING
        ]
        if missing:
            yield ""
        for message in missing[:MAX_SHOWN]:
            yield _message_line(message)
        if len(missing) > MAX_SHOWN:
            yield f"and {len(missing) - MAX_SHOWN} more: --json has them all"

    def _remark(self, kind: str) -> str:
        """Return the remark behind a count."""
        if kind == causes.NOT_REQUESTED:
            return _format_counts(self.totals.rules)
        if kind == causes.ACCEPTED:
            counts = Counter[str]()
            for each, count in self.totals.acceptances.items():
                counts[f"{each.reason} (by {each.by})"] += count
            return _format_counts(+counts)
        messages = [
            each for each in self.totals.unarchived if each.verdict.kind == kind
        ]
        if kind == causes.MISSING:
            return _format_counts(_count_causes(messages))
        waiting_since = min(
            (e.waiting_since for e in messages if e.waiting_since is not None),
            default=None,
        )
        if waiting_since is None:
            return ""
        queues = _format_counts(
            Counter(filter(None, (each.queue for each in messages)))
        )
        oldest = f"oldest since {dates.format_rfc3339(waiting_since)}"
        return f"{queues}; {oldest}" if queues else oldest

    def _closing_lines(self) -> Iterator[str]:
        scan = self.totals.scan
        if not scan.line_count:
            yield (
                "The log has no lines of this Postfix instance: check maillog_file and"
                " syslog_name, or name the log with --log."
            )
        elif self.totals.unclear:
            yield (
                f"Totals do not match: {self.totals.unclear} accepted messages are"
                " not in Postfix's queue, and the log does not say what became of them."
            )
        elif not self.arrival_after_log:
            yield "Totals match."
        if self.arrival_after_log:
            yield (
                "The log ends before mail that was archived at"
                f" {dates.format_rfc3339(self.arrival_after_log)}: Postfix logs"
                " elsewhere; check maillog_file, or name the log with --log."
            )
        if scan.queued_before:
            yield (
                f"{scan.queued_before} messages were already queued when the log"
                " begins; not counted."
            )
        if self.totals.before_archive:
            yield (
                f"{self.totals.before_archive} messages were accepted before the"
                " archive was installed; not counted."
            )
        if scan.unreadable_count:
            yield (
                f"{scan.unreadable_count} log lines of a stamp filter are ambiguous or"
                " truncated; not read."
            )


def _count_causes(messages: list[UnarchivedMessage]) -> Counter[str]:
    names = (e.verdict.cause for e in messages if e.verdict.kind == causes.MISSING)
    return Counter(names)


def _format_counts(counts: Counter[str]) -> str:
    return "; ".join(
        f"{count} {safe_text(name)}" for name, count in counts.most_common()
    )


def _message_line(message: UnarchivedMessage) -> str:
    recipients = (
        f"{message.recipient_count} recipients"
        if message.recipient_count != 1
        else "1 recipient"
    )
    time = dates.format_rfc3339(message.time)
    sender = safe_text(message.sender) or "<>"
    head = f"{time}  {message.queue_id}  {sender}  {recipients}"
    origin = safe_text(f"{message.client}  {message.service}")
    verdict = message.verdict
    return f"{head}  {origin}  {verdict.cause}: {safe_text(verdict.explanation)}"
