"""postfix reload while mail is on its way: nothing waits for itself."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from mails import LEGAL, deliveries, mail, record_of
from private_postfix import PrivatePostfix, descendants

pytestmark = pytest.mark.live


def idle(postfix: PrivatePostfix, service: str) -> int:
    """Return the pid of the one process of a service."""
    master = int((postfix.queue / "pid" / "master.pid").read_text())
    [found] = [
        pid
        for pid in descendants(master)
        if f"\0-n\0{service}\0" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    return found


def test_a_busy_cleanup_that_master_takes_for_idle_stops_nobody() -> None:
    """master(8) starts no second one of that service until the first is done.

    So it is after a reload that hits the moment in which a process takes its work.
    The capsule must not need that service: the hand-back is not done before it.
    """
    with PrivatePostfix() as postfix:
        postfix.send(mail("before"))
        postfix.settle()
        cleanup = idle(postfix, "archive-cleanup")
        os.kill(cleanup, signal.SIGSTOP)
        postfix.send(mail("during"))
        postfix.wait_for_log(r"archive-handback/smtpd.*: connect from", 2)
        postfix.wait(lambda: waits(postfix), "hand-back waits for cleanup(8)")
        postfix.reload(busy=True)
        os.kill(cleanup, signal.SIGCONT)
        postfix.wait(
            lambda: deliveries(postfix, "during", "bob@example.net"), "it is delivered"
        )
        postfix.settle()
        assert record_of(postfix, "during").archive == LEGAL


def waits(postfix: PrivatePostfix) -> bool:
    """Tell whether somebody's connection to archive-cleanup waits to be taken."""
    master = (postfix.queue / "pid" / "master.pid").read_text().strip()
    told = subprocess.run(["ss", "-xlpH"], capture_output=True, text=True, check=True)
    return any(
        "public/archive-cleanup " in line
        and f'"master",pid={master},' in line
        and int(line.split()[2]) > 0
        for line in told.stdout.splitlines()
    )
