"""Counts the messages that Postfix accepted by what became of them in the archive.

Used by cli/reconcile. Keeps an entry for each message that is not safely archived, and
only the number of all others. The caller must read journals, queue and fallback
directory after the log: otherwise mail in transit counts as missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from postfix_archive import monitoring
from postfix_archive.message import dates, queue_ids
from postfix_archive.postfix.queued_message import QueuedMessage
from postfix_archive.reconcile import acceptances, causes
from postfix_archive.reconcile.acceptances import Acceptance, Pattern
from postfix_archive.reconcile.causes import KINDS, Classifier, Verdict
from postfix_archive.reconcile.log_scan import LogScan
from postfix_archive.reconcile.messages import Message
from postfix_archive.rescue import rescue_plan

# Seconds between the installation and the arrival of the first message after it, which
# is that of the installation itself.
BEGIN_SLACK = 5.0


@dataclass(frozen=True)
class UnarchivedMessage:
    """A message that is not safely archived; time is in seconds since 1970."""

    queue_id: str
    time: float
    sender: str
    recipient_count: int
    verdict: Verdict
    client: str = ""  # IP address, or uid=N for sendmail(1)
    service: str = ""  # as in the log: postfix/smtpd
    queue: str = ""  # the queue in which it or its capsule waits: deferred, hold…
    waiting_since: float | None = None  # seconds since 1970

    def to_json(self) -> dict[str, str | int]:
        """Return it for JSON, without empty values."""
        fields: dict[str, str | int] = {
            "queue_id": self.queue_id,
            "time": dates.format_rfc3339(self.time),
            "sender": self.sender,
            "recipients": self.recipient_count,
            "client": self.client,
            "service": self.service,
            "kind": self.verdict.kind,
            "cause": self.verdict.cause,
            "explanation": self.verdict.explanation,
            "queue": self.queue,
            "waiting_since": (
                ""
                if self.waiting_since is None
                else dates.format_rfc3339(self.waiting_since)
            ),
        }
        return {name: value for name, value in fields.items() if value != ""}


@dataclass(frozen=True)
class Pending:
    """Messages and capsules that wait, as they were at one time."""

    queue: Mapping[str, QueuedMessage]  # Postfix's queue, by queue id
    fallback: Mapping[str, float]  # archive id: since when, in the fallback directory
    now: float  # when both were read; seconds since 1970
    max_wait: float = (
        rescue_plan.ALARM_AGE
    )  # seconds that mail may wait without a warning

    def find_queued(self, queue_id: str) -> QueuedMessage | None:
        """Return the queued message with an id, or the one that its file has now."""
        if not queue_id or queue_id in self.queue:
            return self.queue.get(queue_id)
        wanted = queue_id.encode()
        for current_id, message in self.queue.items():
            if queue_ids.is_same(wanted, current_id.encode()):
                return message
        return None


class Totals:
    """Classifies and counts the messages accepted from ``since`` to before ``until``.

    ``unarchived`` are those that are neither archived nor without a request; ``rules``
    counts those without a request by the rule, ``acceptances`` those that an admin
    accepts as unarchived. ``before_archive`` counts those that
    passed no stamp filter before archive_begin, since when this host archives. Call
    add() and confirm() while reading the log, then add_remaining() and finish() once.
    """

    def __init__(
        self,
        scan: LogScan,
        classifier: Classifier,
        since: float,
        until: float,
        *,
        archive_begin: float = 0.0,
        accepted: Sequence[Acceptance] = (),
    ) -> None:
        self.scan = scan
        self.counts: Counter[str] = Counter({kind: 0 for kind in KINDS})
        self.rules: Counter[str] = Counter()
        self.acceptances: dict[Acceptance, int] = dict.fromkeys(accepted, 0)
        self.unarchived: list[UnarchivedMessage] = []
        self.accepted = self.before_archive = 0
        self._archive_begin = archive_begin
        self._classifier = classifier
        self._since = since
        self._until = until
        self._captured: list[Message] = []  # not yet looked up in the journals
        self._unconfirmed: list[Message] = []  # not found there, or its capsule waits

    @property
    def unclear(self) -> int:
        """How many accepted messages have no kind: the log does not say what became."""
        return self.accepted - sum(self.counts[kind] for kind in KINDS)

    @property
    def captured(self) -> list[Message]:
        """Captured messages that are not yet looked up in the journals."""
        return self._captured

    def add(self, messages: Iterable[Message]) -> None:
        """Classify messages about which the log says no more."""
        for message in messages:
            if self._is_in_period(message):
                self.accepted += 1
                self._classify(message)

    def _is_in_period(self, message: Message) -> bool:
        """Tell whether to count a message; count those from before the archive."""
        if not message.is_accepted or not self._since <= message.time < self._until:
            return False
        has_met_filter = message.is_stamped or message.has_failed_capture
        is_before = message.time < self._archive_begin - BEGIN_SLACK
        if is_before and not has_met_filter and not message.is_reinjected:
            self.before_archive += 1
            return False
        return True

    def confirm(self, journal_ids: Collection[str]) -> None:
        """Count the archived ones; journal_ids are archive ids and queue ids."""
        capsules = self.scan.capsules
        for message in self._captured:
            are_settled = all(map(capsules.is_settled, message.archive_ids))
            if are_settled and _is_in_journal(message, journal_ids):
                self.counts[causes.ARCHIVED] += 1
            else:
                self._unconfirmed.append(message)
        self._captured = []

    def unconfirmed(self) -> list[Message]:
        """Return the captured messages that are not known to be archived."""
        return self._unconfirmed + self._captured

    def add_remaining(self, pending: Pending) -> None:
        """Classify the messages that are left at the end of the log."""
        self.scan.accept_queued(pending.queue)
        for message in list(self.scan.remaining()):
            if self._is_in_period(message):
                self.accepted += 1
                self._classify_remaining(message, pending)

    def finish(self, pending: Pending, journal_ids: Collection[str]) -> None:
        """Classify all captured messages that are not confirmed."""
        for message in self.unconfirmed():
            self._classify_captured(message, pending, journal_ids)
        self._unconfirmed = self._captured = []
        self.unarchived.sort(key=lambda message: message.time)

    def severity(self, pending: Pending) -> int:
        """Return the exit code: 2 if mail is missing, 1 if some waits too long."""
        if self.counts[causes.MISSING]:
            return monitoring.CRITICAL
        is_late = any(
            each.waiting_since is not None
            and pending.now - each.waiting_since >= pending.max_wait
            for each in self.unarchived
        )
        needs_warning = (
            is_late
            or self.counts[causes.RESCUED]
            or self.unclear
            or not self.scan.line_count
        )
        return monitoring.WARNING if needs_warning else monitoring.OK

    def _classify(self, message: Message) -> None:
        if message.archive_ids:
            self._captured.append(message)
        else:
            self._count(message, self._classifier.classify_unarchived(message))

    def _classify_remaining(self, message: Message, pending: Pending) -> None:
        has_other_route = message.relay or message.action_text or message.discard_text
        if message.is_stamped or message.has_left_queue or has_other_route:
            self._classify(message)
            return
        queued = pending.find_queued(message.current_queue_id)
        if queued is None:
            return
        message = replace(
            message,
            sender=message.sender or queued.sender,
            recipient_count=message.recipient_count or len(queued.recipients),
        )
        if self._classifier.has_stamp_filter(message) or message.has_failed_capture:
            explanation = f"not captured yet: {queued.delay_reason}"
            self._count_waiting(
                message, Verdict(causes.WAITING, "", explanation), queued, pending
            )
        else:
            self._classify(message)

    def _classify_captured(
        self, message: Message, pending: Pending, journal_ids: Collection[str]
    ) -> None:
        capsules = self.scan.capsules
        capsule_queue_ids = map(capsules.queue_id, message.archive_ids)
        queued = next(filter(None, map(pending.find_queued, capsule_queue_ids)), None)
        in_fallback = [each for each in message.archive_ids if each in pending.fallback]
        if queued is not None:
            explanation = f"capsule {queued.queue_id} waits: {queued.delay_reason}"
            self._count_waiting(
                message, Verdict(causes.WAITING, "", explanation), queued, pending
            )
        elif in_fallback:
            verdict = Verdict(causes.RESCUED, "", "in the fallback directory")
            self._count(
                message, verdict, waiting_since=pending.fallback[in_fallback[0]]
            )
        elif _is_in_journal(message, journal_ids) or _is_in_journal(
            message, capsules.mailed
        ):
            self.counts[causes.ARCHIVED] += 1
        else:
            self._count(message, self._capture_missing(message, journal_ids))

    def _capture_missing(
        self, message: Message, journal_ids: Collection[str]
    ) -> Verdict:
        archive_id = next(e for e in message.archive_ids if e not in journal_ids)
        return causes.capsule_missing(
            archive_id, self.scan.capsules.ends.get(archive_id)
        )

    def _count_waiting(
        self,
        message: Message,
        verdict: Verdict,
        queued: QueuedMessage,
        pending: Pending,
    ) -> None:
        waiting_since = pending.now - queued.age
        self._count(message, verdict, queue=queued.queue, waiting_since=waiting_since)

    def _count(
        self,
        message: Message,
        verdict: Verdict,
        *,
        queue: str = "",
        waiting_since: float | None = None,
    ) -> None:
        service = f"{message.service}/{message.daemon}"
        if verdict.kind == causes.MISSING:
            verdict = self._accept(message, service, verdict)
        self.counts[verdict.kind] += 1
        if verdict.kind == causes.NOT_REQUESTED:
            self.rules[verdict.explanation] += 1
            return
        unarchived = UnarchivedMessage(
            message.queue_id,
            message.time,
            message.sender,
            message.recipient_count,
            verdict,
            message.client,
            service,
            queue,
            waiting_since,
        )
        self.unarchived.append(unarchived)

    def _accept(self, message: Message, service: str, verdict: Verdict) -> Verdict:
        """Return the verdict on a missing message, which an admin may have accepted."""
        pattern = Pattern(verdict.cause, message.sender, message.client, service)
        accepted = acceptances.find([*self.acceptances], pattern, message.time)
        if accepted is None:
            return verdict
        self.acceptances[accepted] += 1
        return replace(verdict, kind=causes.ACCEPTED)


def _is_in_journal(message: Message, journal_ids: Collection[str]) -> bool:
    """Return whether all captures of a message are in a journal."""
    return all(each in journal_ids for each in message.archive_ids)
