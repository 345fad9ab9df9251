"""Finds the outcome of each recipient of a captured message over all its queue files.

Used by outcomes.follower. maillog.queue_tracker reads the log lines; this module
decides. Nothing is settled before it is certain: a recipient whose message is in a
content filter, or for whom more log lines may come, is waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from postfix_archive.maillog import delivery, queue_file
from postfix_archive.maillog.queue_file import QueueFile, RecipientEntry
from postfix_archive.maillog.queue_model import QueueModel
from postfix_archive.message import dates, request
from postfix_archive.store import outcome
from postfix_archive.store.outcome import Outcome

LOCAL_DELIVERY_SECONDS = 5.0  # seconds: local(8) logs all lines of one delivery at once
MAX_DEPTH = 50  # queue files in a row: default of hopcount_limit, postconf(5)
IN_QUEUE = "in Postfix's queue, no delivery attempt yet"
IN_FILTER = "passed to a content filter, not reinjected yet"
DELETED = "deleted from the queue (postsuper -d)"
DISCARDED = "discarded by a DISCARD action"
DISCARDED_MARK = "discarded"  # amavisd-new: 250 2.7.0 Ok, discarded, id=…
EXPIRED = "expired in the queue; last attempt: "
UNKNOWN = "removed from the queue, no delivery attempt in the log"


@dataclass(frozen=True)
class Branch:
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

    def __init__(
        self, model: QueueModel, captured_file: QueueFile, *, capture_queue_id: str
    ) -> None:
        """Begin; capture_queue_id is the queue id in the captured envelope."""
        self._model = model
        self._queue_files = model.queue_files
        self._first_file = model.first_file(captured_file)
        self._capture_queue_id = capture_queue_id

    def outcomes(self, recipient: str, original: str) -> list[Outcome]:
        """Return the outcome of a recipient, followed by those it was expanded to.

        recipient and original are as in the captured envelope. Empty if there was no
        delivery attempt yet.
        """
        branches = list(
            self._recipient_branches(self._first_file, recipient, original, 0)
        )
        if not branches:
            return []
        recipient_outcome = self._combine(recipient, original, branches)
        if recipient_outcome.kind != outcome.EXPANDED:
            return [recipient_outcome]
        children = [
            replace(self._to_outcome(leaf), recipient=leaf.recipient, parent=recipient)
            for leaf in branches
        ]
        return [recipient_outcome, *children]

    def settled_outcomes(self) -> list[Outcome]:
        """Return the outcomes of all recipients; empty while one is not settled."""
        outcomes: list[Outcome] = []
        if len(self._first_file.entries) < self._first_file.count:
            return []
        for entry in self._first_file.entries.values():
            if entry.recipient.endswith(request.DOMAIN_SUFFIX):
                continue
            recipient_outcomes = self.outcomes(entry.recipient, entry.original)
            if not recipient_outcomes or not recipient_outcomes[0].is_settled:
                return []
            outcomes += recipient_outcomes
        return outcomes

    def _combine(
        self, recipient: str, original: str, branches: list[Branch]
    ) -> Outcome:
        """Combine the ends of all branches into the recipient's own outcome."""
        addresses = tuple(dict.fromkeys(leaf.recipient for leaf in branches))
        expanded_to = addresses if addresses != (recipient,) else ()
        waiting = [leaf for leaf in branches if leaf.kind == outcome.WAITING]
        decisive = waiting[0] if waiting else max(branches, key=lambda leaf: leaf.at)
        combined = replace(
            self._to_outcome(decisive),
            recipient=recipient,
            original=original,
            expanded_to=() if waiting else expanded_to,
        )
        if len(branches) > 1 and not waiting:
            return replace(
                combined, kind=outcome.EXPANDED, remote="", reply="", status=""
            )
        return combined

    def _to_outcome(self, branch: Branch) -> Outcome:
        return Outcome(
            recipient=branch.recipient,
            kind=branch.kind,
            capture_queue_id=self._capture_queue_id,
            queue_id=branch.queue_id,
            time=dates.format_rfc3339(branch.at),
            status=branch.status,
            remote=branch.remote,
            reply=branch.reply,
            tries=branch.tries,
        )

    # --- from queue file to queue file ------------------------------------------------

    def _recipient_branches(
        self, file: QueueFile, recipient: str, original: str, depth: int
    ) -> Iterator[Branch]:
        """Yield the ends of a recipient's delivery, from this queue file on."""
        if depth > MAX_DEPTH:
            return
        if file.end == queue_file.REQUEUED:
            yield from self._requeued_branches(file, recipient, original, depth)
            return
        entries = [
            entry
            for entry in file.entries.values()
            if _is_for(entry, recipient, original)
        ]
        if not entries:
            yield from self._untried_branches(file, recipient)
            return
        can_grow = self._can_grow(file, entries)
        for entry in entries:
            for branch in self._entry_branches(file, entry, depth):
                yield replace(branch, kind=outcome.WAITING) if can_grow else branch

    def _requeued_branches(
        self, file: QueueFile, recipient: str, original: str, depth: int
    ) -> Iterator[Branch]:
        """postsuper -r: recipients that are not done continue in a new queue file."""
        done = [
            entry
            for entry in file.entries.values()
            if _is_for(entry, recipient, original)
            and entry.status in ("sent", "bounced")
        ]
        for entry in done:
            yield from self._entry_branches(file, entry, depth)
        children = [
            child
            for child in self._queue_files.find_by_keys(file.children)
            if child.daemon == queue_file.PICKUP
        ]
        if done:
            return
        if not children:
            yield Branch(recipient, outcome.WAITING, file.queue_id, file.ended)
        for child in children:
            yield from self._recipient_branches(child, recipient, original, depth + 1)

    def _untried_branches(self, file: QueueFile, recipient: str) -> Iterator[Branch]:
        if file.end == queue_file.DELETED:
            yield Branch(
                recipient, outcome.DELETED, file.queue_id, file.ended, reply=DELETED
            )
        elif file.end == queue_file.DISCARDED:
            yield Branch(
                recipient,
                outcome.DISCARDED,
                file.queue_id,
                file.ended,
                reply=DISCARDED,
            )
        elif file.end == queue_file.REMOVED:
            yield Branch(
                recipient, outcome.WAITING, file.queue_id, file.ended, reply=UNKNOWN
            )
        elif file.is_held:
            yield Branch(
                recipient,
                outcome.WAITING,
                file.queue_id,
                file.begun,
                reply=outcome.ON_HOLD,
            )

    def _entry_branches(
        self, file: QueueFile, entry: RecipientEntry, depth: int
    ) -> Iterator[Branch]:
        """Yield the ends of the delivery of one entry of a queue file."""
        if entry.status != "sent":
            yield self._unsent_branch(file, entry)
            return
        if self._is_final(file, entry):
            yield _branch(file, entry, _success_kind(entry))
            if entry.daemon != "local" or not entry.links:
                return
        next_files = self._next_files(file, entry)
        if not next_files:
            is_discarded = DISCARDED_MARK in entry.reply
            kind = outcome.DISCARDED if is_discarded else outcome.WAITING
            yield _branch(file, entry, kind, reply="" if is_discarded else IN_FILTER)
        for next_file in next_files:
            yield from self._next_branches(next_file, entry, depth)

    def _next_files(self, file: QueueFile, entry: RecipientEntry) -> list[QueueFile]:
        """Return the queue files that continue the delivery of an entry.

        The stamp filter and local(8) always log them; what else names this one as its
        origin is not theirs.
        """
        linked = self._queue_files.find_by_keys(entry.links)
        if entry.daemon == "local" or delivery.is_stamp_filter(entry.relay):
            return linked
        if linked and not self._model.is_content_filter(entry.relay):
            return linked
        return self._model.reinjected_files(file, entry)

    def _next_branches(
        self, file: QueueFile, entry: RecipientEntry, depth: int
    ) -> Iterator[Branch]:
        """Continue in the next queue file; local(8) forwards for one recipient only."""
        if entry.daemon != "local":
            yield from self._recipient_branches(
                file, entry.recipient, entry.original, depth + 1
            )
            return
        if not file.entries:
            yield from self._untried_branches(file, entry.recipient)
            if not file.end and not file.is_held:
                yield Branch(
                    entry.recipient,
                    outcome.WAITING,
                    file.queue_id,
                    file.begun,
                    reply=IN_QUEUE,
                )
        for forwarded in file.entries.values():
            for branch in self._entry_branches(file, forwarded, depth + 1):
                can_grow = not file.end
                yield replace(branch, kind=outcome.WAITING) if can_grow else branch

    def _is_final(self, file: QueueFile, entry: RecipientEntry) -> bool:
        """Tell whether a successful delivery is the last one on this host."""
        if self._model.is_filter(entry.relay):
            return False
        if entry.daemon == "local":
            return entry.delivered or not entry.links
        if delivery.is_local_relay(entry.relay) and self._model.reinjected_children(
            file
        ):
            return False
        return not entry.links

    def _unsent_branch(self, file: QueueFile, entry: RecipientEntry) -> Branch:
        if entry.status == "bounced":
            return _branch(file, entry, outcome.FAILED)
        if file.expired:
            return replace(
                _branch(file, entry, outcome.EXPIRED, reply=EXPIRED + entry.reply),
                at=file.expired,
            )
        if file.end == queue_file.DELETED:
            return replace(
                _branch(file, entry, outcome.DELETED, reply=DELETED), at=file.ended
            )
        if file.is_held:
            return _branch(file, entry, outcome.WAITING, reply=outcome.ON_HOLD)
        return _branch(file, entry, outcome.WAITING)

    def _can_grow(self, file: QueueFile, entries: list[RecipientEntry]) -> bool:
        """Tell whether the log may still name more addresses for this recipient.

        An alias puts all its members into one queue file, and only qmgr(8)'s number of
        recipients says in advance that there are no more.
        """
        if file.end:
            return False
        if any(entry.original for entry in entries) or len(entries) > 1:
            return True
        if (
            entries[0].daemon == "local"
            and self._queue_files.now < entries[0].at + LOCAL_DELIVERY_SECONDS
        ):
            return True
        parent = self._queue_files.by_key.get(file.parent)
        return parent is not None and parent.count != file.count


def _is_for(entry: RecipientEntry, recipient: str, original: str) -> bool:
    """Tell whether an entry is for a recipient.

    sendmail(1) takes names without a domain, and the log has ``orig_to=<root>`` of
    root@myorigin: in lmtp mode the stamp filter is told no more than root@myorigin.
    """
    if not entry.original or recipient == entry.original:
        return recipient == (entry.original or entry.recipient)
    is_completed = recipient.partition("@")[0] == entry.original
    if recipient == entry.recipient:
        has_no_original = original in ("", recipient)
        return original == entry.original or (is_completed and has_no_original)
    return is_completed and original == entry.original


def _success_kind(entry: RecipientEntry) -> str:
    if entry.daemon == "discard":
        return outcome.DISCARDED
    return outcome.RELAYED if entry.daemon == "smtp" else outcome.DELIVERED


def _branch(
    file: QueueFile, entry: RecipientEntry, kind: str, reply: str = ""
) -> Branch:
    return Branch(
        recipient=entry.recipient,
        kind=kind,
        queue_id=file.queue_id,
        at=entry.at,
        status=entry.dsn,
        remote=entry.relay,
        reply=reply or entry.reply,
        tries=entry.tries,
    )
