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
from typing import Any

import pytest
from outcome_scenarios import WAITING, Truth, boxed, differences, refused, relayed
from outcome_world import World

from mails import LEGAL, mail
from private_postfix import ROOT, Client

pytestmark = pytest.mark.live


class Killed:
    """A follower that is killed at random and started again, until it may end."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.times = 0

    def __enter__(self) -> Killed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        words = ["-c", str(self._world.etc), "outcomes", "--follow"]
        command = [sys.executable, "-m", "postfix_archive", *words]
        while not self._end.is_set():
            with subprocess.Popen(command, cwd=ROOT) as follower:
                self._end.wait(self._chance.uniform(0.1, 3.0))
                follower.kill()
            self.times += 1


def truth(number: int) -> Truth:
    """Whom a message is for, and what becomes of it."""
    name = f"m{number}"
    kinds = (
        relayed(f"yes-{name}"),
        refused(f"no-{name}"),
        boxed(f"daemon+{name}"),
        relayed(f"later-{name}", tries=3),
        Truth(f"{name}@discard.example.com", "discarded", "2.0.0", "none"),
    )
    return kinds[number % len(kinds)]


def send(world: World, numbers: range) -> None:
    """Send messages over one connection."""
    with Client(world.smtp_port) as client:
        for number in numbers:
            client.send(mail(f"message {number}"), to=[truth(number).recipient])


def rotate_as_postfix_does(world: World) -> None:
    """postfix logrotate: another name, compressed, and postlogd(8) begins anew."""
    subprocess.run(["postfix", "-c", str(world.etc), "logrotate"], check=True)


def rotate_by_copy(world: World, number: int = 1) -> None:
    """Copy, truncate, compress the copy; when nothing is logged, or lines are lost."""
    world.settle()
    copy = world.logfile.with_name(f"maillog.{number}")
    shutil.copy2(world.logfile, copy)
    os.truncate(world.logfile, 0)
    with open(copy, "rb") as plain, gzip.open(f"{copy}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    shutil.copystat(copy, f"{copy}.gz")
    copy.unlink()


def noted(world: World) -> dict[str, list[dict[str, Any]]]:
    """Read what is left of the log; return the journal's outcomes by recipient."""
    done = world.command("outcomes", "--once")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    found = defaultdict(list)
    for each in world.events(LEGAL):
        if each["event"] == "outcome":
            found[str(each["recipient"])].append(each)
    return found


def is_settled(found: dict[str, list[dict[str, Any]]], count: int) -> bool:
    """Tell whether so many recipients are settled."""
    done = [any(e["outcome"] != WAITING for e in each) for each in found.values()]
    return sum(done) >= count


@pytest.mark.parametrize(
    "count", [200, pytest.param(5000, marks=pytest.mark.slow)], ids=str
)
def test_a_killed_follower_and_rotated_logs_tell_each_outcome_once(count: int) -> None:
    chance = random.Random(count)
    piece = max(count // 10, 50)
    with World() as world:
        with Killed(world, chance) as killed:
            for number, start in enumerate(range(0, count, piece)):
                if number % 3 == 2:
                    rotate_by_copy(world, number)
                elif number:
                    rotate_as_postfix_does(world)
                send(world, range(start, start + piece))
            world.settle()
        assert killed.times > 3
        print(f"{count} messages, {number} rotations, {killed.times} kills", end=" ")
        world.wait(lambda: is_settled(noted(world), count), "all are settled")
        found = noted(world)
        wrong = [
            each
            for number in range(count)
            for each in differences(
                world, truth(number), found[truth(number).recipient]
            )
        ]
        assert wrong == []
        repeated = [
            each
            for each in found.values()
            if len({e["outcome"] == WAITING for e in each}) < len(each)
        ]
        assert repeated == []
        assert len(found) == count


def test_a_log_that_is_gone_for_a_while_is_said_and_nothing_is_guessed() -> None:
    with World() as world:
        send(world, range(2))
        world.settle()
        world.wait(lambda: is_settled(noted(world), 2), "both are settled")
        send(world, range(5, 7))
        world.settle()
        os.truncate(world.logfile, 0)
        send(world, range(10, 12))
        world.settle()
        done = world.command("outcomes", "--once")
        assert done.returncode == 0 and "log lines may be missing" in done.stderr
        world.wait(lambda: is_settled(noted(world), 4), "what the log tells of is")
        found = noted(world)
        for number in (0, 1, 10, 11):
            told = found[truth(number).recipient]
            assert differences(world, truth(number), told) == []
        for number in (5, 6):
            told = found.get(truth(number).recipient, [])
            assert [each for each in told if each["outcome"] != WAITING] == []
