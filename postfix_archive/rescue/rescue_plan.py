"""Decide which messages in Postfix's queue a rescue saves before they expire.

Used by rescue.queue_rescue, status and doctor. Pure: it gets the queue as a list. It
knows four kinds of queued messages:

    capsule      an archive copy that the store did not accept. Its sender is null:
                 after bounce_queue_lifetime Postfix deletes it without notice
    original     a message that the stamp filter has not captured yet. After
                 maximal_queue_lifetime Postfix bounces it
    capture      native mode: a message with capture recipients, which are for the
                 archive. At the end of its lifetime Postfix drops them without notice
    mailed copy  an archive copy that no store keeps (archive_delivery = mail)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from postfix_archive.message import queue_ids, request
from postfix_archive.postfix import archive_services
from postfix_archive.postfix.queued_message import QueuedMessage

ARCHIVE_TRANSPORT = "archive:"
COPY_TRANSPORTS = ("archive-relay:", "archive-local:")
CAPSULE_RECIPIENT = request.CAPSULE_RECIPIENT.decode()
CAPTURE_PREFIX = request.CAPTURE_PREFIX.decode()
ALARM_AGE = 5 * 60  # seconds that mail may wait for the stamp filter without an alarm
EXPIRY_MARGIN = (
    30 * 60
)  # seconds before expiry; the timer runs a rescue every five minutes
UNHELD_QUEUES = ("deferred", "incoming", "active")


@dataclass(frozen=True)
class Lifetimes:
    """How long Postfix keeps queued mail, and a rescue leaves capsules; in seconds."""

    maximal: int  # maximal_queue_lifetime
    bounce: int  # bounce_queue_lifetime, for the null sender
    rescue_after: int  # archive_rescue_after

    def queue_lifetime(self, message: QueuedMessage) -> int:
        """Return the seconds after which Postfix bounces or deletes a message."""
        return max(1, self.maximal if message.has_sender else self.bounce)

    def is_expiring(self, message: QueuedMessage) -> bool:
        """Tell whether the message may expire before the next rescue."""
        lifetime = self.queue_lifetime(message)
        return message.age >= lifetime - max(
            lifetime / 4, min(EXPIRY_MARGIN, lifetime / 2)
        )

    def is_overdue(self, message: QueuedMessage) -> bool:
        """Tell whether the message has waited long enough for an alarm."""
        return message.age >= min(ALARM_AGE, self.queue_lifetime(message) / 4)


@dataclass(frozen=True)
class RescuePlan:
    """The messages of the queue, by what a rescue does with them."""

    to_rescue: tuple[
        QueuedMessage, ...
    ] = ()  # capsules, and captures nobody else waits for, to move to the fallback
    to_save: tuple[
        QueuedMessage, ...
    ] = ()  # captures to copy there, whose other recipients wait as well
    to_hold: tuple[
        QueuedMessage, ...
    ] = ()  # originals to put on hold before they expire
    to_release: tuple[QueuedMessage, ...] = ()  # originals that a rescue put on hold
    to_requeue: tuple[
        QueuedMessage, ...
    ] = ()  # mailed copies: requeueing resets their age
    overdue: tuple[QueuedMessage, ...] = ()  # all originals that wait too long
    released_elsewhere: tuple[
        str, ...
    ] = ()  # queue ids: an admin has released or deleted them


def plan_rescue(
    queued_messages: Iterable[QueuedMessage],
    lifetimes: Lifetimes,
    hold_times: Mapping[str, str],
    *,
    can_filter_run: bool,
) -> RescuePlan:
    """Return what a rescue has to do.

    hold_times maps the queue ids that earlier rescues put on hold to the time of that;
    can_filter_run says whether the stamp filter can run now.
    """
    messages = list(queued_messages)
    originals = [each for each in messages if is_waiting_for_filter(each)]
    held_now = match_held(originals, hold_times)
    overdue = [each for each in originals if _needs_alarm(each, lifetimes, held_now)]
    movable = [each for each in messages if is_movable(each)]
    captures = [e for e in messages if is_capture(e) and not is_movable(e)]
    copies = [each for each in messages if is_mailed_copy(each)]
    expiring = [
        each
        for each in overdue
        if each.queue in UNHELD_QUEUES
        and lifetimes.is_expiring(each)
        and not is_capture(each)
    ]
    return RescuePlan(
        to_rescue=tuple(each for each in movable if _needs_rescue(each, lifetimes)),
        to_save=tuple(
            e for e in captures if e.queue in UNHELD_QUEUES and lifetimes.is_expiring(e)
        ),
        to_hold=() if can_filter_run else tuple(expiring),
        to_release=tuple(
            each for each in originals if can_filter_run and each.queue_id in held_now
        ),
        to_requeue=tuple(
            e for e in copies if e.queue in UNHELD_QUEUES and lifetimes.is_expiring(e)
        ),
        overdue=tuple(overdue),
        released_elsewhere=tuple(_no_longer_held(originals, hold_times)),
    )


def is_capsule(message: QueuedMessage) -> bool:
    """Tell whether this is a capsule.

    After postsuper -r it has no content_filter, only its recipient.
    """
    has_transport = message.content_filter.startswith(ARCHIVE_TRANSPORT)
    return has_transport or set(message.recipients) == {CAPSULE_RECIPIENT}


def is_capture(message: QueuedMessage) -> bool:
    """Tell whether this message has capture recipients left (native mode)."""
    return any(
        each.removeprefix('"').startswith(CAPTURE_PREFIX)
        for each in message.internal_recipients
    )


def is_movable(message: QueuedMessage) -> bool:
    """Tell whether nobody but the archive waits for this message."""
    is_for_archive = message.internal_recipients == message.recipients
    return is_capsule(message) or (is_capture(message) and is_for_archive)


def is_waiting_for_filter(message: QueuedMessage) -> bool:
    """Tell whether this message waits for a stamp filter, or for native capture."""
    has_filter = message.content_filter.startswith(archive_services.STAMP_TRANSPORT)
    return (has_filter or bool(message.internal_recipients)) and not is_capsule(message)


def is_mailed_copy(message: QueuedMessage) -> bool:
    """Tell whether this is an archive copy in the mail that no store keeps."""
    return message.content_filter.startswith(COPY_TRANSPORTS)


def is_copy(message: QueuedMessage) -> bool:
    """Tell whether this is an archive copy that no store has yet."""
    return is_capsule(message) or is_mailed_copy(message)


def match_held(
    messages: Iterable[QueuedMessage], held_ids: Iterable[str]
) -> dict[str, str]:
    """Return current queue id -> recorded queue id of the messages in held_ids.

    They differ after the queue was moved: postsuper(1) renames the queue files then
    (message.queue_id).
    """
    recorded_ids: dict[bytes, list[bytes]] = {}
    for recorded in map(str.encode, held_ids):
        key = queue_ids.microseconds(recorded)
        recorded_ids.setdefault(key, []).append(recorded)
    matches = {}
    for message in messages:
        current = message.queue_id.encode()
        for recorded in recorded_ids.get(queue_ids.microseconds(current), ()):
            if queue_ids.is_same(current, recorded):
                matches[message.queue_id] = recorded.decode()
    return matches


def _no_longer_held(
    originals: Iterable[QueuedMessage], held_ids: Iterable[str]
) -> Iterator[str]:
    """Yield the recorded queue ids that are not on hold any more."""
    on_hold = [each for each in originals if each.queue == "hold"]
    still_held = set(match_held(on_hold, held_ids).values())
    yield from (queue_id for queue_id in held_ids if queue_id not in still_held)


def _needs_rescue(message: QueuedMessage, lifetimes: Lifetimes) -> bool:
    if message.queue == "hold":
        return True  # an interrupted rescue left it there
    is_due = message.age >= lifetimes.rescue_after or lifetimes.is_expiring(message)
    return is_due and message.queue in UNHELD_QUEUES


def _needs_alarm(
    message: QueuedMessage, lifetimes: Lifetimes, held_now: Mapping[str, str]
) -> bool:
    if message.queue == "hold":
        return message.queue_id in held_now
    return lifetimes.is_overdue(message)
