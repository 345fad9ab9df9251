"""The bypass of a broken filter: mail flows, and the journals record it."""

from __future__ import annotations

import json
import os
import pwd
import smtplib
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
def broken_filter_host() -> Iterator[PrivatePostfix]:
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
    broken_filter_host: PrivatePostfix,
) -> None:
    broken_filter_host.send(b"Subject: one\n\nx\n", to=["alias@example.net"])
    broken_filter_host.wait_for_log("archive-stamp.*status=(SOFTBOUNCE|deferred)")
    assert not broken_filter_host.deliveries()

    opened = run_command(
        broken_filter_host, "bypass", "on", "--reason", REASON, SUDO_USER="carol"
    )
    assert opened.returncode == 0, opened.stderr
    assert "UNARCHIVED" in opened.stdout and "for the filter: 1;" in opened.stdout
    broken_filter_host.wait_for_empty_queue()
    assert [each.recipients for each in broken_filter_host.deliveries()] == [
        ("bob@example.net",)
    ]

    broken_filter_host.send(b"Subject: two\n\nx\n", to=["alias@example.net"])
    broken_filter_host.wait_for_empty_queue()
    assert [each.recipients for each in broken_filter_host.deliveries()] == [
        ("bob@example.net",),
        ("bob@example.net",),
    ]
    assert b"Archive-Stamp" not in broken_filter_host.deliveries()[0].content
    assert not broken_filter_host.stored_files()
    assert "alarm=bypass-on reason=by " in broken_filter_host.log()

    repair_filter(broken_filter_host)
    closed = run_command(broken_filter_host, "bypass", "off")
    assert closed.returncode == 0, closed.stderr
    broken_filter_host.send(b"Subject: three\n\nx\n", to=["alias@example.net"])
    broken_filter_host.wait_for_empty_queue()
    assert len(broken_filter_host.stored_files()) == 1
    assert event_names(broken_filter_host)[:3] == [
        "bypass-started",
        "bypass-ended",
        "archived",
    ]
    first, second = broken_filter_host.events()[:2]
    assert first["started_by"] == second["started_by"] == "carol as root"
    assert first["reason"] == REASON
    assert second["started"] == first["started"]
    assert second["ended_by"] == "root" and "ended" not in first
    journal = broken_filter_host.store / "legal@example.com" / "journal"
    assert pwd.getpwuid(journal.stat().st_uid).pw_name == USER


def test_mail_on_a_connection_from_before_passes_too(
    broken_filter_host: PrivatePostfix,
) -> None:
    client = smtplib.SMTP("127.0.0.1", broken_filter_host.smtp_port)
    client.sendmail("alice@example.org", ["bob@example.net"], b"Subject: 1\n\nx\n")
    broken_filter_host.wait_for_log("archive-stamp.*status=(SOFTBOUNCE|deferred)")
    command = [str(COMMAND), "-c", str(broken_filter_host.etc), "bypass", "on"]
    with subprocess.Popen([*command, "--reason", REASON]) as process:
        broken_filter_host.wait(
            lambda: len(broken_filter_host.deliveries()) == 1, "the first passes"
        )
        client.sendmail("alice@example.org", ["bob@example.net"], b"Subject: 2\n\nx\n")
        client.quit()
        assert process.wait() == 0
    broken_filter_host.wait_for_empty_queue()
    assert len(broken_filter_host.deliveries()) == 2


def test_a_connection_that_stays_open_is_named(
    broken_filter_host: PrivatePostfix,
) -> None:
    repair_filter(broken_filter_host)
    with smtplib.SMTP("127.0.0.1", broken_filter_host.smtp_port) as client:
        client.noop()
        on = run_command(broken_filter_host, "bypass", "on", "--reason", REASON)
        assert "SMTP connections from before (process ids " in on.stdout
        off = run_command(broken_filter_host, "bypass", "off")
        assert "SMTP connections from before (process ids " in off.stdout


def test_workers_that_keep_their_connections_are_no_clients() -> None:
    with PrivatePostfix(mode="lmtp") as postfix:
        postfix.send(b"Subject: 1\n\nx\n")
        postfix.wait_for_empty_queue()
        on = run_command(postfix, "bypass", "on", "--reason", REASON)
        assert on.returncode == 0
        assert "SMTP connections" not in on.stdout


def test_status_warns_until_the_bypass_is_off(
    broken_filter_host: PrivatePostfix,
) -> None:
    assert run_command(broken_filter_host, "status").returncode == 0
    run_command(broken_filter_host, "bypass", "on", "--reason", REASON)
    shouted = run_command(broken_filter_host, "status")
    assert shouted.returncode == 2
    assert shouted.stdout.startswith("BYPASS: mail is UNARCHIVED since")
    assert REASON in shouted.stdout
    assert (
        json.loads(run_command(broken_filter_host, "status", "--json").stdout)[
            "bypass"
        ]["reason"]
        == REASON
    )
    run_command(broken_filter_host, "bypass", "off")
    after = run_command(broken_filter_host, "status")
    assert after.returncode == 0
    assert "BYPASS" not in after.stdout
    assert f"by root: {REASON}" in after.stdout


def test_a_missing_store_does_not_stop_the_bypass(
    broken_filter_host: PrivatePostfix,
) -> None:
    hidden = broken_filter_host.store.with_name("hidden")
    broken_filter_host.store.rename(hidden)
    opened = run_command(broken_filter_host, "bypass", "on", "--reason", REASON)
    assert opened.returncode == 0
    assert "cannot be written now" in opened.stdout
    closed = run_command(broken_filter_host, "bypass", "off")
    assert closed.returncode == 1
    assert "mail is archived again" in closed.stderr
    assert "\narchive_bypass = \n" in (broken_filter_host.etc / "main.cf").read_text()
    assert run_command(broken_filter_host, "status").stdout.startswith(
        "BYPASS: mail was UNARCHIVED from"
    )

    hidden.rename(broken_filter_host.store)
    assert run_command(broken_filter_host, "bypass", "off").returncode == 0
    assert event_names(broken_filter_host) == ["bypass-started", "bypass-ended"]
    assert not (broken_filter_host.etc / "archive.bypass").exists()


def test_a_broken_archive_cf_does_not_stop_the_bypass(
    broken_filter_host: PrivatePostfix,
) -> None:
    broken_filter_host.set_archive_cf(archive_delivery="nowhere")
    opened = run_command(broken_filter_host, "bypass", "on", "--reason", REASON)
    assert opened.returncode == 0, opened.stderr
    assert "legal@example.com cannot be written now" in opened.stdout
    closed = run_command(broken_filter_host, "bypass", "off")
    assert closed.returncode == 1 and "archive_delivery" in closed.stderr
    assert "\narchive_bypass = \n" in (broken_filter_host.etc / "main.cf").read_text()

    broken_filter_host.set_archive_cf()
    assert run_command(broken_filter_host, "bypass", "off").returncode == 0
    assert event_names(broken_filter_host) == ["bypass-started", "bypass-ended"]


AS_NOBODY = """
import os, pwd, sys
from postfix_archive.cli.main import main
os.setgroups([])
os.setgid(pwd.getpwnam("nobody").pw_gid)
os.setuid(pwd.getpwnam("nobody").pw_uid)
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("exit_code", "arguments"),
    [
        (1, ["bypass", "on", "--reason", REASON]),
        (1, ["bypass", "off"]),
        (3, ["doctor"]),
        (3, ["doctor", "--json"]),
    ],
)
def test_only_root_may(
    broken_filter_host: PrivatePostfix, exit_code: int, arguments: list[str]
) -> None:
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            AS_NOBODY,
            "-c",
            str(broken_filter_host.etc),
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == exit_code
    assert "sudo" in process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    assert not (broken_filter_host.etc / "archive.bypass").exists()


def test_what_makes_no_sense_is_refused(broken_filter_host: PrivatePostfix) -> None:
    assert (
        "the bypass is off" in run_command(broken_filter_host, "bypass", "off").stderr
    )
    assert run_command(broken_filter_host, "bypass", "on").returncode == 2
    assert (
        run_command(broken_filter_host, "bypass", "on", "--reason", " ").returncode == 2
    )
    run_command(broken_filter_host, "bypass", "on", "--reason", REASON)
    second_time = run_command(broken_filter_host, "bypass", "on", "--reason", "another")
    assert second_time.returncode == 1 and REASON in second_time.stderr
    run_command(broken_filter_host, "bypass", "off")
    broken_filter_host.postconf(content_filter="archive-stamp:legal@example.com")
    before = (broken_filter_host.etc / "main.cf").read_bytes()
    old = run_command(broken_filter_host, "bypass", "on", "--reason", REASON)
    assert old.returncode == 1 and "make install again" in old.stderr
    assert (broken_filter_host.etc / "main.cf").read_bytes() == before
    assert not (broken_filter_host.etc / "archive.bypass").exists()
