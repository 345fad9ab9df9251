"""kill -9 before every single step of all that is ours: nothing lost, nothing twice.

Of both modes, of the archive transport, and of the process aside that puts copies
straight into the store.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mails import LEGAL, mail, record_of
from private_postfix import ROOT, PrivatePostfix

pytestmark = pytest.mark.live

MESSAGES = 110  # more than any of them has steps
OLD_AGE = 3 * 86400  # seconds
VARYING_STEPS = (
    3  # steps at the end that not every run has: answers come in fewer reads
)
ON_DISK = {"open", "write", "fsync", "link", "flock", "chmod", "close", "unlink"}
BY_SMTP = {"connect", "sendall", "recv"}
STEPS = {
    "archive-stamp": BY_SMTP | {"write", "exit"},
    # Without connect: which step that is depends on the connections that are kept.
    "archive-lmtp": BY_SMTP - {"connect"} | {"write", "answered"},
    "archive": BY_SMTP | ON_DISK | {"exit"},
    "archive-capture": BY_SMTP | ON_DISK | {"exit"},
    "aside": BY_SMTP | ON_DISK,
}


@dataclass(frozen=True)
class Case:
    """By which way copies go, who dies over them, and who mails the copies."""

    mode: str
    victims: tuple[str, ...]
    reinjecting_program: str  # of the victims, who hands the message back
    mailing_program: str  # and who mails the copy

    @property
    def dots(self) -> int:
        """How many messages the stamp filter gives to Postfix."""
        return 2 if self.mode == "capsule" else 1


CASES = {
    "capsule": Case("capsule", ("archive-stamp",), "archive-stamp", ""),
    # Apart: after a death of the stamp filter some messages have two capsules.
    "archive": Case("capsule", ("archive",), "", "archive"),
    "pipe": Case("pipe", ("archive-stamp",), "archive-stamp", ""),
    "pipe-aside": Case("pipe", ("aside",), "", "aside"),
    "lmtp": Case("lmtp", ("archive-lmtp",), "archive-lmtp", ""),
    "lmtp-aside": Case("lmtp", ("aside",), "", "aside"),
    "native": Case("native", ("archive-lmtp",), "", "archive-lmtp"),
    "native-pipe": Case("native-pipe", ("archive-capture",), "", "archive-capture"),
}


@dataclass(frozen=True)
class KilledProcess:
    """One death: before which step, and how far the hand-over to Postfix was."""

    queue_id: str
    number: int
    step: str
    end_of_data_count: int  # messages whose final dot was sent
    acknowledged_count: int  # messages that Postfix has said 250 to


@dataclass(frozen=True)
class KillRun:
    """An instance afterwards: its messages by queue id, its record of deaths."""

    case: Case
    postfix: PrivatePostfix
    name_by_queue_id: dict[str, str]
    faults: Path

    def deaths(self, victim: str) -> list[KilledProcess]:
        """Return how one of the victims died, step by step."""
        if not victim:
            return []
        kills = []
        for line in (self.faults / f"{victim}.killed").read_text().splitlines():
            queue_id, number, step, dots, acknowledged = line.split()
            kills.append(
                KilledProcess(queue_id, int(number), step, int(dots), int(acknowledged))
            )
        return sorted(kills, key=lambda each: each.number)

    def copies(self, recipient: str) -> Counter[str]:
        """Return how often each message was delivered to somebody, by its name."""
        counts = Counter(dict.fromkeys(self.name_by_queue_id.values(), 0))
        for delivery in self.postfix.delivered_to(recipient):
            lines = delivery.content.split(b"\n")
            [name] = {
                line[9:].decode()
                for line in lines
                if line.startswith(b"Subject: killed-")
            } or {""}
            counts[name] += 1
        del counts[""]
        return counts


@pytest.fixture(scope="module", params=CASES)
def kill_run(request: pytest.FixtureRequest) -> Iterator[KillRun]:
    """All messages, over each of which somebody dies; then nothing is queued."""
    case = CASES[request.param]
    postfix = PrivatePostfix(
        mode=case.mode,
        main={"default_process_limit": "50"},
    )
    faults = postfix.directory / "faults"
    faults.mkdir()
    faults.chmod(0o777)
    postfix.add_to_environment(POSTFIX_ARCHIVE_FAULTS=str(faults))
    for launcher in ("archive-stamp", "archive-capture", "archive", "archive-lmtp"):
        shutil.copy(
            ROOT / "tests" / "faulty_launcher.py", postfix.program_directory / launcher
        )
        (postfix.program_directory / launcher).chmod(0o755)
    with postfix:
        postfix.send(mail("folders"), to=["carol@example.net"])  # they are made once
        postfix.wait_for_empty_queue()
        for victim in case.victims:
            (faults / f"armed-{victim}").touch()
        name_by_queue_id = {
            postfix.send(mail(f"killed-{number}")): f"killed-{number}"
            for number in range(MESSAGES)
        }
        postfix.wait_for_empty_queue()
        yield KillRun(case, postfix, name_by_queue_id, faults)


def test_each_has_died_before_every_one_of_its_steps(kill_run: KillRun) -> None:
    for victim in kill_run.case.victims:
        kills = kill_run.deaths(victim)
        numbers = [each.number for each in kills]
        certain_numbers = numbers[:-VARYING_STEPS]
        assert certain_numbers == list(range(1, len(certain_numbers) + 1))
        assert len(numbers) < MESSAGES  # those that came after had no such step left
        steps = STEPS[victim]
        if kill_run.case.mode == "native":
            steps = steps | ON_DISK
        assert steps <= {each.step for each in kills}
        if victim != "aside":  # it ends with whom it belongs to
            assert kills[-1].step in ("exit", "answered", "recv")


def test_every_message_is_in_the_store_once(kill_run: KillRun) -> None:
    postfix = kill_run.postfix
    for name in kill_run.name_by_queue_id.values():
        kinds = [str(each["event"]) for each in record_of(postfix, name).events]
        assert kinds.count("archived") == 1
        assert set(kinds) <= {"archived", "mailed"}
    assert len(postfix.stored_files(LEGAL)) == MESSAGES + 1
    process = postfix.run_command("verify")
    assert process.returncode == 0, process.stdout


def test_every_message_is_delivered_and_only_those_of_the_window_twice(
    kill_run: KillRun,
) -> None:
    """The window: Postfix has the message back, and the filter has not exited yet.

    Or the worker not answered yet.
    """
    counts = kill_run.copies("bob@example.net")
    assert min(counts.values()) == 1
    delivered_twice = {name for name, count in counts.items() if count > 1}
    kills = [
        e
        for e in kill_run.deaths(kill_run.case.reinjecting_program)
        if e.step != "answered"
    ]
    last = kill_run.case.dots
    acknowledged_names = {
        kill_run.name_by_queue_id[each.queue_id]
        for each in kills
        if each.acknowledged_count == last
    }
    end_of_data_names = {
        kill_run.name_by_queue_id[each.queue_id]
        for each in kills
        if each.end_of_data_count == last
    }
    assert acknowledged_names <= delivered_twice <= end_of_data_names
    # Between the two there is only the 250, not yet read.
    between = [
        each.step
        for each in kills
        if each.end_of_data_count == last > each.acknowledged_count
    ]
    assert set(between) == ({"recv"} if kills else set())
    assert max(counts.values()) == (2 if kills else 1)


def test_every_copy_is_mailed_and_only_those_of_the_window_twice(
    kill_run: KillRun,
) -> None:
    """The window: Postfix has the copy, and the journal does not say so yet."""
    counts = kill_run.copies(LEGAL)
    assert min(counts.values()) == 1
    assert max(counts.values()) <= 2
    extra_count = sum(counts.values()) - len(counts)
    assert extra_count <= sum(
        each.end_of_data_count == 1
        for each in kill_run.deaths(kill_run.case.mailing_program)
    )


def test_drafts_that_the_dead_left_go_with_time(kill_run: KillRun) -> None:
    postfix = kill_run.postfix
    drafts = list((postfix.store / LEGAL / "drafts").iterdir())
    assert bool(drafts) == bool(
        kill_run.case.mailing_program
    )  # who mails has written before
    assert postfix.run_command("fallback", "import").returncode == 0
    assert all(each.exists() for each in drafts)  # young: a run may be at work
    for each in drafts:
        os.utime(each, (time.time() - OLD_AGE, time.time() - OLD_AGE))
    assert postfix.run_command("fallback", "import").returncode == 0
    assert not list((postfix.store / LEGAL / "drafts").iterdir())
    assert postfix.run_command("verify").returncode == 0
