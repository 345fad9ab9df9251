"""Reconcile in a world of filters, aliases, lists and bounces: nothing cries wolf."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from mail_network import MailNetwork
from outcome_scenarios import (
    GROUPS,
    NATIVE_GROUPS,
    Group,
    play,
    scenarios_of,
)

from private_postfix import NATIVE_MODES

pytestmark = pytest.mark.live
ResultsByGroup = dict[str, dict[str, Any]]
MISSING = {"uncaught": {"deleted": 1}}  # the scenarios in which mail is lost on purpose
DISCARDED = {"plain": 1}
FROM_LIST = {"plain": 1}  # what a list manager sends is a message of its own


@pytest.fixture(scope="module")
def results_by_group() -> ResultsByGroup:
    """What reconcile says of each group of scenarios, while its settings hold."""
    return play_and_reconcile(GROUPS, "pipe")


def play_and_reconcile(groups: tuple[Group, ...], mode: str) -> ResultsByGroup:
    results: ResultsByGroup = {}
    with MailNetwork(mode=mode) as network:
        for group in groups:
            group_start = wait_for_new_second(network)

            def record_result(group: Group, period_start: str = group_start) -> None:
                process = network.run_command(
                    "reconcile", "--json", "--since", period_start
                )
                results[group.name] = json.loads(process.stdout)

            play(network, group, record_result)
    return results


def wait_for_new_second(network: MailNetwork) -> str:
    """Return the time in whole seconds, as in a log, in which nothing has come yet."""

    def now() -> str:
        return f"{datetime.datetime.now(datetime.timezone.utc):%F %T}"

    before = now()
    network.wait(lambda: now() != before, "a new second")
    return now()


@pytest.mark.parametrize("group", GROUPS, ids=lambda each: each.name)
def test_what_is_archived_is_not_missed(
    results_by_group: ResultsByGroup, group: Group
) -> None:
    result = results_by_group[group.name]
    name = group.name
    assert result["causes"] == MISSING.get(name, {})
    assert result["not_requested"] == DISCARDED.get(name, 0)
    assert result["waiting"] == result["rescued"] == result["unclear"] == 0
    assert result["accepted"] == len(scenarios_of(group)) + FROM_LIST.get(name, 0)


@pytest.mark.parametrize("mode", NATIVE_MODES)
def test_what_is_archived_is_not_missed_in_a_native_mode(mode: str) -> None:
    """What a content filter keeps does not reach the archive, and is no loss."""
    results = play_and_reconcile(NATIVE_GROUPS, mode)
    for group in NATIVE_GROUPS:
        result, scenarios = results[group.name], scenarios_of(group)
        kept = sum(each.is_kept for each in scenarios)
        assert result["causes"] == {}, group.name
        assert result["not_requested"] == DISCARDED.get(group.name, 0) + kept
        assert result["waiting"] == result["rescued"] == result["unclear"] == 0
        assert result["accepted"] == len(scenarios) + FROM_LIST.get(group.name, 0)
