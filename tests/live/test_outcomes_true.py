"""The journal's outcome of each recipient is the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from outcome_scenarios import (
    FAR,
    GROUPS,
    RELAYED,
    SCENARIOS,
    WAITING,
    Scenario,
    differences,
    play,
)
from outcome_world import World

from mails import LEGAL
from private_postfix import NotInTime

pytestmark = pytest.mark.live
TRUTHS = [each for scenario in SCENARIOS for each in scenario.truths]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A world in which everything has been played, and the log was read."""
    with World() as made:
        for group in GROUPS:
            play(made, group)
        settled = sum(each.kind != WAITING and not each.or_waiting for each in TRUTHS)
        try:
            made.wait(
                lambda: len(_settled(made)) >= settled,
                "all outcomes are in the journal",
            )
        except NotInTime:
            pass  # the tests say which are not
        yield made


def outcomes(world: World) -> list[dict[str, Any]]:
    """Read the log, and return all outcomes of the journal."""
    done = world.command("outcomes", "--once")
    assert done.returncode == 0, done.stderr
    return _noted(world)


def _noted(world: World) -> list[dict[str, Any]]:
    return [each for each in world.events(LEGAL) if each["event"] == "outcome"]


def _settled(world: World) -> list[dict[str, Any]]:
    return [each for each in outcomes(world) if each["outcome"] != WAITING]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_the_outcome_is_the_truth(world: World, scenario: Scenario) -> None:
    noted = _noted(world)
    assert [
        each for truth in scenario.truths for each in differences(world, truth, noted)
    ] == []


def test_no_outcome_is_noted_twice(world: World) -> None:
    names = ("id", "of", "recipient", "original", "parent")
    noted = Counter(
        (*(each.get(name, "") for name in names), each["outcome"] == WAITING)
        for each in _noted(world)
    )
    assert [each for each, count in noted.items() if count > 1] == []


def test_nobody_has_an_outcome_to_whom_nothing_was_sent(world: World) -> None:
    known = {(each.recipient, each.parent) for each in TRUTHS}
    noted = {(each["recipient"], each.get("parent", "")) for each in _noted(world)}
    assert noted - known == set()


def test_a_second_look_at_the_same_log_adds_nothing(world: World) -> None:
    before = outcomes(world)
    assert outcomes(world) == before


def test_each_outcome_belongs_to_a_record(world: World) -> None:
    records = {
        each["id"] for each in world.events(LEGAL) if each["event"] == "archived"
    }
    assert {each["id"] for each in _noted(world)} <= records


def test_what_waited_is_settled_later(world: World) -> None:
    recipient = f"gate-holding@{FAR}"
    world.remote.open("gate-holding")
    world.postsuper("-H", world.waits(recipient, "hold"))
    world.flush()
    world.wait(lambda: recipient not in world.in_queue(), f"{recipient} has it")

    def last() -> dict[str, Any]:
        return [each for each in outcomes(world) if each["recipient"] == recipient][-1]

    world.wait(lambda: last()["outcome"] == RELAYED, "that is in the journal")
    assert last()["status"] == "2.0.0"
