"""The plan of a rescue: what in Postfix's queue must not be left to expire.

Used by back/rescue, status and the doctor. Three kinds of messages wait for us:

    capsule     copies that the store did not take; they die silently with
                bounce_queue_lifetime
    at filter   originals that the stamp filter has not captured yet; they would bounce
    copy        mailed copies where no store keeps them (archive_delivery = mail)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from postfix_archive.core import gates, queueid, request
from postfix_archive.core.observed import Waiting

ARCHIVE = "archive:"
COPIES = ("archive-relay:", "archive-local:")
CAPSULE = request.CAPSULE.decode()
NOTICED = 5 * 60  # seconds that mail may wait at the filter before the alarm rings
MARGIN = 30 * 60  # seconds before expiry in which two rescues come round, and more
QUEUED = ("deferred", "incoming", "active")


@dataclass(frozen=True)
class Lifetimes:
    """How long Postfix keeps mail, in seconds, and how long a copy is left there."""

    maximal: int  # maximal_queue_lifetime
    bounce: int  # bounce_queue_lifetime, for the null sender
    rescue_after: int  # archive_rescue_after

    def of(self, each: Waiting) -> int:
        """Return after how many seconds Postfix gives a message up."""
        return max(1, self.maximal if each.is_from_somebody else self.bounce)

    def is_ending(self, each: Waiting) -> bool:
        """Tell whether it must be seen to now, or may expire before the next time."""
        lifetime = self.of(each)
        return each.age >= lifetime - max(lifetime / 4, min(MARGIN, lifetime / 2))

    def is_stuck(self, each: Waiting) -> bool:
        """Tell whether it has waited so long that somebody must be told."""
        return each.age >= min(NOTICED, self.of(each) / 4)


@dataclass(frozen=True)
class Plan:
    """Queue ids, by what is to be done with them; reasons for people."""

    rescue: tuple[Waiting, ...] = ()  # capsules, into the fallback directory
    hold: tuple[Waiting, ...] = ()  # originals, before they would expire
    release: tuple[Waiting, ...] = ()  # originals that were held
    renew: tuple[Waiting, ...] = ()  # mailed copies: requeued, so that they live on
    stuck: tuple[Waiting, ...] = ()  # all originals that wait too long
    gone: tuple[str, ...] = ()  # held once, and no longer: somebody released them


def plan(
    waiting: Iterable[Waiting],
    lifetimes: Lifetimes,
    held: Mapping[str, str],
    *,
    works: bool,
) -> Plan:
    """Return what to do; held are the originals that a rescue has put on hold.

    works says whether the stamp filter could run just now.
    """
    found = list(waiting)
    originals = [each for each in found if is_at_filter(each)]
    ours = noted_as(originals, held)
    stuck = [each for each in originals if _is_stuck(each, lifetimes, ours)]
    capsules = [each for each in found if is_capsule(each)]
    return Plan(
        rescue=tuple(each for each in capsules if _is_late(each, lifetimes)),
        hold=tuple(
            each
            for each in stuck
            if each.queue in QUEUED and lifetimes.is_ending(each) and not works
        ),
        release=tuple(each for each in originals if works and each.queue_id in ours),
        renew=tuple(
            each
            for each in found
            if is_copy(each) and each.queue in QUEUED and lifetimes.is_ending(each)
        ),
        stuck=tuple(stuck),
        gone=tuple(_gone(originals, held)),
    )


def is_capsule(each: Waiting) -> bool:
    """Tell whether this is a capsule, also one that postsuper -r sends round again."""
    filtered = each.content_filter.startswith(ARCHIVE)
    return filtered or set(each.recipients) == {CAPSULE}


def is_at_filter(each: Waiting) -> bool:
    """Tell whether this waits for a stamp filter."""
    filtered = each.content_filter.startswith(gates.STAMP)
    asked = any(one.endswith(request.REQUESTS) for one in each.recipients)
    return (filtered or asked) and not is_capsule(each)


def is_copy(each: Waiting) -> bool:
    """Tell whether this is a mailed copy that no store keeps."""
    return each.content_filter.startswith(COPIES)


def noted_as(waiting: Iterable[Waiting], held: Iterable[str]) -> dict[str, str]:
    """Return the queue ids of what a rescue has held, with the id it had then.

    Postfix gives queue files other names when the queue was moved: see queueid.
    """
    known: dict[bytes, list[bytes]] = {}
    for one in map(str.encode, held):
        known.setdefault(queueid.microseconds(one), []).append(one)
    found = {}
    for each in waiting:
        name = each.queue_id.encode()
        for one in known.get(queueid.microseconds(name), ()):
            if queueid.is_same(name, one):
                found[each.queue_id] = one.decode()
    return found


def _gone(originals: Iterable[Waiting], held: Iterable[str]) -> Iterator[str]:
    """Give the ids of what a rescue has held and what is not on hold any more."""
    on_hold = [each for each in originals if each.queue == "hold"]
    still = set(noted_as(on_hold, held).values())
    yield from (each for each in held if each not in still)


def _is_late(each: Waiting, lifetimes: Lifetimes) -> bool:
    if each.queue == "hold":
        return True  # of a rescue that got no further
    late = each.age >= lifetimes.rescue_after or lifetimes.is_ending(each)
    return late and each.queue in QUEUED


def _is_stuck(each: Waiting, lifetimes: Lifetimes, ours: Mapping[str, str]) -> bool:
    if each.queue == "hold":
        return each.queue_id in ours
    return lifetimes.is_stuck(each)
