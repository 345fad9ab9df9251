"""The journal's outcome of each recipient is the truth, and the truth is true."""

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
    Group,
    Scenario,
    differences,
    is_there,
    of_group,
    play,
)
from outcome_world import World

from mails import LEGAL, archives_of
from private_postfix import NotInTime

pytestmark = pytest.mark.live
TRUTHS = [each for scenario in SCENARIOS for each in scenario.truths]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A world in which everything has been played, and the log was read."""
    with World() as made:
        for group in GROUPS:
            play(made, group, lambda group: settle(made, group))
        yield made


def settle(world: World, group: Group) -> None:
    """Read the log until all is settled that is to be; the tests say if it is not."""
    wanted = Counter(
        (each.recipient, each.parent)
        for scenario in of_group(group)
        for each in scenario.truths
        if each.kind != WAITING and not each.or_waiting
    )
    try:
        world.wait(lambda: not wanted - _settled(world), f"{group.name} is settled")
    except NotInTime:
        pass


def outcomes(world: World) -> list[dict[str, Any]]:
    """Read the log, and return all outcomes of the journal."""
    done = world.command("outcomes", "--once")
    assert done.returncode == 0, done.stderr
    return _noted(world)


def _noted(world: World) -> list[dict[str, Any]]:
    return [each for each in world.events(LEGAL) if each["event"] == "outcome"]


def _settled(world: World) -> Counter[tuple[str, str]]:
    return Counter(
        (each["recipient"], each.get("parent", ""))
        for each in outcomes(world)
        if each["outcome"] != WAITING
    )


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


# --- the truth ------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_mail_has_come_to_whom_the_truth_says(world: World, scenario: Scenario) -> None:
    wrong = [each for each in scenario.truths if not is_there(world, scenario, each)]
    assert not wrong


def test_all_of_it_is_archived_that_reached_the_archive(world: World) -> None:
    for scenario in SCENARIOS:
        archives = set(archives_of(world, scenario.name))
        assert archives == ({LEGAL} if scenario.is_archived else set())


def test_the_remote_side_refused_whom_the_truth_says(world: World) -> None:
    for scenario in SCENARIOS:
        for truth in scenario.truths:
            if truth.kind == "failed" and truth.remote == "{far}":
                address = truth.expanded_to[0] if truth.expanded_to else truth.recipient
                refused = world.remote.times_refused(address)
                assert refused == 1 or "nodata" in str(scenario.recipients)


def test_no_recipient_is_in_two_scenarios() -> None:
    named = Counter(
        (each.recipient, each.parent)
        for scenario in SCENARIOS
        for each in scenario.truths
    )
    assert [each for each, count in named.items() if count > 1] == []


# --- and later -----------------------------------------------------------------------


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
