"""The journal's outcome of each recipient is the truth, and the truth is true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from mail_network import MailNetwork
from outcome_scenarios import (
    GROUPS,
    NATIVE_GROUPS,
    RELAYED,
    REMOTE_DOMAIN,
    SCENARIOS,
    WAITING,
    Group,
    Scenario,
    differences,
    has_arrived,
    play,
    scenarios_of,
)

from mails import LEGAL, archives_of
from private_postfix import NATIVE_MODES, WaitTimeout

pytestmark = pytest.mark.live
EXPECTED_OUTCOMES = [
    each for scenario in SCENARIOS for each in scenario.expected_outcomes
]


@pytest.fixture(scope="module")
def network() -> Iterator[MailNetwork]:
    """A world in which everything has been played, and the log was read."""
    with MailNetwork() as instance:
        for group in GROUPS:
            play(instance, group, lambda group: wait_until_settled(instance, group))
        yield instance


def wait_until_settled(network: MailNetwork, group: Group) -> None:
    """Read the log until all is settled that is to be; the tests say if it is not."""
    expected = Counter(
        (expected_outcome.recipient, expected_outcome.parent)
        for scenario in scenarios_of(group)
        for expected_outcome in scenario.expected_outcomes
        if expected_outcome.kind != WAITING and not expected_outcome.can_be_waiting
    )
    try:
        network.wait(
            lambda: not expected - _settled(network), f"{group.name} is settled"
        )
    except WaitTimeout:
        pass


def outcomes(network: MailNetwork) -> list[dict[str, Any]]:
    """Read the log, and return all outcomes of the journal."""
    process = network.run_command("outcomes", "--once")
    assert process.returncode == 0, process.stderr
    return _recorded(network)


def _recorded(network: MailNetwork) -> list[dict[str, Any]]:
    return [each for each in network.events(LEGAL) if each["event"] == "outcome"]


def _settled(network: MailNetwork) -> Counter[tuple[str, str]]:
    return Counter(
        (event["recipient"], event.get("parent", ""))
        for event in outcomes(network)
        if event["outcome"] != WAITING
    )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_each_outcome_is_the_expected_one(
    network: MailNetwork, scenario: Scenario
) -> None:
    events = _recorded(network)
    assert [
        difference
        for expected in scenario.expected_outcomes
        for difference in differences(network, expected, events)
    ] == []


def test_no_outcome_is_noted_twice(network: MailNetwork) -> None:
    names = ("id", "of", "recipient", "original", "parent")
    counts = Counter(
        (*(each.get(name, "") for name in names), each["outcome"] == WAITING)
        for each in _recorded(network)
    )
    assert [each for each, count in counts.items() if count > 1] == []


def test_nobody_has_an_outcome_to_whom_nothing_was_sent(network: MailNetwork) -> None:
    expected = {(each.recipient, each.parent) for each in EXPECTED_OUTCOMES}
    recorded = {
        (each["recipient"], each.get("parent", "")) for each in _recorded(network)
    }
    assert recorded - expected == set()


def test_a_second_look_at_the_same_log_adds_nothing(network: MailNetwork) -> None:
    before = outcomes(network)
    assert outcomes(network) == before


def test_each_outcome_belongs_to_a_record(network: MailNetwork) -> None:
    records = {
        each["id"] for each in network.events(LEGAL) if each["event"] == "archived"
    }
    assert {each["id"] for each in _recorded(network)} <= records


# --- the truth ------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_mail_has_arrived_where_it_is_expected(
    network: MailNetwork, scenario: Scenario
) -> None:
    wrong = [
        each
        for each in scenario.expected_outcomes
        if not has_arrived(network, scenario, each)
    ]
    assert not wrong


def test_all_of_it_is_archived_that_reached_the_archive(network: MailNetwork) -> None:
    for scenario in SCENARIOS:
        archives = set(archives_of(network, scenario.name))
        assert archives == ({LEGAL} if scenario.is_archived else set())


def test_the_remote_host_refused_the_expected_recipients(network: MailNetwork) -> None:
    for scenario in SCENARIOS:
        for truth in scenario.expected_outcomes:
            if truth.kind == "failed" and truth.remote == "{far}":
                address = truth.expanded_to[0] if truth.expanded_to else truth.recipient
                refused = network.remote.times_refused(address)
                assert refused == 1 or "nodata" in str(scenario.recipients)


def test_no_recipient_is_in_two_scenarios() -> None:
    counts = Counter(
        (each.recipient, each.parent)
        for scenario in SCENARIOS
        for each in scenario.expected_outcomes
    )
    assert [each for each, count in counts.items() if count > 1] == []


# --- and later -----------------------------------------------------------------------


def test_what_waited_is_settled_later(network: MailNetwork) -> None:
    recipient = f"gate-holding@{REMOTE_DOMAIN}"
    network.remote.accept("gate-holding")
    network.postsuper("-H", network.wait_for_queued(recipient, "hold"))
    network.flush()
    network.wait(
        lambda: recipient not in network.queued_recipients(), f"{recipient} has it"
    )

    def last() -> dict[str, Any]:
        return [each for each in outcomes(network) if each["recipient"] == recipient][
            -1
        ]

    network.wait(lambda: last()["outcome"] == RELAYED, "that is in the journal")
    assert last()["status"] == "2.0.0"


# --- native modes ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", NATIVE_MODES)
def test_the_outcomes_are_the_same_in_a_native_mode(mode: str) -> None:
    """What a content filter keeps is not archived: it comes before the archive."""
    scenarios = [each for group in NATIVE_GROUPS for each in scenarios_of(group)]
    with MailNetwork(mode=mode) as network:
        for group in NATIVE_GROUPS:
            play(network, group, lambda group: wait_until_settled(network, group))
        events = _recorded(network)
        for scenario in scenarios:
            is_archived = scenario.is_archived and not scenario.is_kept
            archives = archives_of(network, scenario.name)
            count = len(scenario.recipients) if scenario.is_split else 1
            assert archives == [LEGAL] * count * is_archived, scenario.name
            assert [
                difference
                for expected in scenario.expected_outcomes
                for difference in differences(network, expected, events)
            ] == []
            for expected in scenario.expected_outcomes:
                assert has_arrived(network, scenario, expected), expected
        assert outcomes(network) == events
