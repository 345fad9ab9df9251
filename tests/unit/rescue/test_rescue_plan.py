"""Claims about the plan of a rescue: what is taken, held, released, and when."""

from __future__ import annotations

import pytest

from postfix_archive.postfix.queued_message import QueuedMessage
from postfix_archive.rescue import rescue_plan
from postfix_archive.rescue.rescue_plan import Lifetimes, RescuePlan

DAY = 86400
USUAL = Lifetimes(maximal=5 * DAY, bounce=5 * DAY, rescue_after=DAY)
SHORT = Lifetimes(maximal=600, bounce=600, rescue_after=DAY)
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


def plan(
    *waiting: QueuedMessage, works: bool = False, held: str = "", of: Lifetimes = USUAL
) -> RescuePlan:
    return rescue_plan.plan_rescue(
        waiting, of, {held: "then"} if held else {}, can_filter_run=works
    )


@pytest.mark.parametrize(
    ("age", "of", "taken"),
    [
        (DAY - 1, USUAL, False),
        (DAY, USUAL, True),
        (299, SHORT, False),
        (300, SHORT, True),  # half of its life: before it ends, whatever is set
    ],
)
def test_copies_are_taken_in_time(age: int, of: Lifetimes, taken: bool) -> None:
    assert bool(plan(copy(age), of=of).to_rescue) == taken


def test_a_capsule_on_hold_is_taken_at_once() -> None:
    assert plan(copy(1, queue="hold")).to_rescue


def test_a_capsule_that_was_requeued_is_a_copy_too() -> None:
    assert plan(message(DAY, CAPSULE)).to_rescue
    assert not plan(message(DAY, CAPSULE)).overdue


@pytest.mark.parametrize(
    ("age", "stuck", "hold"),
    [
        (299, False, False),
        (300, True, False),
        (5 * DAY * 3 // 4 - 1, True, False),
        (5 * DAY * 3 // 4, True, True),
    ],
)
def test_originals_are_told_of_early_and_held_late(
    age: int, stuck: bool, hold: bool
) -> None:
    found = plan(message(age))
    assert (bool(found.overdue), bool(found.to_hold)) == (stuck, hold)


def test_the_null_sender_counts_with_its_own_lifetime() -> None:
    of = Lifetimes(maximal=5 * DAY, bounce=600, rescue_after=DAY)
    assert plan(message(300, sender="MAILER-DAEMON"), of=of).to_hold
    assert not plan(message(300), of=of).to_hold


def test_nothing_is_held_while_the_filter_works() -> None:
    assert not plan(message(4 * DAY), works=True).to_hold


def test_only_what_a_rescue_has_held_is_released_and_only_when_it_works() -> None:
    held = message(4 * DAY, queue="hold")
    assert plan(held, works=True, held="4Zx").to_release == (held,)
    assert not plan(held, works=False, held="4Zx").to_release
    assert not plan(held, works=True).to_release
    assert not plan(held).overdue  # somebody else's: they know


@pytest.mark.parametrize("name", ["4jZ3353p6zzJC1q", "82CCB20CC19"])
def test_what_a_rescue_has_held_is_released_under_the_name_it_has_now(
    name: str,
) -> None:
    """postsuper -S after the queue was moved, or queue ids became short."""
    moved = message(DAY, queue="hold", queue_id=name)
    assert plan(moved, works=True, held="4jZ3353p6zzJBM6").to_release == (moved,)
    assert plan(moved, held="4jZ3353p6zzJBM6").overdue == (moved,)
    assert rescue_plan.match_held([moved], ["4jZ3353p6zzJBM6", "4jZ3353p7zzJBM6"]) == {
        name: "4jZ3353p6zzJBM6"
    }


def test_what_somebody_has_released_is_no_longer_noted_as_held() -> None:
    on_hold = message(4 * DAY, queue="hold")
    assert plan(on_hold, held="4Zx").released_elsewhere == ()
    assert plan(message(4 * DAY), held="4Zx").released_elsewhere == ("4Zx",)
    assert plan(held="4Zx").released_elsewhere == ("4Zx",)


def test_mail_that_is_not_ours_is_left_alone() -> None:
    assert plan(message(4 * DAY, through="")) == RescuePlan()


def test_mailed_copies_are_renewed_before_they_end() -> None:
    def mailed(age: int) -> QueuedMessage:
        return message(age, "legal@x.org", through="archive-relay:[relay]", sender="")

    assert not plan(mailed(3 * DAY)).to_requeue
    assert plan(mailed(4 * DAY)).to_requeue
