"""The bypass of a broken filter: mail flows, and the journals record it."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_postfix import USER, PrivatePostfix

pytestmark = pytest.mark.live
COMMAND = Path(sys.executable).parent / "postfix-archive"
REASON = "the disk of /usr is broken, ticket 17"


@pytest.fixture
def broken() -> Iterator[PrivatePostfix]:
    """An instance whose stamp filter cannot run, with an alias to be mapped once."""
    with PrivatePostfix() as postfix:
        (postfix.etc / "aliases").write_text("alias@example.net bob@example.net\n")
        postfix.postconf(virtual_alias_maps=f"texthash:{postfix.etc}/aliases")
        break_filter(postfix)
        postfix.reload()
        yield postfix


def break_filter(postfix: PrivatePostfix) -> None:
    (postfix.program_directory / "archive-stamp").chmod(0)


def repair_filter(postfix: PrivatePostfix) -> None:
    (postfix.program_directory / "archive-stamp").chmod(0o755)


def run_command(
    postfix: PrivatePostfix, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as root behind sudo(8) does."""
    return subprocess.run(
        [COMMAND, "-c", str(postfix.etc), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def event_names(postfix: PrivatePostfix) -> list[str]:
    """The names of the journal's events."""
    return [str(each["event"]) for each in postfix.events()]


def test_mail_passes_and_the_journal_records_the_bypass(
    broken: PrivatePostfix,
) -> None:
    broken.send(b"Subject: one\n\nx\n", to=["alias@example.net"])
    broken.wait_for_log("archive-stamp.*status=(SOFTBOUNCE|deferred)")
    assert not broken.deliveries()

    opened = run_command(broken, "bypass", "on", "--reason", REASON, SUDO_USER="carol")
    assert opened.returncode == 0, opened.stderr
    assert "UNARCHIVED" in opened.stdout and "for the filter: 1;" in opened.stdout
    broken.wait_for_empty_queue()
    assert [each.recipients for each in broken.deliveries()] == [("bob@example.net",)]

    broken.send(b"Subject: two\n\nx\n", to=["alias@example.net"])
    broken.wait_for_empty_queue()
    assert [each.recipients for each in broken.deliveries()] == [
        ("bob@example.net",),
        ("bob@example.net",),
    ]
    assert b"Archive-Stamp" not in broken.deliveries()[0].content
    assert not broken.stored_files()
    assert "alarm=bypass-on reason=by " in broken.log()

    repair_filter(broken)
    closed = run_command(broken, "bypass", "off")
    assert closed.returncode == 0, closed.stderr
    broken.send(b"Subject: three\n\nx\n", to=["alias@example.net"])
    broken.wait_for_empty_queue()
    assert len(broken.stored_files()) == 1
    assert event_names(broken)[:3] == ["bypass-started", "bypass-ended", "archived"]
    first, second = broken.events()[:2]
    assert first["started_by"] == second["started_by"] == "carol as root"
    assert first["reason"] == REASON
    assert second["started"] == first["started"]
    assert second["ended_by"] == "root" and "ended" not in first
    journal = broken.store / "legal@example.com" / "journal"
    assert pwd.getpwuid(journal.stat().st_uid).pw_name == USER


def test_status_warns_until_the_bypass_is_off(broken: PrivatePostfix) -> None:
    assert run_command(broken, "status").returncode == 0
    run_command(broken, "bypass", "on", "--reason", REASON)
    shouted = run_command(broken, "status")
    assert shouted.returncode == 2
    assert shouted.stdout.startswith("BYPASS: mail is UNARCHIVED since")
    assert REASON in shouted.stdout
    assert (
        json.loads(run_command(broken, "status", "--json").stdout)["bypass"]["reason"]
        == REASON
    )
    run_command(broken, "bypass", "off")
    after = run_command(broken, "status")
    assert after.returncode == 0
    assert "BYPASS" not in after.stdout
    assert f"by root: {REASON}" in after.stdout


def test_a_missing_store_does_not_stop_the_bypass(broken: PrivatePostfix) -> None:
    hidden = broken.store.with_name("hidden")
    broken.store.rename(hidden)
    opened = run_command(broken, "bypass", "on", "--reason", REASON)
    assert opened.returncode == 0
    assert "cannot be written now" in opened.stdout
    closed = run_command(broken, "bypass", "off")
    assert closed.returncode == 1
    assert "mail is archived again" in closed.stderr
    assert "\narchive_bypass = \n" in (broken.etc / "main.cf").read_text()
    assert run_command(broken, "status").stdout.startswith(
        "BYPASS: mail was UNARCHIVED from"
    )

    hidden.rename(broken.store)
    assert run_command(broken, "bypass", "off").returncode == 0
    assert event_names(broken) == ["bypass-started", "bypass-ended"]
    assert not (broken.etc / "archive.bypass").exists()


def test_a_broken_archive_cf_does_not_stop_the_bypass(broken: PrivatePostfix) -> None:
    broken.set_archive_cf(archive_delivery="nowhere")
    opened = run_command(broken, "bypass", "on", "--reason", REASON)
    assert opened.returncode == 0, opened.stderr
    assert "legal@example.com cannot be written now" in opened.stdout
    closed = run_command(broken, "bypass", "off")
    assert closed.returncode == 1 and "archive_delivery" in closed.stderr
    assert "\narchive_bypass = \n" in (broken.etc / "main.cf").read_text()

    broken.set_archive_cf()
    assert run_command(broken, "bypass", "off").returncode == 0
    assert event_names(broken) == ["bypass-started", "bypass-ended"]


AS_NOBODY = """
import os, pwd, sys
from postfix_archive.cli.main import main
os.setgroups([])
os.setgid(pwd.getpwnam("nobody").pw_gid)
os.setuid(pwd.getpwnam("nobody").pw_uid)
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, ["bypass", "on", "--reason", REASON]),
        (1, ["bypass", "off"]),
        (3, ["doctor"]),
        (3, ["doctor", "--json"]),
    ],
)
def test_only_root_may(broken: PrivatePostfix, code: int, words: list[str]) -> None:
    process = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "-c", str(broken.etc), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == code
    assert "sudo" in process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    assert not (broken.etc / "archive.bypass").exists()


def test_what_makes_no_sense_is_refused(broken: PrivatePostfix) -> None:
    assert "the bypass is off" in run_command(broken, "bypass", "off").stderr
    assert run_command(broken, "bypass", "on").returncode == 2
    assert run_command(broken, "bypass", "on", "--reason", " ").returncode == 2
    run_command(broken, "bypass", "on", "--reason", REASON)
    second_time = run_command(broken, "bypass", "on", "--reason", "another")
    assert second_time.returncode == 1 and REASON in second_time.stderr
    run_command(broken, "bypass", "off")
    broken.postconf(content_filter="archive-stamp:legal@example.com")
    before = (broken.etc / "main.cf").read_bytes()
    old = run_command(broken, "bypass", "on", "--reason", REASON)
    assert old.returncode == 1 and "make install again" in old.stderr
    assert (broken.etc / "main.cf").read_bytes() == before
    assert not (broken.etc / "archive.bypass").exists()
