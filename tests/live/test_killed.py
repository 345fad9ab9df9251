"""kill -9 before every single step of both doors: nothing lost, nothing twice."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mails import LEGAL, mail, record_of
from private_postfix import ROOT, PrivatePostfix

pytestmark = pytest.mark.live

MESSAGES = 110  # more than either door has steps
OLD = 3 * 86400  # seconds


@dataclass(frozen=True)
class Kill:
    """One death: before which step, and how far the hand-over to Postfix was."""

    queue_id: str
    number: int
    step: str
    dots: int  # messages whose final dot was sent
    acknowledged: int  # messages that Postfix has said 250 to


@pytest.fixture(scope="module")
def killed() -> Iterator[tuple[PrivatePostfix, dict[str, str], Path]]:
    """An instance after the storm: its messages by queue id, its record of deaths."""
    postfix = PrivatePostfix(
        main={"export_environment": "PLACEHOLDER", "default_process_limit": "50"}
    )
    faults = postfix.folder / "faults"
    faults.mkdir()
    faults.chmod(0o777)
    names = f"TZ MAIL_CONFIG LANG POSTFIX_ARCHIVE_FAULTS={faults}"
    postfix.postconf(export_environment=names)
    for door in ("archive-stamp", "archive"):
        shutil.copy(ROOT / "tests" / "faulty_door.py", postfix.program / door)
        (postfix.program / door).chmod(0o755)
    with postfix:
        postfix.send(mail("folders"), to=["carol@example.net"])  # they are made once
        postfix.settle()
        (faults / "armed").touch()
        sent = {
            postfix.send(mail(f"killed-{number}")): f"killed-{number}"
            for number in range(MESSAGES)
        }
        postfix.settle()
        yield postfix, sent, faults


def deaths(faults: Path, door: str) -> list[Kill]:
    found = []
    for line in (faults / f"{door}.killed").read_text().splitlines():
        queue_id, number, step, dots, acknowledged = line.split()
        found.append(Kill(queue_id, int(number), step, int(dots), int(acknowledged)))
    return sorted(found, key=lambda each: each.number)


@pytest.mark.parametrize(
    ("door", "steps"),
    [
        ("archive-stamp", {"connect", "sendall", "recv", "write", "exit"}),
        (
            "archive",
            {"open", "write", "fsync", "link", "flock", "chmod", "exit"}
            | {"connect", "sendall", "recv", "close", "unlink", "rename"},
        ),
    ],
)
def test_each_door_died_before_every_one_of_its_steps(
    killed: tuple[PrivatePostfix, dict[str, str], Path], door: str, steps: set[str]
) -> None:
    _, _, faults = killed
    found = deaths(faults, door)
    numbers = [each.number for each in found]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) < MESSAGES  # those that came after had no such step left
    assert steps <= {each.step for each in found}
    assert found[-1].step == "exit"


def test_every_message_is_in_the_store_once(
    killed: tuple[PrivatePostfix, dict[str, str], Path],
) -> None:
    postfix, sent, _ = killed
    for name in sent.values():
        words = [str(each["event"]) for each in record_of(postfix, name).events]
        assert words.count("archived") == 1
        assert set(words) <= {"archived", "mailed"}
    assert len(postfix.stored(LEGAL)) == MESSAGES + 1
    done = postfix.command("verify")
    assert done.returncode == 0, done.stdout


def test_every_message_is_delivered_and_only_those_of_the_window_twice(
    killed: tuple[PrivatePostfix, dict[str, str], Path],
) -> None:
    """The window: Postfix has the message back, and the filter has not exited yet."""
    postfix, sent, faults = killed
    counts = dict.fromkeys(sent.values(), 0)
    for each in postfix.delivered_to("bob@example.net"):
        subject = each.content.partition(b"Subject: ")[2].partition(b"\n")[0].decode()
        counts[subject] += 1
    assert min(counts.values()) == 1
    twice = {name for name, count in counts.items() if count > 1}
    stamps = deaths(faults, "archive-stamp")
    inside = {sent[each.queue_id] for each in stamps if each.acknowledged == 2}
    about = {sent[each.queue_id] for each in stamps if each.dots == 2}
    assert inside <= twice <= about
    assert len(about) - len(inside) == 1  # Postfix's 250 itself, not yet read
    assert max(counts.values()) == 2


def test_drafts_that_the_dead_left_go_with_time(
    killed: tuple[PrivatePostfix, dict[str, str], Path],
) -> None:
    postfix, _, _ = killed
    drafts = list((postfix.store / LEGAL / "drafts").iterdir())
    assert drafts
    assert postfix.command("return").returncode == 0
    assert all(each.exists() for each in drafts)  # young: a run may be at work
    for each in drafts:
        os.utime(each, (time.time() - OLD, time.time() - OLD))
    assert postfix.command("return").returncode == 0
    assert not list((postfix.store / LEGAL / "drafts").iterdir())
    assert postfix.command("verify").returncode == 0
