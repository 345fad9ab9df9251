"""What Postfix makes of names of sockets, of few workers, and of workers that die."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from postfix_archive.postfix import lmtp_services

from mails import LEGAL, archives_of, deliveries, event_kinds, mail, record_of
from private_postfix import PrivatePostfix, free_ports

pytestmark = pytest.mark.live
SERVICE = "127.0.0.1:{port} inet n - n - - smtpd\n  -o archive={archive}\n"


def address_of_length(length: int) -> str:
    """An address of so many characters."""
    return "x" * (length - len("@example.com")) + "@example.com"


def run_postfix(host: PrivatePostfix, action: str) -> int:
    command = ["postfix", "-c", str(host.etc), action]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    "archive",
    [
        address_of_length(lmtp_services.archive_length_limit(1)),
        "Legal@Example.COM",
        "o'brien_x+y-z@x.org",
    ],
)
def test_an_address_that_install_takes_can_be_a_socket(archive: str) -> None:
    lmtp_services.check_archive(archive, 1)
    [port] = free_ports(1)
    service = SERVICE.format(port=port, archive=archive)
    with PrivatePostfix(mode="lmtp", master=service) as host:
        host.send(mail("named"), port=port)
        host.wait_for_empty_queue()
        assert archives_of(host, "named") == [archive.lower()]
        assert "status=deferred" not in host.log()


def test_one_character_more_ends_postfix_and_neither_check_nor_reload_reports_it() -> (
    None
):
    """So make install refuses it, and the doctor shouts."""
    archive = address_of_length(lmtp_services.archive_length_limit(1) + 1)
    with PrivatePostfix(mode="lmtp") as host:
        host.postconf(archive=archive)
        host.reload()
        queue_id = host.send(mail("unserved"))
        host.wait_for_log(f"{queue_id}: to=.*status=deferred .Server configuration err")
        assert "unix-domain name too long: private/archive.xxx" in host.log()

        with open(host.etc / "master.cf", "a") as master:
            name = f"archive.{archive}"
            master.write(f"{name} unix - n n - 20 spawn user=nobody argv=/bin/false\n")
        assert run_postfix(host, "check") == 0
        assert run_postfix(host, "reload") == 0
        host.wait(lambda: run_postfix(host, "status") != 0, "master(8) has ended")
        assert run_postfix(host, "start") != 0


def one_worker(master: str) -> str:
    return re.sub(r"^(archive\.legal.*) 20 spawn$", r"\1 1 spawn", master, flags=re.M)


def test_with_fewer_workers_than_clients_mail_waits_for_a_greeting() -> None:
    """The kernel takes the connection, and nobody answers it: lmtp_lhlo_timeout."""
    main = {"lmtp_lhlo_timeout": "2s"}
    with PrivatePostfix(mode="lmtp", main=main, edit_master=one_worker) as host:
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(host.queue_directory / "private" / f"archive.{LEGAL}"))
            assert other.recv(1 << 10).startswith(b"220 ")
            host.send(mail("late"))
            host.wait_for_log("status=deferred .*timed out while receiving the initial")
        host.wait_for_empty_queue()
        assert event_kinds(record_of(host, "late")) == ["archived", "mailed"]
        assert len(deliveries(host, "late", "bob@example.net")) == 1


def many_workers(master: str) -> str:
    """Let all messages of a test be at a worker at once."""
    master = re.sub(
        r"^(archive-stamp unix.*) 10 lmtp$", r"\1 40 lmtp", master, flags=re.M
    )
    return re.sub(r"^(archive\..*) 20 spawn$", r"\1 80 spawn", master, flags=re.M)


CONCURRENT = {
    "initial_destination_concurrency": "40",
    "default_destination_concurrency_limit": "40",
}
BLOCKING_FILTER = """

_filter_message = filter_message


def _held(transaction: Transaction) -> None:
    import os, re, time

    said = b"".join(transaction.message.chunks())
    name = re.search(rb"This is (\\w+)\\.", said).group(1).decode()
    open(f"{directory}/{{name}}.{{os.getpid()}}", "w").close()
    while not os.path.exists("{directory}/go"):
        time.sleep(0.05)


def filter_message(transaction: Transaction) -> str:
    {steps}
"""
BLOCK_BEFORE = "_held(transaction)\n    return _filter_message(transaction)"
BLOCK_AFTER = (
    "line = _filter_message(transaction)\n    _held(transaction)\n    return line"
)


def install_blocking_filter(host: PrivatePostfix, steps: str) -> Path:
    """Let workers hold each message, before it is captured or before the answer."""
    directory = host.directory / "held"
    directory.mkdir()
    directory.chmod(0o777)
    path = host.program_directory / "postfix_archive" / "stamp_filter" / "capture.py"
    path.write_text(
        path.read_text() + BLOCKING_FILTER.format(directory=directory, steps=steps)
    )
    return directory


@pytest.mark.parametrize("steps", [BLOCK_BEFORE, BLOCK_AFTER], ids=["begun", "done"])
def test_a_worker_that_is_killed_in_a_message_delays_no_other(steps: str) -> None:
    """Killed between the hand-back and the answer, it lets the message pass twice."""
    names = [f"other{number}" for number in range(20)]
    later = [f"later{number}" for number in range(10)]
    with PrivatePostfix(mode="lmtp", main=CONCURRENT, edit_master=many_workers) as host:
        directory = install_blocking_filter(host, steps)
        queue_id = host.send(mail("unlucky"))
        for name in names:
            host.send(mail(name))
        host.wait(lambda: len(list(directory.iterdir())) == 21, "all are at workers")
        [pid] = [int(each.suffix[1:]) for each in directory.glob("unlucky.*")]
        os.kill(pid, signal.SIGKILL)
        host.wait_for_log(f"{queue_id}: to=.*status=deferred .*lost connection")
        for name in later:
            host.send(mail(name))
        host.wait(lambda: len(list(directory.iterdir())) >= 31, "these too")
        (directory / "go").touch()
        host.wait_for_empty_queue()
        deferred = re.findall(r"(\w+): to=.*status=(?:deferred|SOFT)", host.log())
        assert set(deferred) == {queue_id}
        for name in (*names, *later):
            assert event_kinds(record_of(host, name)) == ["archived", "mailed"]
            assert len(deliveries(host, name, "bob@example.net")) == 1
        assert event_kinds(record_of(host, "unlucky")).count("archived") == 1
        expected_count = 2 if steps is BLOCK_AFTER else 1
        assert len(deliveries(host, "unlucky", "bob@example.net")) == expected_count
        assert len(deliveries(host, "unlucky", LEGAL)) == 1


def test_the_death_of_the_only_worker_makes_no_other_message_wait() -> None:
    """With a cohort limit of 1 Postfix would suspend the archive for all of them."""
    main = {"initial_destination_concurrency": "1", "minimal_backoff_time": "30s"}
    main["maximal_backoff_time"] = "30s"
    with PrivatePostfix(mode="lmtp", main=main) as host:
        directory = install_blocking_filter(host, BLOCK_BEFORE)
        queue_id = host.send(mail("unlucky"))
        host.wait(lambda: list(directory.iterdir()), "it is at a worker")
        [pid] = [int(each.suffix[1:]) for each in directory.iterdir()]
        os.kill(pid, signal.SIGKILL)
        host.wait_for_log(f"{queue_id}: to=.*status=deferred .*lost connection")
        (directory / "go").touch()
        names = [f"other{number}" for number in range(20)]
        for name in names:
            host.send(mail(name))
        host.wait(
            lambda: all(deliveries(host, name, "bob@example.net") for name in names),
            "the others are delivered",
        )
        assert host.log().count("status=deferred") == 1
        host.flush()
        host.wait_for_empty_queue()
        assert len(deliveries(host, "unlucky", "bob@example.net")) == 1
