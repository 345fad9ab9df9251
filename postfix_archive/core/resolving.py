"""Finds the outcome of each recipient of a captured message over all its queue files.

Used by outcomes.follower. maillog.queue_tracker collects the log lines; this module
decides. Nothing is settled before it is certain: a recipient whose message is in a
content filter, or for whom more log lines may come, is waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from postfix_archive.core import outcome, queuefile, relays, request, trace
from postfix_archive.core.outcome import Outcome
from postfix_archive.core.passage import Passage
from postfix_archive.core.queuefile import Entry, QueueFile

MOMENT = 5.0  # seconds: local(8) logs all lines of one delivery at once
DEPTH = 50  # queue files in a row: default of hopcount_limit, postconf(5)
IN_QUEUE = "in Postfix's queue, no delivery attempt yet"
WITH_FILTER = "passed to a content filter, not reinjected yet"
DELETED = "deleted from the queue (postsuper -d)"
THROWN_AWAY = "discarded by a DISCARD action"
SAYS_DISCARDED = "discarded"  # amavisd-new: 250 2.7.0 Ok, discarded, id=…
EXPIRED = "expired in the queue; last attempt: "
UNKNOWN = "removed from the queue, no delivery attempt in the log"


@dataclass(frozen=True)
class Leaf:
    """Where one branch of a recipient's delivery has ended so far; at is Unix time."""

    recipient: str
    kind: str
    queue_id: str
    at: float
    status: str = ""
    remote: str = ""
    reply: str = ""
    tries: int = 1


class Resolver:
    """Finds the outcomes of the recipients of one captured message."""

    def __init__(self, passage: Passage, captured: QueueFile, *, of: str) -> None:
        """Begin; capture_queue_id is the queue id in the captured envelope."""
        self._passage = passage
        self._queue = passage.queue
        self._captured = captured
        self._of = of

    def outcomes(self, recipient: str, original: str) -> list[Outcome]:
        """Return the outcome of a recipient, followed by those it was expanded to.

        recipient and original are as in the captured envelope. Empty if there was no
        delivery attempt yet.
        """
        leaves = list(self._leaves(self._captured, recipient, original, 0))
        if not leaves:
            return []
        one = self._told(recipient, original, leaves)
        if one.kind != outcome.EXPANDED:
            return [one]
        children = [
            replace(self._of_leaf(leaf), recipient=leaf.recipient, parent=recipient)
            for leaf in leaves
        ]
        return [one, *children]

    def all(self) -> list[Outcome]:
        """Return the outcomes of all recipients; empty while one is not settled."""
        found: list[Outcome] = []
        if len(self._captured.entries) < self._captured.count:
            return []
        for entry in self._captured.entries:
            if entry.recipient.endswith(request.REQUESTS):
                continue
            told = self.outcomes(entry.recipient, entry.original)
            if not told or not told[0].is_settled:
                return []
            found += told
        return found

    def _told(self, recipient: str, original: str, leaves: list[Leaf]) -> Outcome:
        """Combine the ends of all branches into the recipient's own outcome."""
        places = tuple(dict.fromkeys(leaf.recipient for leaf in leaves))
        moved = places if places != (recipient,) else ()
        waiting = [leaf for leaf in leaves if leaf.kind == outcome.WAITING]
        shown = waiting[0] if waiting else max(leaves, key=lambda leaf: leaf.at)
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

    # --- from queue file to queue file ------------------------------------------------

    def _leaves(
        self, file: QueueFile, recipient: str, original: str, depth: int
    ) -> Iterator[Leaf]:
        """Yield the ends of a recipient's delivery, from this queue file on."""
        if depth > DEPTH:
            return
        if file.end == queuefile.REQUEUED:
            yield from self._requeued(file, recipient, original, depth)
            return
        mine = [entry for entry in file.entries if _is_for(entry, recipient, original)]
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
        """postsuper -r: recipients that are not done continue in a new queue file."""
        done = [
            entry
            for entry in file.entries
            if _is_for(entry, recipient, original)
            and entry.status in ("sent", "bounced")
        ]
        for entry in done:
            yield from self._branches(file, entry, depth)
        later = [
            child
            for child in self._queue.named(file.children)
            if child.came == "pickup"
        ]
        if done:
            return
        if not later:
            yield Leaf(recipient, outcome.WAITING, file.queue_id, file.ended)
        for child in later:
            yield from self._leaves(child, recipient, original, depth + 1)

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
        """Yield the ends of the delivery of one entry of a queue file."""
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
        for next_file in following:
            yield from self._further(next_file, entry, depth)

    def _following(self, file: QueueFile, entry: Entry) -> list[QueueFile]:
        """Return the queue files that continue the delivery of an entry."""
        known = self._queue.named(entry.links)
        if known and not self._passage.is_filter(entry.relay):
            return known
        return (
            known if entry.daemon == "local" else self._passage.came_back(file, entry)
        )

    def _further(self, file: QueueFile, entry: Entry, depth: int) -> Iterator[Leaf]:
        """Continue in the next queue file; local(8) forwards for one recipient only."""
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
        for forwarded in file.entries:
            for leaf in self._branches(file, forwarded, depth + 1):
                more = not file.end
                yield replace(leaf, kind=outcome.WAITING) if more else leaf

    def _is_final(self, file: QueueFile, entry: Entry) -> bool:
        """Tell whether a successful delivery is the last one on this host."""
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

        An alias puts all its members into one queue file, and only qmgr(8)'s number of
        recipients says in advance that there are no more.
        """
        if file.end:
            return False
        if any(entry.original for entry in mine) or len(mine) > 1:
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
