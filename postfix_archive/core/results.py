"""The outcomes of all recipients of one record, and whether they are final.

Filled by store/record; used by whatever shows or reports outcomes. An expanded
recipient is settled when all the recipients that replaced it are.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import NamedTuple

from postfix_archive.core import address, digest, outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from postfix_archive.core.envelope import Envelope
    from postfix_archive.core.outcome import Outcome

UNKNOWN, MIXED = "unknown", "mixed"  # besides outcome.KINDS


class Result(NamedTuple):
    """One recipient (text) and its outcome, None while unknown.

    ``depth`` is 0 for a recipient of the envelope, one more for those that it was
    expanded to. ``is_counted`` is false for recipients of a mailed archive copy.
    """

    recipient: str
    original: str
    outcome: Outcome | None
    depth: int
    counts: bool

    @property
    def is_settled(self) -> bool:
        """True if the outcome is final."""
        return self.outcome is not None and self.outcome.is_settled

    @property
    def kind(self) -> str:
        """The kind of the outcome, or UNKNOWN."""
        return self.outcome.kind if self.outcome else UNKNOWN


class Results:
    """The recipients of all captures of one record, and their outcomes."""

    __slots__ = ("_captured", "_outcomes")

    def __init__(self) -> None:
        # (queue id of the capture, recipient, original) -> is_counted
        self._captured: dict[tuple[str, str, str], bool] = {}
        # The same key with the parent of an expansion, else empty.
        self._outcomes: dict[tuple[str, str, str, str], Outcome] = {}

    def capture(self, told: Envelope, *, counts: bool) -> None:
        """Add the recipients of one capture."""
        of = address.as_text(told.queue_id)
        for each in told.recipients:
            key = (
                of,
                address.as_text(each.final),
                address.as_text(each.original or each.final),
            )
            self._captured[key] = counts or self._captured.get(key, False)

    def became(self, found: Outcome) -> None:
        """Add an outcome; a settled one is never replaced by a waiting one."""
        original = found.original or found.recipient
        key = found.of, found.recipient, original, found.parent
        before = self._outcomes.get(key)
        if before is None or found.is_settled or not before.is_settled:
            self._outcomes[key] = found

    @property
    def is_settled(self) -> bool:
        """True if the outcomes of all recipients, also expanded ones, are final."""
        found = [each.is_settled for each in self.all() if each.counts]
        return bool(found) and all(found)

    @property
    def kinds(self) -> Counter[str]:
        """The number of recipients with each kind of outcome, or UNKNOWN."""
        return Counter(each.kind for each in self.all() if each.counts)

    @property
    def word(self) -> str:
        """One kind for the record: delivered, failed, mixed, waiting or unknown."""
        kinds = self.kinds
        if set(kinds) <= {UNKNOWN}:
            return UNKNOWN
        if not self.is_settled:
            return outcome.WAITING
        actions = {outcome.ACTIONS[each] for each in kinds}
        failed = outcome.ACTIONS[outcome.FAILED]
        if failed not in actions:
            return outcome.DELIVERED
        return MIXED if actions - {failed, outcome.EXPANDED} else outcome.FAILED

    @property
    def covers(self) -> str:
        """The SHA-256 (hexadecimal) of all known outcomes of counted recipients."""
        found = [each.outcome for each in self.all() if each.counts]
        told = [json.dumps(each.words(), sort_keys=True) for each in found if each]
        return digest.hex_of("\n".join(sorted(told)).encode())

    def all(self) -> list[Result]:
        """Return each recipient with its outcome, before those it was expanded to."""
        below: dict[tuple[str, str], list[Outcome]] = {}
        for each in self._outcomes.values():
            below.setdefault((each.of, each.parent), []).append(each)
        strays = self._strays()
        found: list[Result] = []
        for (of, recipient, original), counts in self._captured.items():
            one = self._outcomes.get((of, recipient, original, ""))
            one = one or strays.get((of, recipient)) or strays.get(("", recipient))
            found += _expanded(Result(recipient, original, one, 0, counts), below)
        return found

    def _strays(self) -> dict[tuple[str, str], Outcome]:
        """Return outcomes without an exactly matching recipient.

        The key is (queue id of the capture, empty if unknown; recipient).
        """
        queue_ids = {of for of, _, _ in self._captured}
        return {
            (each.of if each.of in queue_ids else "", each.recipient): each
            for key, each in self._outcomes.items()
            if not each.parent and key[:3] not in self._captured
        }


def _expanded(
    top: Result, below: dict[tuple[str, str], list[Outcome]]
) -> Iterator[Result]:
    """Yield a recipient, and after each those that it was expanded to.

    An alias may include itself or one of its parents: each is expanded once.
    """
    followed: set[str] = set()
    left = [top]
    while left:
        found = left.pop()
        yield found
        if found.outcome is not None and found.recipient not in followed:
            followed.add(found.recipient)
            known = below.get((found.outcome.of, found.recipient), [])
            left += reversed([*_told(found, known), *_untold(found, known)])


def _told(above: Result, known: list[Outcome]) -> Iterator[Result]:
    for each in known:
        original = each.original or each.recipient
        yield Result(each.recipient, original, each, above.depth + 1, above.counts)


def _untold(above: Result, known: list[Outcome]) -> Iterator[Result]:
    told = {each.recipient for each in known}
    for recipient in above.outcome.expanded_to if above.outcome else ():
        if recipient not in told:
            yield Result(recipient, recipient, None, above.depth + 1, above.counts)
