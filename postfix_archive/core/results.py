"""What became of all recipients of one record, and whether more can become of them.

Used by record, which fills it, and by everything that shows or reports outcomes. A
recipient that was expanded is settled when all are that took its place.
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

UNKNOWN, MIXED = "unknown", "mixed"  # beside the kinds of outcomes


class Result(NamedTuple):
    """What is known of one recipient, as text; ``outcome`` is None as long as nothing.

    ``depth`` is 0 for a recipient of the envelope, one more for those it was expanded
    to. ``counts`` is false for those to whom an archive copy was passed on.
    """

    recipient: str
    original: str
    outcome: Outcome | None
    depth: int
    counts: bool

    @property
    def is_settled(self) -> bool:
        """True if nothing more can become of it."""
        return self.outcome is not None and self.outcome.is_settled

    @property
    def kind(self) -> str:
        """The kind of its outcome, or UNKNOWN."""
        return self.outcome.kind if self.outcome else UNKNOWN


class Results:
    """The recipients of one record, of all its captures, and their outcomes."""

    __slots__ = ("_captured", "_outcomes")

    def __init__(self) -> None:
        # By queue id of the capture, recipient, original; does the recipient count?
        self._captured: dict[tuple[str, str, str], bool] = {}
        # By the same, and by whom it was expanded from, as a rule nobody.
        self._outcomes: dict[tuple[str, str, str, str], Outcome] = {}

    def capture(self, told: Envelope, *, counts: bool) -> None:
        """Take the recipients of one capture in; see Result for those that count."""
        of = address.as_text(told.queue_id)
        for each in told.recipients:
            key = (
                of,
                address.as_text(each.final),
                address.as_text(each.original or each.final),
            )
            self._captured[key] = counts or self._captured.get(key, False)

    def became(self, found: Outcome) -> None:
        """Take an outcome in; of what is settled none is waiting any more."""
        original = found.original or found.recipient
        key = found.of, found.recipient, original, found.parent
        before = self._outcomes.get(key)
        if before is None or found.is_settled or not before.is_settled:
            self._outcomes[key] = found

    @property
    def is_settled(self) -> bool:
        """True if nothing more can become of any recipient, those expanded included."""
        found = [each.is_settled for each in self.all() if each.counts]
        return bool(found) and all(found)

    @property
    def kinds(self) -> Counter[str]:
        """How many recipients have an outcome of each kind, or of UNKNOWN."""
        return Counter(each.kind for each in self.all() if each.counts)

    @property
    def word(self) -> str:
        """Delivered, failed, mixed; waiting while not settled; unknown at first."""
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
        """A SHA-256 that names all that is known of the recipients that count."""
        found = [each.outcome for each in self.all() if each.counts]
        told = [json.dumps(e.words(), sort_keys=True) for e in found if e]
        return digest.hex_of("\n".join(sorted(told)).encode())

    def all(self) -> list[Result]:
        """Return what is known of each recipient, each before those it expanded to."""
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
        """Return what fits no recipient exactly, by queue id (if known), recipient."""
        queue_ids = {of for of, _, _ in self._captured}
        return {
            (each.of if each.of in queue_ids else "", each.recipient): each
            for key, each in self._outcomes.items()
            if not each.parent and key[:3] not in self._captured
        }


def _expanded(
    top: Result, below: dict[tuple[str, str], list[Outcome]]
) -> Iterator[Result]:
    """Give a recipient, and behind each those that it was expanded to.

    An alias may name itself or one above: nobody is followed twice.
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
    for each in above.outcome.expanded_to if above.outcome else ():
        if each not in told:
            yield Result(each, each, None, above.depth + 1, above.counts)
