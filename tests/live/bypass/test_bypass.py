"""The gate past a broken filter: mail flows, and the journals say so."""

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
    (postfix.program / "archive-stamp").chmod(0)


def mend_filter(postfix: PrivatePostfix) -> None:
    (postfix.program / "archive-stamp").chmod(0o755)


def run(
    postfix: PrivatePostfix, *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as root behind sudo(8) does."""
    return subprocess.run(
        [COMMAND, "-c", str(postfix.etc), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def gaps(postfix: PrivatePostfix) -> list[str]:
    """The kinds of the journal's events."""
    return [str(each["event"]) for each in postfix.events()]


def test_mail_flows_through_the_gate_and_the_journal_says_so(
    broken: PrivatePostfix,
) -> None:
    broken.send(b"Subject: one\n\nx\n", to=["alias@example.net"])
    broken.wait_for_log("archive-stamp.*status=(SOFTBOUNCE|deferred)")
    assert not broken.deliveries()

    opened = run(broken, "bypass", "on", "--reason", REASON, SUDO_USER="carol")
    assert opened.returncode == 0, opened.stderr
    assert "UNARCHIVED" in opened.stdout and "for the filter: 1;" in opened.stdout
    broken.settle()
    assert [each.recipients for each in broken.deliveries()] == [("bob@example.net",)]

    broken.send(b"Subject: two\n\nx\n", to=["alias@example.net"])
    broken.settle()
    assert [each.recipients for each in broken.deliveries()] == [
        ("bob@example.net",),
        ("bob@example.net",),
    ]
    assert b"Archive-Stamp" not in broken.deliveries()[0].content
    assert not broken.stored()
    assert "ALARM: bypass on, mail is UNARCHIVED" in broken.log()

    mend_filter(broken)
    closed = run(broken, "bypass", "off")
    assert closed.returncode == 0, closed.stderr
    broken.send(b"Subject: three\n\nx\n", to=["alias@example.net"])
    broken.settle()
    assert len(broken.stored()) == 1
    assert gaps(broken)[:3] == ["gap-opened", "gap-closed", "archived"]
    first, second = broken.events()[:2]
    assert first["by"] == second["by"] == "carol as root"
    assert first["why"] == REASON
    assert second["opened"] == first["opened"] and second["closed_by"] == "root"
    journal = broken.store / "legal@example.com" / "journal"
    assert pwd.getpwuid(journal.stat().st_uid).pw_name == USER


def test_status_shouts_until_the_gate_is_closed(broken: PrivatePostfix) -> None:
    assert run(broken, "status").returncode == 0
    run(broken, "bypass", "on", "--reason", REASON)
    shouted = run(broken, "status")
    assert shouted.returncode == 2
    assert shouted.stdout.startswith("BYPASS: mail is UNARCHIVED since")
    assert REASON in shouted.stdout
    assert json.loads(run(broken, "status", "--json").stdout)["gap"]["why"] == REASON
    run(broken, "bypass", "off")
    after = run(broken, "status")
    assert after.returncode == 0
    assert "BYPASS" not in after.stdout
    assert f"by root: {REASON}" in after.stdout


def test_a_store_that_is_gone_keeps_no_gate_shut(broken: PrivatePostfix) -> None:
    hidden = broken.store.with_name("hidden")
    broken.store.rename(hidden)
    opened = run(broken, "bypass", "on", "--reason", REASON)
    assert opened.returncode == 0
    assert "cannot be written now" in opened.stdout
    closed = run(broken, "bypass", "off")
    assert closed.returncode == 1
    assert "mail is archived again" in closed.stderr
    assert "\narchive_bypass = \n" in (broken.etc / "main.cf").read_text()
    assert run(broken, "status").stdout.startswith("BYPASS: mail was UNARCHIVED from")

    hidden.rename(broken.store)
    assert run(broken, "bypass", "off").returncode == 0
    assert gaps(broken) == ["gap-opened", "gap-closed"]
    assert not (broken.etc / "archive.gap").exists()


def test_a_broken_archive_cf_keeps_no_gate_shut(broken: PrivatePostfix) -> None:
    broken.set_archive_cf(archive_delivery="nowhere")
    opened = run(broken, "bypass", "on", "--reason", REASON)
    assert opened.returncode == 0, opened.stderr
    assert "legal@example.com cannot be written now" in opened.stdout
    closed = run(broken, "bypass", "off")
    assert closed.returncode == 1 and "archive_delivery" in closed.stderr
    assert "\narchive_bypass = \n" in (broken.etc / "main.cf").read_text()

    broken.set_archive_cf()
    assert run(broken, "bypass", "off").returncode == 0
    assert gaps(broken) == ["gap-opened", "gap-closed"]


AS_NOBODY = """
import os, pwd, sys
from postfix_archive.cli import main as cli
os.setgroups([])
os.setgid(pwd.getpwnam("nobody").pw_gid)
os.setuid(pwd.getpwnam("nobody").pw_uid)
cli.main(sys.argv[1:])
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
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "-c", str(broken.etc), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "sudo" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (broken.etc / "archive.gap").exists()


def test_what_makes_no_sense_is_refused(broken: PrivatePostfix) -> None:
    assert "the bypass is off" in run(broken, "bypass", "off").stderr
    assert run(broken, "bypass", "on").returncode == 2
    assert run(broken, "bypass", "on", "--reason", " ").returncode == 2
    run(broken, "bypass", "on", "--reason", REASON)
    again = run(broken, "bypass", "on", "--reason", "another")
    assert again.returncode == 1 and REASON in again.stderr
    run(broken, "bypass", "off")
    broken.postconf(content_filter="archive-stamp:legal@example.com")
    before = (broken.etc / "main.cf").read_bytes()
    old = run(broken, "bypass", "on", "--reason", REASON)
    assert old.returncode == 1 and "make install again" in old.stderr
    assert (broken.etc / "main.cf").read_bytes() == before
    assert not (broken.etc / "archive.gap").exists()
