"""What became of one recipient of a captured message, over all its queue files.

Used by front/outcomes. Passage has what the log says; here it is judged. Nothing is
settled before it is certain: a recipient whose message is with a content filter, or of
whom more lines may come, is waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from postfix_archive.core import outcome, queuefile, relays, request, trace
from postfix_archive.core.outcome import Outcome
from postfix_archive.core.passage import Passage
from postfix_archive.core.queuefile import Entry, QueueFile

MOMENT = 5.0  # seconds: local(8) says all of one delivery at once
DEPTH = 50  # queue files in a row; hopcount_limit
IN_QUEUE = "in Postfix's queue, not tried yet"
WITH_FILTER = "given to a content filter, which has not given it back yet"
DELETED = "deleted from the queue by the postmaster"
THROWN_AWAY = "thrown away by a DISCARD action"
SAYS_DISCARDED = "discarded"  # amavisd-new: 250 2.7.0 Ok, discarded, id=…
EXPIRED = "expired in the queue; the last try: "
UNKNOWN = "the log does not say what became of it"


@dataclass(frozen=True)
class Leaf:
    """Where one branch of a recipient's way has ended so far."""

    recipient: str
    kind: str
    queue_id: str
    at: float
    status: str = ""
    remote: str = ""
    reply: str = ""
    tries: int = 1


class Resolver:
    """Judges the recipients of one captured message."""

    def __init__(self, passage: Passage, captured: QueueFile, *, of: str) -> None:
        """Begin; of is the queue id that the captured envelope has."""
        self._passage = passage
        self._queue = passage.queue
        self._captured = captured
        self._of = of

    def outcomes(self, recipient: str, original: str) -> list[Outcome]:
        """Return what became of a recipient: one outcome, or one and its children.

        recipient and original are as the captured envelope has them. Nothing if nothing
        has been tried yet.
        """
        leaves = list(self._leaves(self._captured, recipient, original, 0))
        if not leaves:
            return []
        one = self._told(recipient, original, leaves)
        if one.kind != outcome.EXPANDED:
            return [one]
        children = [
            replace(self._of_leaf(each), recipient=each.recipient, parent=recipient)
            for each in leaves
        ]
        return [one, *children]

    def all(self) -> list[Outcome]:
        """Return what became of everybody; nothing while somebody is not settled."""
        found: list[Outcome] = []
        if len(self._captured.entries) < self._captured.count:
            return []
        for each in self._captured.entries:
            if each.recipient.endswith(request.REQUESTS):
                continue
            told = self.outcomes(each.recipient, each.original)
            if not told or not told[0].is_settled:
                return []
            found += told
        return found

    def _told(self, recipient: str, original: str, leaves: list[Leaf]) -> Outcome:
        """Return the recipient's own outcome out of those of all branches."""
        places = tuple(dict.fromkeys(each.recipient for each in leaves))
        moved = places if places != (recipient,) else ()
        waiting = [each for each in leaves if each.kind == outcome.WAITING]
        shown = waiting[0] if waiting else max(leaves, key=lambda each: each.at)
        told = replace(
            self._of_leaf(shown),
            recipient=recipient,
            original=original,
            expanded_to=() if waiting else moved,
        )
        if len(leaves) > 1 and not waiting:
            return replace(told, kind=outcome.EXPANDED, remote="", reply="", status="")
        return told

    def _of_leaf(self, leaf: Leaf) -> Outcome:
        return Outcome(
            recipient=leaf.recipient,
            kind=leaf.kind,
            of=self._of,
            queue_id=leaf.queue_id,
            at=trace.timestamp(leaf.at),
            status=leaf.status,
            remote=leaf.remote,
            reply=leaf.reply,
            tries=leaf.tries,
        )

    # --- the way ----------------------------------------------------------------------

    def _leaves(
        self, file: QueueFile, recipient: str, original: str, depth: int
    ) -> Iterator[Leaf]:
        """Give where a recipient's mail is now, from this queue file on."""
        if depth > DEPTH:
            return
        if file.end == queuefile.REQUEUED:
            yield from self._requeued(file, recipient, original, depth)
            return
        mine = [each for each in file.entries if _is_for(each, recipient, original)]
        if not mine:
            yield from self._untried(file, recipient)
            return
        more = self._may_grow(file, mine)
        for entry in mine:
            for leaf in self._branches(file, entry, depth):
                yield replace(leaf, kind=outcome.WAITING) if more else leaf

    def _requeued(
        self, file: QueueFile, recipient: str, original: str, depth: int
    ) -> Iterator[Leaf]:
        """postsuper -r: those who have it are done, the others are in the next file."""
        done = [
            each
            for each in file.entries
            if _is_for(each, recipient, original) and each.status in ("sent", "bounced")
        ]
        for entry in done:
            yield from self._branches(file, entry, depth)
        later = [
            each for each in self._queue.named(file.children) if each.came == "pickup"
        ]
        if done:
            return
        if not later:
            yield Leaf(recipient, outcome.WAITING, file.queue_id, file.ended)
        for each in later:
            yield from self._leaves(each, recipient, original, depth + 1)

    def _untried(self, file: QueueFile, recipient: str) -> Iterator[Leaf]:
        if file.end == queuefile.DELETED:
            yield Leaf(
                recipient, outcome.DELETED, file.queue_id, file.ended, reply=DELETED
            )
        elif file.end == queuefile.DISCARDED:
            yield Leaf(
                recipient,
                outcome.DISCARDED,
                file.queue_id,
                file.ended,
                reply=THROWN_AWAY,
            )
        elif file.end == queuefile.REMOVED:
            yield Leaf(
                recipient, outcome.WAITING, file.queue_id, file.ended, reply=UNKNOWN
            )
        elif file.is_held:
            yield Leaf(
                recipient,
                outcome.WAITING,
                file.queue_id,
                file.begun,
                reply=outcome.ON_HOLD,
            )

    def _branches(self, file: QueueFile, entry: Entry, depth: int) -> Iterator[Leaf]:
        """Give where the mail of one entry of a queue file is now."""
        if entry.status != "sent":
            yield self._unsent(file, entry)
            return
        if self._is_final(file, entry):
            yield _leaf(file, entry, _taken(entry))
            if entry.daemon != "local" or not entry.links:
                return
        following = self._following(file, entry)
        if not following:
            said = SAYS_DISCARDED in entry.reply
            kind = outcome.DISCARDED if said else outcome.WAITING
            yield _leaf(file, entry, kind, reply="" if said else WITH_FILTER)
        for each in following:
            yield from self._further(each, entry, depth)

    def _following(self, file: QueueFile, entry: Entry) -> list[QueueFile]:
        """Return the queue files in which a recipient goes on."""
        known = self._queue.named(entry.links)
        if known and not self._passage.is_filter(entry.relay):
            return known
        return (
            known if entry.daemon == "local" else self._passage.came_back(file, entry)
        )

    def _further(self, file: QueueFile, entry: Entry, depth: int) -> Iterator[Leaf]:
        """Go on in the next queue file; all of what local(8) forwards is of one."""
        if entry.daemon != "local":
            yield from self._leaves(file, entry.recipient, entry.original, depth + 1)
            return
        if not file.entries:
            yield from self._untried(file, entry.recipient)
            if file.end not in queuefile.ENDS and not file.is_held:
                yield Leaf(
                    entry.recipient,
                    outcome.WAITING,
                    file.queue_id,
                    file.begun,
                    reply=IN_QUEUE,
                )
        for each in file.entries:
            for leaf in self._branches(file, each, depth + 1):
                more = not file.end
                yield replace(leaf, kind=outcome.WAITING) if more else leaf

    def _is_final(self, file: QueueFile, entry: Entry) -> bool:
        """Tell whether a delivery that went well is the end of the way on this host."""
        if relays.is_stamp(entry.relay) or self._passage.is_filter(entry.relay):
            return False
        if entry.daemon == "local":
            return entry.delivered or not entry.links
        if relays.is_here(entry.relay) and self._passage.offspring(file):
            return False
        return not entry.links

    def _unsent(self, file: QueueFile, entry: Entry) -> Leaf:
        if entry.status == "bounced":
            return _leaf(file, entry, outcome.FAILED)
        if file.expired:
            return replace(
                _leaf(file, entry, outcome.EXPIRED, reply=EXPIRED + entry.reply),
                at=file.expired,
            )
        if file.end == queuefile.DELETED:
            return replace(
                _leaf(file, entry, outcome.DELETED, reply=DELETED), at=file.ended
            )
        if file.is_held:
            return _leaf(file, entry, outcome.WAITING, reply=outcome.ON_HOLD)
        return _leaf(file, entry, outcome.WAITING)

    def _may_grow(self, file: QueueFile, mine: list[Entry]) -> bool:
        """Tell whether the log may still name more addresses for this recipient.

        An alias puts all its members into one queue file, and only qmgr(8)'s count of
        recipients says beforehand that there is none.
        """
        if file.end:
            return False
        if any(each.original for each in mine) or len(mine) > 1:
            return True
        if mine[0].daemon == "local" and self._queue.now < mine[0].at + MOMENT:
            return True
        parent = self._queue.by_key.get(file.parent)
        return parent is not None and parent.count != file.count


def _is_for(entry: Entry, recipient: str, original: str) -> bool:
    if entry.original:
        return recipient == entry.original or (
            recipient == entry.recipient and original == entry.original
        )
    return entry.recipient == recipient


def _taken(entry: Entry) -> str:
    if entry.daemon == "discard":
        return outcome.DISCARDED
    return outcome.RELAYED if entry.daemon == "smtp" else outcome.DELIVERED


def _leaf(file: QueueFile, entry: Entry, kind: str, reply: str = "") -> Leaf:
    return Leaf(
        recipient=entry.recipient,
        kind=kind,
        queue_id=file.queue_id,
        at=entry.at,
        status=entry.dsn,
        remote=entry.relay,
        reply=reply or entry.reply,
        tries=entry.tries,
    )
