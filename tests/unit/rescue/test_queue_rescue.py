"""A rescue changes the queue with one postsuper(1) for many messages."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from postfix_archive.config.settings import Settings
from postfix_archive.errors import PostfixCommandFailed, StoreFailed
from postfix_archive.postfix import mail_queue, postfix_command
from postfix_archive.postfix.queued_message import QueuedMessage
from postfix_archive.rescue import queue_rescue, rescue_plan
from postfix_archive.system import privileges

from unit.examples import make_settings
from unit.hosts import make_config

SETTINGS = make_settings("")
DAY = 86400


def capsule(queue_id: str) -> QueuedMessage:
    to = (rescue_plan.CAPSULE_RECIPIENT,)
    return QueuedMessage(queue_id, 60, "", to, ("down",), "archive:", "hold")


@pytest.mark.parametrize("name", ["maximal_queue_lifetime", "bounce_queue_lifetime"])
def test_mail_that_gets_one_delivery_attempt_is_expiring_at_once(name: str) -> None:
    """postconf(5): with a lifetime of 0 mail is returned after one attempt."""
    lifetimes = queue_rescue.lifetimes(make_config({name: "0"}), SETTINGS)
    sender = "<a@example.org>" if name.startswith("maximal") else ""
    message = QueuedMessage("4Z1", 1, sender, ("b@example.net",), ("down",))
    assert lifetimes.is_expiring(message) and lifetimes.is_overdue(message)


def make_none(*_: object) -> None:
    """Make no capsule: there is no message of native mode."""


CAPSULES = [capsule("4Z1"), capsule("4Z2"), capsule("4Z3")]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The postsuper(1) commands, each with its standard input as last word."""
    commands: list[tuple[str, ...]] = []

    def run(directory: str, *arguments: str, content: bytes = b"") -> str:
        commands.append((*arguments, content.decode()))
        return ""

    monkeypatch.setattr(postfix_command, "run", run)
    return commands


def test_many_messages_are_one_process(commands: list[tuple[str, ...]]) -> None:
    ids = ["4Z1", "4Z2", "4Z1"]
    mail_queue.change("/etc/postfix", mail_queue.REQUEUE, ids, "deferred")
    assert commands == [("postsuper", "-r", "-", "deferred", "4Z1\n4Z2\n")]


def test_no_message_is_no_process(commands: list[tuple[str, ...]]) -> None:
    mail_queue.change("/etc/postfix", mail_queue.DELETE, [])
    assert commands == []


def test_capsules_are_held_saved_and_deleted(
    commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    monkeypatch.setattr(mail_queue, "list_messages", lambda directory: CAPSULES)
    monkeypatch.setattr(queue_rescue, "_save", lambda *a: saved.append(a[2].queue_id))
    moved = queue_rescue.move_capsules("/etc/postfix", SETTINGS, CAPSULES, make_none)
    assert moved == saved == ["4Z1", "4Z2", "4Z3"]
    ids = "4Z1\n4Z2\n4Z3\n"
    assert commands == [
        ("postsuper", "-h", "-", ids),
        ("postsuper", "-d", "-", "hold", ids),
    ]


def test_of_what_is_not_saved_only_the_young_is_released(
    commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postfix deletes a copy over its lifetime at the next failure."""
    ages = {"4Z1": 60, "4Z2": 60, "4Z3": 6 * DAY, "4Z4": 60}
    capsules = [replace(capsule(each), age=age) for each, age in ages.items()]

    def save(
        directory: str, settings: Settings, message: QueuedMessage, _: object
    ) -> None:
        if message.queue_id == "4Z2":
            raise StoreFailed("no space left")

    monkeypatch.setattr(mail_queue, "list_messages", lambda directory: capsules)
    monkeypatch.setattr(queue_rescue, "_save", save)
    with pytest.raises(StoreFailed, match="no space left"):
        queue_rescue.move_capsules("/etc/postfix", SETTINGS, capsules, make_none)
    assert [each for each in commands[1:] if each[0] == "postsuper"] == [
        ("postsuper", "-d", "-", "hold", "4Z1\n"),
        ("postsuper", "-H", "-", "hold", "4Z2\n4Z4\n"),
    ]


def test_a_queue_has_one_rescue_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hold").mkdir()
    monkeypatch.setattr(postfix_command, "run", lambda *words: f"{tmp_path}\n")
    first = queue_rescue.lock("/etc/postfix")
    assert first >= 0
    assert queue_rescue.lock("/etc/postfix") == -1
    os.close(first)
    again = queue_rescue.lock("/etc/postfix")
    assert again >= 0
    os.close(again)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("user", ["nobody", "nobody:daemon"])
def test_a_command_runs_with_the_ids_of_a_user_alone(user: str) -> None:
    process = privileges.run_as(user, ["/usr/bin/id", "-u"], 60)
    assert int(process.stdout) == pwd.getpwnam("nobody").pw_uid
    groups = privileges.run_as(user, ["/usr/bin/id", "-Gn"], 60).stdout.split()
    primary = subprocess.run(
        ["/usr/bin/id", "-gn", "nobody"], capture_output=True, text=True, check=True
    )
    assert groups == [user.partition(":")[2] or primary.stdout.strip()]


def test_a_command_that_hangs_is_a_reason_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    launcher = tmp_path / "archive-stamp"
    launcher.write_text("#!/bin/sh\nexec sleep 600\n")
    launcher.chmod(0o755)
    monkeypatch.setattr(postfix_command, "COMMAND_TIMEOUT", 0.2)
    user = pwd.getpwuid(os.geteuid()).pw_name
    error = queue_rescue._launcher_error(str(launcher), user, SETTINGS)
    assert error == f"{launcher}: not done within 0.2 s"
    with pytest.raises(PostfixCommandFailed, match="timed out"):
        postfix_command._run_process(["/bin/sleep", "600"])


def test_originals_may_come_from_an_iterator(
    commands: list[tuple[str, ...]], tmp_path: Path
) -> None:
    """All are held and recorded, and only those that are forgotten are."""
    queue_rescue.hold(str(tmp_path), iter(CAPSULES), "2026-11-22T11:53:00Z")
    assert list(queue_rescue.read_hold_times(str(tmp_path))) == ["4Z1", "4Z2", "4Z3"]
    assert commands == [("postsuper", "-h", "-", "4Z1\n4Z2\n4Z3\n")]
    queue_rescue.forget(str(tmp_path), iter(["4Z3", "4Z1"]))
    assert list(queue_rescue.read_hold_times(str(tmp_path))) == ["4Z2"]


def test_standard_input_reaches_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "postsuper"
    script.write_text("#!/bin/sh\ncat\n")
    script.chmod(0o755)
    monkeypatch.setattr(postfix_command, "find_command", lambda name: str(script))
    ids = b"4Z1\n" * 100_000  # more than a pipe holds
    assert postfix_command.run("/", "postsuper", content=ids).encode() == ids
    assert postfix_command.run("/", "postsuper") == ""
