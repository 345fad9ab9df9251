"""Counts the messages that Postfix accepted by what became of them in the archive.

Used by cli/reconcile. Keeps an entry for each message that is not safely archived, and
only the number of all others. The caller must read journals, queue and fallback
directory after the log: otherwise mail in transit counts as missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from postfix_archive.core import causes, finding, queueid, rescuing, trace
from postfix_archive.core.accepted import Message
from postfix_archive.core.causes import KINDS, Judge, Verdict
from postfix_archive.core.observed import Waiting
from postfix_archive.core.reconciling import Reconciling

UNCLEAR = "unclear"  # the log ends or is incomplete before it says what became of it


@dataclass(frozen=True)
class Case:
    """A message that is not safely archived; time is in seconds since 1970."""

    queue_id: str
    time: float
    sender: str
    recipients: int
    verdict: Verdict
    where: str = ""  # the queue in which it or its capsule waits: deferred, hold…
    since: float | None = None  # seconds since 1970

    def words(self) -> dict[str, str | int]:
        """Return it for JSON, without empty values."""
        words: dict[str, str | int] = {
            "queue_id": self.queue_id,
            "time": trace.timestamp(self.time),
            "sender": self.sender,
            "recipients": self.recipients,
            "kind": self.verdict.kind,
            "way": self.verdict.way,
            "cause": self.verdict.cause,
            "where": self.where,
            "since": "" if self.since is None else trace.timestamp(self.since),
        }
        return {name: value for name, value in words.items() if value != ""}


@dataclass(frozen=True)
class Held:
    """Messages and capsules that wait, as they were at one time."""

    queue: Mapping[str, Waiting]  # Postfix's queue, by queue id
    fallback: Mapping[str, float]  # archive id: since when, in the fallback directory
    now: float  # when both were read; seconds since 1970
    patience: float = rescuing.NOTICED  # seconds that mail may wait without a warning

    def waiting(self, queue_id: str) -> Waiting | None:
        """Return the queued message with an id, or the one that its file has now."""
        if not queue_id or queue_id in self.queue:
            return self.queue.get(queue_id)
        name = queue_id.encode()
        for other, each in self.queue.items():
            if queueid.is_same(name, other.encode()):
                return each
        return None


class Reckoning:
    """Classifies and counts the messages accepted from ``since`` to before ``until``.

    ``unarchived`` are those that are neither archived nor without a request; ``rules``
    counts those without a request by the rule. Call add() and confirm() while reading
    the log, then add_remaining() and finish() once.
    """

    def __init__(
        self, log: Reconciling, judge: Judge, since: float, until: float
    ) -> None:
        self.log = log
        self.counts: Counter[str] = Counter({kind: 0 for kind in KINDS})
        self.rules: Counter[str] = Counter()
        self.cases: list[Case] = []
        self.accepted = 0
        self._judge = judge
        self._since = since
        self._until = until
        self._captured: list[Message] = []  # not yet looked up in the journals
        self._late: list[Message] = []  # not found there, or its capsule waits

    @property
    def unclear(self) -> int:
        """How many accepted messages have no kind."""
        return self.accepted - sum(self.counts[kind] for kind in KINDS)

    @property
    def captured(self) -> list[Message]:
        """Captured messages that are not yet looked up in the journals."""
        return self._captured

    def add(self, messages: Iterable[Message]) -> None:
        """Classify messages about which the log says no more."""
        for each in messages:
            if self._counts(each):
                self.accepted += 1
                self._sort(each)

    def _counts(self, message: Message) -> bool:
        return message.accepted and self._since <= message.time < self._until

    def confirm(self, kept: Collection[str]) -> None:
        """Count the archived ones; journal_ids are archive ids and queue ids."""
        capsules = self.log.capsules
        for each in self._captured:
            settled = all(map(capsules.is_settled, each.archive_ids))
            if settled and _is_kept(each, kept):
                self.counts[causes.ARCHIVED] += 1
            else:
                self._late.append(each)
        self._captured = []

    def late(self) -> list[Message]:
        """Return the captured messages that are not known to be archived."""
        return self._late + self._captured

    def end(self, held: Held) -> None:
        """Classify the messages that are left at the end of the log."""
        self.log.held(held.queue)
        for each in list(self.log.rest()):
            if self._counts(each):
                self.accepted += 1
                self._sort_open(each, held)

    def close(self, held: Held, kept: Collection[str]) -> None:
        """Classify all captured messages that are not confirmed."""
        for each in self.late():
            self._close(each, held, kept)
        self._late = self._captured = []
        self.cases.sort(key=lambda each: each.time)

    def severity(self, held: Held) -> int:
        """Return the exit code: 2 if mail is missing, 1 if some waits too long."""
        if self.counts[causes.MISSING]:
            return finding.CRITICAL
        late = any(
            each.since is not None and held.now - each.since >= held.patience
            for each in self.cases
        )
        some = late or self.counts[causes.RESCUED] or self.unclear or not self.log.lines
        return finding.WARNING if some else finding.OK

    def _sort(self, message: Message) -> None:
        if message.archive_ids or message.cut:
            self._captured.append(message)
        else:
            self._count(message, self._judge.unarchived(message))

    def _sort_open(self, message: Message, held: Held) -> None:
        goes_around = message.went or message.action or message.discarded
        if message.stamped or message.is_over or goes_around:
            self._sort(message)
            return
        found = held.waiting(message.now_in)
        if found is None:
            return
        message.sender = message.sender or found.sender
        message.recipients = message.recipients or len(found.recipients)
        if self._judge.is_led(message) or message.tried:
            cause = f"not captured yet: {found.reason}"
            self._waits(message, Verdict(causes.WAITING, "", cause), found, held)
        else:
            self._sort(message)

    def _close(self, message: Message, held: Held, kept: Collection[str]) -> None:
        capsules = self.log.capsules
        queue_ids = map(capsules.queue_id, message.archive_ids)
        found = next(filter(None, map(held.waiting, queue_ids)), None)
        aside = [each for each in message.archive_ids if each in held.fallback]
        if found is not None:
            cause = f"capsule {found.queue_id} waits: {found.reason}"
            self._waits(message, Verdict(causes.WAITING, "", cause), found, held)
        elif aside:
            verdict = Verdict(causes.RESCUED, "", "in the fallback directory")
            self._count(message, verdict, since=held.fallback[aside[0]])
        elif _is_kept(message, kept) or _is_kept(message, capsules.mailed):
            self.counts[causes.ARCHIVED] += 1
        else:
            self._count(message, self._gone(message, kept))

    def _gone(self, message: Message, kept: Collection[str]) -> Verdict:
        for each in message.archive_ids:
            if each not in kept:
                return causes.capsule_gone(each, self.log.capsules.ends.get(each))
        return causes.said_too_long(message)

    def _waits(
        self, message: Message, verdict: Verdict, found: Waiting, held: Held
    ) -> None:
        since = held.now - found.age
        self._count(message, verdict, where=found.queue, since=since)

    def _count(
        self,
        message: Message,
        verdict: Verdict,
        *,
        where: str = "",
        since: float | None = None,
    ) -> None:
        self.counts[verdict.kind] += 1
        if verdict.kind == causes.NOT_REQUESTED:
            self.rules[verdict.cause] += 1
            return
        case = Case(
            message.queue_id,
            message.time,
            message.sender,
            message.recipients,
            verdict,
            where,
            since,
        )
        self.cases.append(case)


def _is_kept(message: Message, kept: Collection[str]) -> bool:
    """Return whether all captures of a message are in a journal."""
    if message.archive_ids:
        return all(each in kept for each in message.archive_ids)
    return message.queue_id in kept
