"""kill -9 before every single step of all that is ours: nothing lost, nothing twice.

Of both doors, of the archive transport, and of the process aside that puts copies
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
OLD = 3 * 86400  # seconds
SOMETIMES = 3  # steps at the end that not every run has: answers come in fewer reads
ON_DISK = {"open", "write", "fsync", "link", "flock", "chmod", "close", "unlink"}
BY_SMTP = {"connect", "sendall", "recv"}
STEPS = {
    "archive-stamp": BY_SMTP | {"write", "exit"},
    "archive-lmtp": BY_SMTP | {"write", "answered"},
    "archive": BY_SMTP | ON_DISK | {"exit"},
    "aside": BY_SMTP | ON_DISK,
}


@dataclass(frozen=True)
class Case:
    """By which way copies go, who dies over them, and who mails the copies."""

    way: str
    victims: tuple[str, ...]
    stamps: str  # of the victims, who hands the message back
    mails: str  # and who mails the copy

    @property
    def dots(self) -> int:
        """How many messages the stamp filter gives to Postfix."""
        return 2 if self.way == "capsule" else 1


CASES = {
    "capsule": Case("capsule", ("archive-stamp",), "archive-stamp", ""),
    # Apart: after a death of the stamp filter some messages have two capsules.
    "archive": Case("capsule", ("archive",), "", "archive"),
    "pipe": Case("pipe", ("archive-stamp",), "archive-stamp", ""),
    "pipe-aside": Case("pipe", ("aside",), "", "aside"),
    "lmtp": Case("lmtp", ("archive-lmtp",), "archive-lmtp", ""),
    "lmtp-aside": Case("lmtp", ("aside",), "", "aside"),
}


@dataclass(frozen=True)
class Kill:
    """One death: before which step, and how far the hand-over to Postfix was."""

    queue_id: str
    number: int
    step: str
    dots: int  # messages whose final dot was sent
    acknowledged: int  # messages that Postfix has said 250 to


@dataclass(frozen=True)
class Storm:
    """An instance afterwards: its messages by queue id, its record of deaths."""

    case: Case
    postfix: PrivatePostfix
    sent: dict[str, str]
    faults: Path

    def deaths(self, victim: str) -> list[Kill]:
        """Return how one of the victims died, step by step."""
        if not victim:
            return []
        found = []
        for line in (self.faults / f"{victim}.killed").read_text().splitlines():
            queue_id, number, step, dots, got = line.split()
            found.append(Kill(queue_id, int(number), step, int(dots), int(got)))
        return sorted(found, key=lambda each: each.number)

    def copies(self, to: str) -> Counter[str]:
        """Return how often each message was delivered to somebody, by its name."""
        found = Counter(dict.fromkeys(self.sent.values(), 0))
        for each in self.postfix.delivered_to(to):
            lines = each.content.split(b"\n")
            [name] = {
                line[9:].decode()
                for line in lines
                if line.startswith(b"Subject: killed-")
            } or {""}
            found[name] += 1
        del found[""]
        return found


@pytest.fixture(scope="module", params=CASES)
def storm(request: pytest.FixtureRequest) -> Iterator[Storm]:
    """All messages, over each of which somebody dies; then nothing is queued."""
    case = CASES[request.param]
    postfix = PrivatePostfix(
        door=case.way,
        main={"export_environment": "PLACEHOLDER", "default_process_limit": "50"},
    )
    faults = postfix.folder / "faults"
    faults.mkdir()
    faults.chmod(0o777)
    names = f"TZ MAIL_CONFIG LANG POSTFIX_ARCHIVE_FAULTS={faults}"
    postfix.postconf(export_environment=names)
    for door in ("archive-stamp", "archive", "archive-lmtp"):
        shutil.copy(ROOT / "tests" / "faulty_door.py", postfix.program / door)
        (postfix.program / door).chmod(0o755)
    with postfix:
        postfix.send(mail("folders"), to=["carol@example.net"])  # they are made once
        postfix.settle()
        for victim in case.victims:
            (faults / f"armed-{victim}").touch()
        sent = {
            postfix.send(mail(f"killed-{number}")): f"killed-{number}"
            for number in range(MESSAGES)
        }
        postfix.settle()
        yield Storm(case, postfix, sent, faults)


def test_each_has_died_before_every_one_of_its_steps(storm: Storm) -> None:
    for victim in storm.case.victims:
        found = storm.deaths(victim)
        numbers = [each.number for each in found]
        every = numbers[:-SOMETIMES]
        assert every == list(range(1, len(every) + 1))
        assert len(numbers) < MESSAGES  # those that came after had no such step left
        assert STEPS[victim] <= {each.step for each in found}
        if victim != "aside":  # it ends with whom it belongs to
            assert found[-1].step in ("exit", "answered", "recv")


def test_every_message_is_in_the_store_once(storm: Storm) -> None:
    postfix = storm.postfix
    for name in storm.sent.values():
        words = [str(each["event"]) for each in record_of(postfix, name).events]
        assert words.count("archived") == 1
        assert set(words) <= {"archived", "mailed"}
    assert len(postfix.stored(LEGAL)) == MESSAGES + 1
    done = postfix.command("verify")
    assert done.returncode == 0, done.stdout


def test_every_message_is_delivered_and_only_those_of_the_window_twice(
    storm: Storm,
) -> None:
    """The window: Postfix has the message back, and the filter has not exited yet.

    Or the worker not answered yet.
    """
    counts = storm.copies("bob@example.net")
    assert min(counts.values()) == 1
    twice = {name for name, count in counts.items() if count > 1}
    deaths = [e for e in storm.deaths(storm.case.stamps) if e.step != "answered"]
    last = storm.case.dots
    inside = {storm.sent[each.queue_id] for each in deaths if each.acknowledged == last}
    about = {storm.sent[each.queue_id] for each in deaths if each.dots == last}
    assert inside <= twice <= about
    assert len(about) - len(inside) == (1 if deaths else 0)  # the 250, not yet read
    assert max(counts.values()) == (2 if deaths else 1)


def test_every_copy_is_mailed_and_only_those_of_the_window_twice(storm: Storm) -> None:
    """The window: Postfix has the copy, and the journal does not say so yet."""
    counts = storm.copies(LEGAL)
    assert min(counts.values()) == 1
    assert max(counts.values()) <= 2
    twice = sum(counts.values()) - len(counts)
    assert twice <= sum(each.dots == 1 for each in storm.deaths(storm.case.mails))


def test_drafts_that_the_dead_left_go_with_time(storm: Storm) -> None:
    postfix = storm.postfix
    drafts = list((postfix.store / LEGAL / "drafts").iterdir())
    assert bool(drafts) == bool(storm.case.mails)  # who mails has written before
    assert postfix.command("fallback", "import").returncode == 0
    assert all(each.exists() for each in drafts)  # young: a run may be at work
    for each in drafts:
        os.utime(each, (time.time() - OLD, time.time() - OLD))
    assert postfix.command("fallback", "import").returncode == 0
    assert not list((postfix.store / LEGAL / "drafts").iterdir())
    assert postfix.command("verify").returncode == 0
