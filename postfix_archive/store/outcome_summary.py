"""The outcomes of all recipients of one record, and whether they are final.

Filled by store/record; used by whatever shows or reports outcomes. An expanded
recipient is settled when all the recipients that replaced it are.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import NamedTuple

from postfix_archive.message import address, digest
from postfix_archive.store import outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from postfix_archive.message.envelope import Envelope
    from postfix_archive.store.outcome import Outcome

UNKNOWN, MIXED = "unknown", "mixed"  # besides outcome.KINDS


class RecipientResult(NamedTuple):
    """One recipient (text) and its outcome, None while unknown.

    ``depth`` is 0 for a recipient of the envelope, one more for those that it was
    expanded to. ``is_counted`` is false for recipients of a mailed archive copy.
    """

    recipient: str
    original: str
    outcome: Outcome | None
    depth: int
    is_counted: bool

    @property
    def is_settled(self) -> bool:
        """True if the outcome is final."""
        return self.outcome is not None and self.outcome.is_settled

    @property
    def kind(self) -> str:
        """The kind of the outcome, or UNKNOWN."""
        return self.outcome.kind if self.outcome else UNKNOWN


class OutcomeSummary:
    """The recipients of all captures of one record, and their outcomes."""

    __slots__ = ("_captured", "_outcomes")

    def __init__(self) -> None:
        # (queue id of the capture, recipient, original) -> is_counted
        self._captured: dict[tuple[str, str, str], bool] = {}
        # The same key with the parent of an expansion, else empty.
        self._outcomes: dict[tuple[str, str, str, str], Outcome] = {}

    def add_capture(self, envelope: Envelope, *, is_counted: bool) -> None:
        """Add the recipients of one capture."""
        queue_id = address.as_text(envelope.queue_id)
        for recipient in envelope.recipients:
            key = (
                queue_id,
                address.as_text(recipient.final),
                address.as_text(recipient.original or recipient.final),
            )
            self._captured[key] = is_counted or self._captured.get(key, False)

    def add(self, new_outcome: Outcome) -> None:
        """Add an outcome; a settled one is never replaced by a waiting one."""
        original = new_outcome.original or new_outcome.recipient
        key = (
            new_outcome.capture_queue_id,
            new_outcome.recipient,
            original,
            new_outcome.parent,
        )
        previous = self._outcomes.get(key)
        if previous is None or new_outcome.is_settled or not previous.is_settled:
            self._outcomes[key] = new_outcome

    def of_capture(self, queue_id: str) -> OutcomeSummary:
        """Return the recipients with this queue id of the capture, their outcomes.

        Outcomes of an unknown capture belong to the first one.
        """
        known_ids = dict.fromkeys(each for each, _, _ in self._captured)
        is_first = queue_id == next(iter(known_ids), queue_id)
        part = OutcomeSummary()
        part._captured = {
            key: is_counted
            for key, is_counted in self._captured.items()
            if key[0] == queue_id
        }
        part._outcomes = {
            key: each
            for key, each in self._outcomes.items()
            if key[0] == queue_id or is_first and key[0] not in known_ids
        }
        return part

    @property
    def is_settled(self) -> bool:
        """True if the outcomes of all recipients, also expanded ones, are final."""
        settled = [
            each.is_settled for each in self.recipient_results() if each.is_counted
        ]
        return bool(settled) and all(settled)

    @property
    def counts_by_kind(self) -> Counter[str]:
        """The number of recipients with each kind of outcome, or UNKNOWN."""
        return Counter(
            each.kind for each in self.recipient_results() if each.is_counted
        )

    @property
    def overall_kind(self) -> str:
        """One kind for the record: delivered, failed, mixed, waiting or unknown.

        Or expired, discarded, deleted, if that is the outcome of all recipients.
        """
        counts = self.counts_by_kind
        if set(counts) <= {UNKNOWN}:
            return UNKNOWN
        if not self.is_settled:
            return outcome.WAITING
        actions = {outcome.ACTIONS[each] for each in counts}
        failed_action = outcome.ACTIONS[outcome.FAILED]
        if failed_action not in actions:
            return outcome.DELIVERED
        if actions - {failed_action, outcome.EXPANDED}:
            return MIXED
        kinds = {*counts} - {outcome.EXPANDED}
        return kinds.pop() if len(kinds) == 1 else outcome.FAILED

    @property
    def sha256(self) -> str:
        """The SHA-256 (hexadecimal) of all known outcomes of counted recipients."""
        outcomes = [
            each.outcome for each in self.recipient_results() if each.is_counted
        ]
        events = [
            json.dumps(each.event_fields(), sort_keys=True) for each in outcomes if each
        ]
        return digest.sha256_hex("\n".join(sorted(events)).encode())

    def recipient_results(self) -> list[RecipientResult]:
        """Return each recipient with its outcome, before those it was expanded to."""
        expansions: dict[tuple[str, str], list[Outcome]] = {}
        for each in self._outcomes.values():
            expansions.setdefault((each.capture_queue_id, each.parent), []).append(each)
        unmatched = self._unmatched_outcomes()
        first_id = next((queue_id for queue_id, _, _ in self._captured), "")
        results: list[RecipientResult] = []
        for (queue_id, recipient, original), is_counted in self._captured.items():
            known_outcome = self._outcomes.get((queue_id, recipient, original, ""))
            known_outcome = (
                known_outcome
                or unmatched.get((queue_id, recipient))
                or (unmatched.get(("", recipient)) if queue_id == first_id else None)
            )
            results += _with_expansions(
                RecipientResult(recipient, original, known_outcome, 0, is_counted),
                expansions,
            )
        return results

    def _unmatched_outcomes(self) -> dict[tuple[str, str], Outcome]:
        """Return outcomes without an exactly matching recipient.

        The key is (queue id of the capture, empty if unknown; recipient).
        """
        queue_ids = {queue_id for queue_id, _, _ in self._captured}
        return {
            (
                each.capture_queue_id if each.capture_queue_id in queue_ids else "",
                each.recipient,
            ): each
            for key, each in self._outcomes.items()
            if not each.parent and key[:3] not in self._captured
        }


def _with_expansions(
    root: RecipientResult, expansions: dict[tuple[str, str], list[Outcome]]
) -> Iterator[RecipientResult]:
    """Yield a recipient, and after each those that it was expanded to.

    An alias may include itself or one of its parents: each is expanded once.
    """
    visited: set[str] = set()
    stack = [root]
    while stack:
        current = stack.pop()
        yield current
        if current.outcome is not None and current.recipient not in visited:
            visited.add(current.recipient)
            children = expansions.get(
                (current.outcome.capture_queue_id, current.recipient), []
            )
            stack += reversed(
                [
                    *_reported_expansions(current, children),
                    *_unreported_expansions(current, children),
                ]
            )


def _reported_expansions(
    parent: RecipientResult, outcomes: list[Outcome]
) -> Iterator[RecipientResult]:
    for child in outcomes:
        original = child.original or child.recipient
        yield RecipientResult(
            child.recipient, original, child, parent.depth + 1, parent.is_counted
        )


def _unreported_expansions(
    parent: RecipientResult, outcomes: list[Outcome]
) -> Iterator[RecipientResult]:
    """Yield the recipients whose own outcomes are not known yet.

    Only an expanded recipient has such: that of one mapped to one address is its own.
    """
    if parent.kind != outcome.EXPANDED or parent.outcome is None:
        return
    reported = {each.recipient for each in outcomes}
    for recipient in parent.outcome.expanded_to:
        if recipient not in reported:
            yield RecipientResult(
                recipient, recipient, None, parent.depth + 1, parent.is_counted
            )
