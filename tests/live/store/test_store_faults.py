"""A store that is full, read-only, away or failing: mail flows, copies wait, none dies.

The archive transport's part; for the stamp filter's see test_through.py. Real file
systems and real system calls: tmpfs, remounts, and strace(1) that makes fsync, link,
write and close fail.
"""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from postfix_archive.store import fallback

import journal_lines
from mails import LEGAL, mail, record_of
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live

STRACE = """#!/bin/sh
# One of our programs; under strace(1) while the test says so.
[ -s {directory}/strace ] || exec {program} "$@"
exec strace -f -qq -o {directory}/trace $(cat {directory}/strace) {program} "$@"
"""


class FaultyStoreHost:
    """An instance whose store has its own file system, and whose transports fail."""

    def __init__(self, mode: str, program_name: str) -> None:
        self._program_name = program_name
        self.postfix = PrivatePostfix(mode=mode, edit_master=self._with_strace)
        self.directory = self.postfix.directory
        script = self.directory / "traced" / program_name
        script.parent.mkdir()
        program = self.postfix.program_directory / program_name
        script.write_text(STRACE.format(directory=self.directory, program=program))
        script.chmod(0o755)
        self.mount_points: list[Path] = []
        self.mount(self.postfix.store)

    def _with_strace(self, text: str) -> str:
        # Called while the instance is built: the directory is lib's neighbour.
        name = self._program_name
        return re.sub(rf"(?m)(  argv=/tmp/.*)/lib/{name}$", rf"\1/traced/{name}", text)

    def mount(self, path: Path, size: str = "32m") -> None:
        options = f"size={size},mode=700,uid=65534,gid=65534"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True
        )
        self.mount_points.append(path)

    def unmount(self, path: Path) -> None:
        subprocess.run(["umount", "-l", str(path)], check=True)
        self.mount_points.remove(path)

    def inject(self, expression: str) -> None:
        """Make system calls of the archive transport fail from now on; "" is none."""
        (self.directory / "strace").write_text(expression)
        trace = self.directory / "trace"
        trace.touch()
        trace.chmod(0o666)

    def fill(self, path: Path) -> None:
        descriptor = os.open(path / "ballast", os.O_CREAT | os.O_WRONLY)
        try:
            while os.write(descriptor, bytes(1 << 16)):
                pass
        except OSError as problem:
            assert problem.errno == errno.ENOSPC
        finally:
            os.close(descriptor)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run postfix-archive on this instance."""
        return self.postfix.run_command(*arguments)

    def close(self) -> None:
        for each in list(self.mount_points):
            self.unmount(each)
        self.postfix.remove()


@contextmanager
def running(mode: str, program_name: str) -> Iterator[FaultyStoreHost]:
    host = FaultyStoreHost(mode, program_name)
    try:
        with host.postfix:
            yield host
    finally:
        host.close()


@pytest.fixture
def faulty_host() -> Iterator[FaultyStoreHost]:
    with running("capsule", "archive") as host:
        yield host


@pytest.fixture
def native_host() -> Iterator[FaultyStoreHost]:
    """One process a message, so that a fault begins and ends between two."""
    with running("native-pipe", "archive-capture") as host:
        yield host


def waiting(host: FaultyStoreHost) -> int:
    return len(fallback.waiting_capsules(str(host.postfix.fallback)))


def count_captures(host: FaultyStoreHost) -> int:
    """Return how many copies status sees in the queue."""
    return int(json.loads(host.run("status", "--json").stdout)["queue"]["count"])


def fill_store(host: FaultyStoreHost) -> Callable[[], None]:
    host.fill(host.postfix.store)
    return lambda: (host.postfix.store / "ballast").unlink()


def remount_read_only(host: FaultyStoreHost) -> Callable[[], None]:
    def remount(option: str) -> None:
        options = f"remount,{option}"
        subprocess.run(["mount", "-o", options, str(host.postfix.store)], check=True)

    remount("ro")
    return lambda: remount("rw")


def inject_error(expression: str) -> Callable[[FaultyStoreHost], Callable[[], None]]:
    def fault(host: FaultyStoreHost) -> Callable[[], None]:
        host.inject(expression)
        return lambda: host.inject("")

    return fault


def inject_journal_error(
    expression: str,
) -> Callable[[FaultyStoreHost], Callable[[], None]]:
    def fault(host: FaultyStoreHost) -> Callable[[], None]:
        segment = journal_lines.segment(host.postfix.store / LEGAL)
        host.inject(f"-P {segment} {expression}")
        return lambda: host.inject("")

    return fault


FAULTS = {
    "full": fill_store,
    "read-only": remount_read_only,
    "fsync": inject_error("-e trace=fsync -e inject=fsync:error=EIO:when=1"),
    "link": inject_error("-e trace=linkat,link -e inject=linkat,link:error=EIO:when=1"),
    "journal-write": inject_journal_error(
        "-e trace=write -e inject=write:error=ENOSPC"
    ),
    "journal-fsync": inject_journal_error("-e trace=fsync -e inject=fsync:error=EIO"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_copies_go_into_the_fallback_and_come_back(
    faulty_host: FaultyStoreHost, name: str
) -> None:
    postfix = faulty_host.postfix
    postfix.send(mail("before"))
    postfix.wait_for_empty_queue()
    repair = FAULTS[name](faulty_host)
    for number in range(3):
        postfix.send(mail(f"during-{name}-{number}"))
    postfix.wait_for_empty_queue()  # neither mail nor copies wait in the queue
    assert len(postfix.delivered_to("bob@example.net")) == 4
    assert waiting(faulty_host) == 3
    status = faulty_host.run("status")
    assert status.returncode == 1
    assert "Copies waiting in the fallback directory: 3, since " in status.stdout
    assert faulty_host.run("fallback", "import").returncode == (
        1 if name in ("full", "read-only") else 0
    )
    repair()
    assert faulty_host.run("fallback", "import").returncode == 0
    assert waiting(faulty_host) == 0
    postfix.wait_for_empty_queue()
    for number in range(3):
        record = record_of(postfix, f"during-{name}-{number}")
        assert [each["event"] for each in record.events].count("archived") == 1
    assert len(postfix.stored_files()) == 4
    assert len(postfix.delivered_to(LEGAL)) == 4
    assert faulty_host.run("verify").returncode == 0


@pytest.mark.parametrize("name", FAULTS)
def test_in_native_mode_captures_wait_in_the_queue_and_come_back(
    native_host: FaultyStoreHost, name: str
) -> None:
    """They need no fallback directory: the queue file stays until they are stored."""
    postfix = native_host.postfix
    postfix.send(mail("before"))
    postfix.wait_for_empty_queue()
    repair = FAULTS[name](native_host)
    names = [f"during-{name}-{number}" for number in range(3)]
    queue_ids = {postfix.send(mail(each)) for each in names}
    for each in queue_ids:
        failed = "relay=archive-capture,.*status=(SOFTBOUNCE|deferred)"
        postfix.wait_for_log(f" {each}: .*{failed}")
    assert len(postfix.delivered_to("bob@example.net")) == 4
    assert {str(each["queue_id"]) for each in postfix.mailq()} == queue_ids
    assert waiting(native_host) == 0
    repair()
    postfix.flush()
    postfix.wait_for_empty_queue()
    for each in names:
        record = record_of(postfix, each)
        assert [each["event"] for each in record.events].count("archived") == 1
    assert len(postfix.stored_files()) == 4
    assert len(postfix.delivered_to(LEGAL)) == 4
    assert native_host.run("verify").returncode == 0


def test_a_close_that_fails_after_the_fsync_loses_nothing(
    faulty_host: FaultyStoreHost,
) -> None:
    postfix = faulty_host.postfix
    postfix.send(mail("before"))
    postfix.wait_for_empty_queue()
    # Only the last: strace(1) fails the call without doing it, and the lock stays.
    inject_journal_error("-e trace=close -e inject=close:error=EIO:when=2")(faulty_host)
    postfix.send(mail("close"))
    postfix.wait_for_empty_queue()
    assert waiting(faulty_host) == 0
    assert [each["event"] for each in record_of(postfix, "close").events]
    assert "INJECTED" in (faulty_host.directory / "trace").read_text()
    assert faulty_host.run("verify").returncode == 0


def test_a_store_that_is_not_mounted_is_not_begun_anew(
    faulty_host: FaultyStoreHost,
) -> None:
    postfix = faulty_host.postfix
    postfix.send(mail("mounted"))
    postfix.wait_for_empty_queue()
    bind_source = postfix.directory / "spool"
    subprocess.run(
        ["mount", "--bind", str(postfix.store), str(bind_source)], check=True
    )
    faulty_host.mount_points.append(bind_source)
    faulty_host.unmount(
        postfix.store
    )  # what is below belongs to the archive's user too
    postfix.send(mail("away"))
    postfix.wait_for_empty_queue()
    assert waiting(faulty_host) == 1
    assert not list(postfix.store.iterdir())
    assert "is its file system mounted?" in fallback.last_reason(str(postfix.fallback))
    mount_command = ["mount", "--bind", str(bind_source), str(postfix.store)]
    subprocess.run(mount_command, check=True)
    faulty_host.mount_points.append(postfix.store)
    assert faulty_host.run("fallback", "import").returncode == 0
    record_of(postfix, "away")


def test_with_both_down_mail_flows_and_copies_wait_in_the_queue(
    faulty_host: FaultyStoreHost,
) -> None:
    """Also with more waiting copies than the active queue takes."""
    postfix = faulty_host.postfix
    postfix.send(mail("before"))
    postfix.wait_for_empty_queue()
    postfix.postconf(qmgr_message_active_limit="20")
    postfix.reload()
    repair = fill_store(faulty_host)
    faulty_host.mount(postfix.fallback, "64k")
    faulty_host.fill(postfix.fallback)
    for number in range(60):
        postfix.send(mail(f"both-{number}"))
    postfix.wait(
        lambda: len(postfix.delivered_to("bob@example.net")) == 61, "mail is delivered"
    )
    postfix.wait(lambda: len(postfix.mailq()) == 60, "the copies alone wait")
    postfix.wait(lambda: count_captures(faulty_host) == 60, "status counts them all")
    assert faulty_host.run("status", "--json").returncode == 1
    postfix.send(mail("live"), to=["carol@example.net"])
    postfix.wait(lambda: postfix.delivered_to("carol@example.net"), "live mail")
    repair()
    postfix.wait_for_empty_queue()
    assert len(postfix.stored_files()) == 62
    assert faulty_host.run("verify").returncode == 0
