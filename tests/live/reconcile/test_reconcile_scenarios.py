"""Reconcile in a world of filters, aliases, lists and bounces: nothing cries wolf."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Any

import pytest
from outcome_scenarios import GROUPS, Group, of_group, play
from outcome_world import World

pytestmark = pytest.mark.live
Found = dict[str, dict[str, Any]]
MISSING = {"uncaught": {"deleted": 1}}  # the scenarios in which mail is lost on purpose
THROWN = {"plain": 1}
BY_A_LIST = {"plain": 1}  # what a list manager sends is a message of its own


@pytest.fixture(scope="module")
def found() -> Iterator[Found]:
    """What reconcile says of each group of scenarios, while its settings hold."""
    said: Found = {}
    with World() as world:
        for group in GROUPS:
            since = a_new_second(world)

            def look(played: Group, since: str = since) -> None:
                done = world.command("reconcile", "--json", "--since", since)
                said[played.name] = json.loads(done.stdout)

            play(world, group, look)
    yield said


def a_new_second(world: World) -> str:
    """Return the time in whole seconds, as in a log, in which nothing has come yet."""

    def now() -> str:
        return f"{datetime.datetime.now(datetime.timezone.utc):%F %T}"

    before = now()
    world.wait(lambda: now() != before, "a new second")
    return now()


@pytest.mark.parametrize("group", GROUPS, ids=lambda each: each.name)
def test_what_is_archived_is_not_missed(found: Found, group: Group) -> None:
    said = found[group.name]
    name = group.name
    assert said["causes"] == MISSING.get(name, {})
    assert said["not_requested"] == THROWN.get(name, 0)
    assert said["waiting"] == said["rescued"] == said["unclear"] == 0
    assert said["accepted"] == len(of_group(group)) + BY_A_LIST.get(name, 0)
