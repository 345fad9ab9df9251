"""Claims about the plan of a rescue: what is taken, held, released, and when."""

from __future__ import annotations

import pytest

from postfix_archive.postfix.queued_message import QueuedMessage
from postfix_archive.rescue import rescue_plan
from postfix_archive.rescue.rescue_plan import Lifetimes, RescuePlan

DAY = 86400
DEFAULT_LIFETIMES = Lifetimes(maximal=5 * DAY, bounce=5 * DAY, rescue_after=DAY)
SHORT_LIFETIMES = Lifetimes(maximal=600, bounce=600, rescue_after=DAY)
CAPSULE = "capsule@archive-request.invalid"


def message(
    age: int,
    to: str = "bob@example.net",
    *,
    through: str = "archive-stamp:legal@example.com",
    sender: str = "a@example.org",
    queue: str = "deferred",
    queue_id: str = "4Zx",
) -> QueuedMessage:
    return QueuedMessage(queue_id, age, sender, (to,), ("why",), through, queue)


def copy(age: int, queue: str = "deferred") -> QueuedMessage:
    return message(age, CAPSULE, through="archive:capsule", sender="", queue=queue)


def make_plan(
    *waiting: QueuedMessage,
    is_working: bool = False,
    held_id: str = "",
    lifetimes: Lifetimes = DEFAULT_LIFETIMES,
) -> RescuePlan:
    return rescue_plan.plan_rescue(
        waiting,
        lifetimes,
        {held_id: "then"} if held_id else {},
        can_filter_run=is_working,
    )


@pytest.mark.parametrize(
    ("age", "lifetimes", "is_taken"),
    [
        (DAY - 1, DEFAULT_LIFETIMES, False),
        (DAY, DEFAULT_LIFETIMES, True),
        (299, SHORT_LIFETIMES, False),
        (
            300,
            SHORT_LIFETIMES,
            True,
        ),  # half of its life: before it ends, whatever is set
    ],
)
def test_copies_are_taken_in_time(
    age: int, lifetimes: Lifetimes, is_taken: bool
) -> None:
    assert bool(make_plan(copy(age), lifetimes=lifetimes).to_rescue) == is_taken


def test_a_capsule_on_hold_is_taken_at_once() -> None:
    assert make_plan(copy(1, queue="hold")).to_rescue


def test_a_capsule_that_was_requeued_is_a_copy_too() -> None:
    assert make_plan(message(DAY, CAPSULE)).to_rescue
    assert not make_plan(message(DAY, CAPSULE)).overdue


@pytest.mark.parametrize(
    ("age", "is_reported", "is_held"),
    [
        (299, False, False),
        (300, True, False),
        (5 * DAY * 3 // 4 - 1, True, False),
        (5 * DAY * 3 // 4, True, True),
    ],
)
def test_originals_are_reported_early_and_held_late(
    age: int, is_reported: bool, is_held: bool
) -> None:
    rescue_plan = make_plan(message(age))
    assert (bool(rescue_plan.overdue), bool(rescue_plan.to_hold)) == (
        is_reported,
        is_held,
    )


def test_the_null_sender_counts_with_its_own_lifetime() -> None:
    lifetimes = Lifetimes(maximal=5 * DAY, bounce=600, rescue_after=DAY)
    assert make_plan(message(300, sender="MAILER-DAEMON"), lifetimes=lifetimes).to_hold
    assert not make_plan(message(300), lifetimes=lifetimes).to_hold


def test_nothing_is_held_while_the_filter_works() -> None:
    assert not make_plan(message(4 * DAY), is_working=True).to_hold


def test_only_what_a_rescue_has_held_is_released_and_only_when_it_works() -> None:
    held_message = message(4 * DAY, queue="hold")
    assert make_plan(held_message, is_working=True, held_id="4Zx").to_release == (
        held_message,
    )
    assert not make_plan(held_message, is_working=False, held_id="4Zx").to_release
    assert not make_plan(held_message, is_working=True).to_release
    assert not make_plan(held_message).overdue  # somebody else's: they know


@pytest.mark.parametrize("name", ["4jZ3353p6zzJC1q", "82CCB20CC19"])
def test_what_a_rescue_has_held_is_released_under_the_name_it_has_now(
    name: str,
) -> None:
    """postsuper -S after the queue was moved, or queue ids became short."""
    moved = message(DAY, queue="hold", queue_id=name)
    assert make_plan(moved, is_working=True, held_id="4jZ3353p6zzJBM6").to_release == (
        moved,
    )
    assert make_plan(moved, held_id="4jZ3353p6zzJBM6").overdue == (moved,)
    assert rescue_plan.match_held([moved], ["4jZ3353p6zzJBM6", "4jZ3353p7zzJBM6"]) == {
        name: "4jZ3353p6zzJBM6"
    }


def test_what_the_postmaster_has_released_is_no_longer_recorded_as_held() -> None:
    on_hold = message(4 * DAY, queue="hold")
    assert make_plan(on_hold, held_id="4Zx").released_elsewhere == ()
    assert make_plan(message(4 * DAY), held_id="4Zx").released_elsewhere == ("4Zx",)
    assert make_plan(held_id="4Zx").released_elsewhere == ("4Zx",)


def test_mail_that_is_not_ours_is_left_alone() -> None:
    assert make_plan(message(4 * DAY, through="")) == RescuePlan()


def test_mailed_copies_are_renewed_before_they_end() -> None:
    def mailed(age: int) -> QueuedMessage:
        return message(age, "legal@x.org", through="archive-relay:[relay]", sender="")

    assert not make_plan(mailed(3 * DAY)).to_requeue
    assert make_plan(mailed(4 * DAY)).to_requeue


CAPTURE = '"capture.00.61.bob@example.net"@archive-request.invalid'


def capture(age: int, *others: str, queue: str = "deferred") -> QueuedMessage:
    """Return a message in native mode; others are recipients that wait as well."""
    recipients = (CAPTURE, *others)
    reasons = ("why",) * len(recipients)
    return QueuedMessage("4Zy", age, "a@example.org", recipients, reasons, "", queue)


@pytest.mark.parametrize(
    ("message", "is_moved", "is_saved"),
    [
        (capture(DAY - 1), False, False),
        (capture(DAY), True, False),
        (capture(0, queue="hold"), True, False),
        (capture(DAY, "bob@example.net"), False, False),
        (capture(4 * DAY, "bob@example.net"), False, True),
        (capture(4 * DAY, "bob@example.net", queue="hold"), False, False),
    ],
)
def test_a_capture_is_moved_or_copied_and_never_put_on_hold(
    message: QueuedMessage, is_moved: bool, is_saved: bool
) -> None:
    plan = make_plan(message)
    assert plan.to_rescue == ((message,) if is_moved else ())
    assert plan.to_save == ((message,) if is_saved else ())
    assert plan.to_hold == plan.to_release == ()
    assert bool(plan.overdue) == (message.queue != "hold")
