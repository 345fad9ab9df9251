"""postfix reload while mail is on its way: nothing waits for itself."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest

from mails import LEGAL, deliveries, event_kinds, mail, one_delivery, record_of
from private_postfix import NATIVE_MODES, PrivatePostfix, descendants

pytestmark = pytest.mark.live


def idle_pid(postfix: PrivatePostfix, service: str) -> int:
    """Return the pid of the one process of a service."""
    master = int((postfix.queue_directory / "pid" / "master.pid").read_text())
    [idle_process] = [
        pid
        for pid in descendants(master)
        if f"\0-n\0{service}\0" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    return idle_process


def test_a_busy_cleanup_that_master_takes_for_idle_stops_nobody() -> None:
    """master(8) starts no second one of that service until the first is done.

    So it is after a reload that hits the moment in which a process takes its work.
    The capsule must not need that service: the hand-back is not done before it.
    """
    with PrivatePostfix() as postfix:
        postfix.send(mail("before"))
        postfix.wait_for_empty_queue()
        cleanup = idle_pid(postfix, "archive-cleanup")
        os.kill(cleanup, signal.SIGSTOP)
        postfix.send(mail("during"))
        postfix.wait_for_log(r"archive-handback/smtpd.*: connect from", 2)
        postfix.wait(lambda: is_waiting(postfix), "hand-back waits for cleanup(8)")
        postfix.reload(has_busy_processes=True)
        os.kill(cleanup, signal.SIGCONT)
        postfix.wait(
            lambda: deliveries(postfix, "during", "bob@example.net"), "it is delivered"
        )
        postfix.wait_for_empty_queue()
        assert record_of(postfix, "during").archive == LEGAL


@pytest.mark.parametrize("mode", NATIVE_MODES)
def test_a_message_that_native_mode_archives_during_a_reload_is_archived_once(
    mode: str,
) -> None:
    with PrivatePostfix(mode=mode) as postfix:
        postfix.send(mail("before"))
        postfix.wait_for_empty_queue()
        with open(postfix.store / LEGAL / "journal.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            queue_id = postfix.send(mail("during"))
            postfix.wait_for_log(f" {queue_id}: to=<bob@example.net>.*status=sent")
            postfix.reload(has_busy_processes=True)
            postfix.send(mail("after"))
            postfix.wait(
                lambda: deliveries(postfix, "after", "bob@example.net"), "it left"
            )
        postfix.wait_for_empty_queue()
        for name in ("during", "after"):
            assert event_kinds(record_of(postfix, name)) == ["archived", "mailed"]
            one_delivery(postfix, name, "bob@example.net")


def is_waiting(postfix: PrivatePostfix) -> bool:
    """Tell whether somebody's connection to archive-cleanup waits to be taken."""
    master = (postfix.queue_directory / "pid" / "master.pid").read_text().strip()
    process = subprocess.run(
        ["ss", "-xlpH"], capture_output=True, text=True, check=True
    )
    return any(
        "public/archive-cleanup " in line
        and f'"master",pid={master},' in line
        and int(line.split()[2]) > 0
        for line in process.stdout.splitlines()
    )
