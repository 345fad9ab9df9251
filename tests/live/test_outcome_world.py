"""The world in which outcomes are tested is as its scenarios say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from outcome_scenarios import GROUPS, SCENARIOS, Scenario, is_there, play
from outcome_world import World

from mails import LEGAL, archives_of

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A world in which everything has been played."""
    with World() as made:
        for group in GROUPS:
            play(made, group)
        yield made


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
