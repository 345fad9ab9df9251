"""Each outcome exactly once, whatever happens to the follower and to the log."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest
from mail_network import MailNetwork
from outcome_scenarios import (
    WAITING,
    ExpectedOutcome,
    differences,
    in_mailbox,
    refused,
    relayed,
)

from mails import LEGAL, mail
from private_postfix import ROOT, Client, WaitTimeout

pytestmark = pytest.mark.live


class RepeatedlyKilledFollower:
    """A follower that is killed at random and started again, until it may end."""

    def __init__(self, network: MailNetwork, generator: random.Random) -> None:
        self._network = network
        self._generator = generator
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kill_count = 0

    def __enter__(self) -> RepeatedlyKilledFollower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        arguments = ["-c", str(self._network.etc), "outcomes", "--follow"]
        command = [sys.executable, "-m", "postfix_archive", *arguments]
        while not self._stop.is_set():
            with subprocess.Popen(command, cwd=ROOT) as follower:
                self._stop.wait(self._generator.uniform(0.1, 3.0))
                follower.kill()
            self.kill_count += 1


def expected_outcome(number: int) -> ExpectedOutcome:
    """Whom a message is for, and what becomes of it."""
    name = f"m{number}"
    kinds = (
        relayed(f"yes-{name}"),
        refused(f"no-{name}"),
        in_mailbox(f"daemon+{name}"),
        relayed(f"later-{name}", tries=3),
        ExpectedOutcome(f"{name}@discard.example.com", "discarded", "2.0.0", "none"),
    )
    return kinds[number % len(kinds)]


def send(network: MailNetwork, numbers: range) -> None:
    """Send messages over one connection."""
    with Client(network.smtp_port) as client:
        for number in numbers:
            client.send(
                mail(f"message {number}"), to=[expected_outcome(number).recipient]
            )


# postfix(1) compresses one second after the rotation. On a busy machine postlogd(8) may
# still write to the old file then, and such a line is lost.
COMPRESSOR = """#!/bin/sh
while find /proc/[0-9]*/fd -lname "$1" 2>/dev/null | grep -q .; do sleep 0.1; done
exec gzip "$1"
"""


def rotate_as_postfix_does(network: MailNetwork) -> None:
    """postfix logrotate: another name, compressed, and postlogd(8) begins anew."""
    compressor = network.directory / "compress-when-closed"
    if not compressor.exists():
        compressor.write_text(COMPRESSOR)
        compressor.chmod(0o755)
        network.postconf(maillog_file_compressor=str(compressor))
    subprocess.run(["postfix", "-c", str(network.etc), "logrotate"], check=True)


def rotate_by_copy(network: MailNetwork, number: int = 1) -> None:
    """Copy, truncate, compress the copy; when nothing is logged, or lines are lost."""
    network.wait_for_empty_queue()
    copy = network.log_path.with_name(f"maillog.{number}")
    shutil.copy2(network.log_path, copy)
    os.truncate(network.log_path, 0)
    with open(copy, "rb") as plain, gzip.open(f"{copy}.gz", "wb") as compressed:
        shutil.copyfileobj(plain, compressed)
    shutil.copystat(copy, f"{copy}.gz")
    copy.unlink()


def outcomes_by_recipient(network: MailNetwork) -> dict[str, list[dict[str, Any]]]:
    """Read what is left of the log; return the journal's outcomes by recipient."""
    process = network.run_command("outcomes", "--once")
    assert process.returncode == 0 and process.stderr == "", process.stderr
    outcomes = defaultdict(list)
    for event in network.events(LEGAL):
        if event["event"] == "outcome":
            outcomes[str(event["recipient"])].append(event)
    return outcomes


def wait_until_settled(network: MailNetwork, numbers: Iterable[int]) -> None:
    """Read the log until these messages' recipients are settled."""
    unsettled = {expected_outcome(number).recipient for number in numbers}

    def are_settled() -> bool:
        for recipient, events in outcomes_by_recipient(network).items():
            if any(event["outcome"] != WAITING for event in events):
                unsettled.discard(recipient)
        return not unsettled

    try:
        network.wait(are_settled, "all are settled")
    except WaitTimeout as error:
        pytest.fail(f"not settled: {unsettled}\n{error}")


@pytest.mark.parametrize(
    "count", [200, pytest.param(5000, marks=pytest.mark.slow)], ids=str
)
def test_a_killed_follower_and_rotated_logs_record_each_outcome_once(
    count: int,
) -> None:
    generator = random.Random(count)
    batch = max(count // 10, 50)
    with MailNetwork() as world:
        with RepeatedlyKilledFollower(world, generator) as killed:
            for number, start in enumerate(range(0, count, batch)):
                if number % 3 == 2:
                    rotate_by_copy(world, number)
                elif number:
                    rotate_as_postfix_does(world)
                send(world, range(start, start + batch))
            world.wait_for_empty_queue()
        assert killed.kill_count > 3
        print(
            f"{count} messages, {number} rotations, {killed.kill_count} kills", end=" "
        )
        wait_until_settled(world, range(count))
        outcomes = outcomes_by_recipient(world)
        wrong = [
            each
            for number in range(count)
            for each in differences(
                world,
                expected_outcome(number),
                outcomes[expected_outcome(number).recipient],
            )
        ]
        assert wrong == []
        repeated = [
            each
            for each in outcomes.values()
            if len({e["outcome"] == WAITING for e in each}) < len(each)
        ]
        assert repeated == []
        assert len(outcomes) == count


def test_a_temporarily_missing_log_is_reported_and_nothing_is_guessed() -> None:
    with MailNetwork() as world:
        send(world, range(2))
        world.wait_for_empty_queue()
        wait_until_settled(world, range(2))
        send(world, range(5, 7))
        world.wait_for_empty_queue()
        os.truncate(world.log_path, 0)
        send(world, range(10, 12))
        world.wait_for_empty_queue()
        process = world.run_command("outcomes", "--once")
        assert process.returncode == 0 and "log lines may be missing" in process.stderr
        wait_until_settled(world, (0, 1, 10, 11))
        outcomes = outcomes_by_recipient(world)
        for number in (0, 1, 10, 11):
            recipient_outcomes = outcomes[expected_outcome(number).recipient]
            assert (
                differences(world, expected_outcome(number), recipient_outcomes) == []
            )
        for number in (5, 6):
            recipient_outcomes = outcomes.get(expected_outcome(number).recipient, [])
            assert [
                each for each in recipient_outcomes if each["outcome"] != WAITING
            ] == []
