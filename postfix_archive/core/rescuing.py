"""Decide which messages in Postfix's queue a rescue saves before they expire.

Used by rescue.queue_rescue, status and doctor. Pure: it gets the queue as a list. It
knows three kinds of queued messages:

    capsule      an archive copy that the store did not accept. Its sender is null:
                 after bounce_queue_lifetime Postfix deletes it without notice
    original     a message that the stamp filter has not captured yet. After
                 maximal_queue_lifetime Postfix bounces it
    mailed copy  an archive copy that no store keeps (archive_delivery = mail)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from postfix_archive.core import gates, queueid, request
from postfix_archive.core.observed import Waiting

ARCHIVE = "archive:"
COPIES = ("archive-relay:", "archive-local:")
CAPSULE = request.CAPSULE.decode()
NOTICED = 5 * 60  # seconds that mail may wait for the stamp filter without an alarm
MARGIN = 30 * 60  # seconds before expiry; the timer runs a rescue every five minutes
QUEUED = ("deferred", "incoming", "active")


@dataclass(frozen=True)
class Lifetimes:
    """How long Postfix keeps queued mail, and a rescue leaves capsules; in seconds."""

    maximal: int  # maximal_queue_lifetime
    bounce: int  # bounce_queue_lifetime, for the null sender
    rescue_after: int  # archive_rescue_after

    def of(self, each: Waiting) -> int:
        """Return the seconds after which Postfix bounces or deletes a message."""
        return max(1, self.maximal if each.is_from_somebody else self.bounce)

    def is_ending(self, each: Waiting) -> bool:
        """Tell whether the message may expire before the next rescue."""
        lifetime = self.of(each)
        return each.age >= lifetime - max(lifetime / 4, min(MARGIN, lifetime / 2))

    def is_stuck(self, each: Waiting) -> bool:
        """Tell whether the message has waited long enough for an alarm."""
        return each.age >= min(NOTICED, self.of(each) / 4)


@dataclass(frozen=True)
class Plan:
    """The messages of the queue, by what a rescue does with them."""

    rescue: tuple[Waiting, ...] = ()  # capsules to move to the fallback directory
    hold: tuple[Waiting, ...] = ()  # originals to put on hold before they expire
    release: tuple[Waiting, ...] = ()  # originals that a rescue put on hold
    renew: tuple[Waiting, ...] = ()  # mailed copies: requeueing resets their age
    stuck: tuple[Waiting, ...] = ()  # all originals that wait too long
    gone: tuple[str, ...] = ()  # queue ids: an admin has released or deleted them


def plan(
    waiting: Iterable[Waiting],
    lifetimes: Lifetimes,
    held: Mapping[str, str],
    *,
    works: bool,
) -> Plan:
    """Return what a rescue has to do.

    hold_times maps the queue ids that earlier rescues put on hold to the time of that;
    can_filter_run says whether the stamp filter can run now.
    """
    messages = list(waiting)
    originals = [each for each in messages if is_at_filter(each)]
    ours = noted_as(originals, held)
    stuck = [each for each in originals if _is_stuck(each, lifetimes, ours)]
    capsules = [each for each in messages if is_capsule(each)]
    copies = [each for each in messages if is_copy(each)]
    expiring = [e for e in stuck if e.queue in QUEUED and lifetimes.is_ending(e)]
    return Plan(
        rescue=tuple(each for each in capsules if _is_late(each, lifetimes)),
        hold=() if works else tuple(expiring),
        release=tuple(each for each in originals if works and each.queue_id in ours),
        renew=tuple(e for e in copies if e.queue in QUEUED and lifetimes.is_ending(e)),
        stuck=tuple(stuck),
        gone=tuple(_gone(originals, held)),
    )


def is_capsule(each: Waiting) -> bool:
    """Tell whether this is a capsule.

    After postsuper -r it has no content_filter, only its recipient.
    """
    has_transport = each.content_filter.startswith(ARCHIVE)
    return has_transport or set(each.recipients) == {CAPSULE}


def is_at_filter(each: Waiting) -> bool:
    """Tell whether this message waits for a stamp filter."""
    has_filter = each.content_filter.startswith(gates.STAMP)
    has_request = any(one.endswith(request.REQUESTS) for one in each.recipients)
    return (has_filter or has_request) and not is_capsule(each)


def is_copy(each: Waiting) -> bool:
    """Tell whether this is an archive copy in the mail that no store keeps."""
    return each.content_filter.startswith(COPIES)


def noted_as(waiting: Iterable[Waiting], held: Iterable[str]) -> dict[str, str]:
    """Return current queue id -> recorded queue id of the messages in held_ids.

    They differ after the queue was moved: postsuper(1) renames the queue files then
    (message.queue_id).
    """
    recorded_ids: dict[bytes, list[bytes]] = {}
    for recorded in map(str.encode, held):
        key = queueid.microseconds(recorded)
        recorded_ids.setdefault(key, []).append(recorded)
    matches = {}
    for each in waiting:
        current = each.queue_id.encode()
        for recorded in recorded_ids.get(queueid.microseconds(current), ()):
            if queueid.is_same(current, recorded):
                matches[each.queue_id] = recorded.decode()
    return matches


def _gone(originals: Iterable[Waiting], held: Iterable[str]) -> Iterator[str]:
    """Yield the recorded queue ids that are not on hold any more."""
    on_hold = [each for each in originals if each.queue == "hold"]
    still_held = set(noted_as(on_hold, held).values())
    yield from (queue_id for queue_id in held if queue_id not in still_held)


def _is_late(each: Waiting, lifetimes: Lifetimes) -> bool:
    if each.queue == "hold":
        return True  # an interrupted rescue left it there
    is_due = each.age >= lifetimes.rescue_after or lifetimes.is_ending(each)
    return is_due and each.queue in QUEUED


def _is_stuck(each: Waiting, lifetimes: Lifetimes, ours: Mapping[str, str]) -> bool:
    if each.queue == "hold":
        return each.queue_id in ours
    return lifetimes.is_stuck(each)
