"""A store that is full, read-only, away or failing: mail flows, copies wait, none dies.

The archive transport's part; for the stamp filter's see test_through.py. Real file
systems and real system calls: tmpfs, remounts, and strace(1) that makes fsync, link,
write and close fail.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postfix_archive.store import fallback

from mails import LEGAL, mail, record_of
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live

STRACE = """#!/bin/sh
# The archive transport; under strace(1) while the test says so.
[ -s {folder}/strace ] || exec {program} "$@"
exec strace -f -qq -o {folder}/trace $(cat {folder}/strace) {program} "$@"
"""


class Faulty:
    """An instance whose store has a file system of its own, and whose doors fail."""

    def __init__(self) -> None:
        self.postfix = PrivatePostfix(door="capsule", edit_master=self._edited)
        self.folder = self.postfix.folder
        script = self.folder / "traced" / "archive"
        script.parent.mkdir()
        program = self.postfix.program / "archive"
        script.write_text(STRACE.format(folder=self.folder, program=program))
        script.chmod(0o755)
        self.mounted: list[Path] = []
        self.mount(self.postfix.store)

    def _edited(self, text: str) -> str:
        # Called while the instance is built: the folder is lib's neighbour.
        lines = []
        for line in text.splitlines():
            if line.startswith("  argv=/tmp/") and line.endswith("/lib/archive"):
                line = line.replace("/lib/archive", "/traced/archive")
            lines.append(line)
        return "\n".join(lines) + "\n"

    def mount(self, path: Path, size: str = "32m") -> None:
        options = f"size={size},mode=700,uid=65534,gid=65534"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True
        )
        self.mounted.append(path)

    def unmount(self, path: Path) -> None:
        subprocess.run(["umount", "-l", str(path)], check=True)
        self.mounted.remove(path)

    def inject(self, words: str) -> None:
        """Make system calls of the archive transport fail from now on; "" is none."""
        (self.folder / "strace").write_text(words)
        trace = self.folder / "trace"
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

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run postfix-archive on this instance."""
        return self.postfix.command(*words)

    def close(self) -> None:
        for each in list(self.mounted):
            self.unmount(each)
        self.postfix.remove()


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    host = Faulty()
    try:
        with host.postfix:
            yield host
    finally:
        host.close()


def waiting(host: Faulty) -> int:
    return len(fallback.waiting_capsules(str(host.postfix.fallback)))


def counted(host: Faulty) -> int:
    """Return how many copies status sees in the queue."""
    return int(json.loads(host.run("status", "--json").stdout)["queue"]["count"])


def full(host: Faulty) -> Callable[[], None]:
    host.fill(host.postfix.store)
    return lambda: (host.postfix.store / "ballast").unlink()


def read_only(host: Faulty) -> Callable[[], None]:
    def remount(how: str) -> None:
        options = f"remount,{how}"
        subprocess.run(["mount", "-o", options, str(host.postfix.store)], check=True)

    remount("ro")
    return lambda: remount("rw")


def injected(words: str) -> Callable[[Faulty], Callable[[], None]]:
    def fault(host: Faulty) -> Callable[[], None]:
        host.inject(words)
        return lambda: host.inject("")

    return fault


def on_journal(words: str) -> Callable[[Faulty], Callable[[], None]]:
    def fault(host: Faulty) -> Callable[[], None]:
        journal = host.postfix.store / LEGAL / "journal"
        host.inject(f"-P {journal} {words}")
        return lambda: host.inject("")

    return fault


FAULTS = {
    "full": full,
    "read-only": read_only,
    "fsync": injected("-e trace=fsync -e inject=fsync:error=EIO:when=1"),
    "link": injected("-e trace=linkat,link -e inject=linkat,link:error=EIO:when=1"),
    "journal-write": on_journal("-e trace=write -e inject=write:error=ENOSPC"),
    "journal-fsync": on_journal("-e trace=fsync -e inject=fsync:error=EIO"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_copies_go_into_the_fallback_and_come_back(faulty: Faulty, name: str) -> None:
    postfix = faulty.postfix
    postfix.send(mail("before"))
    postfix.settle()
    cure = FAULTS[name](faulty)
    for number in range(3):
        postfix.send(mail(f"during-{name}-{number}"))
    postfix.settle()  # neither mail nor copies wait in the queue
    assert len(postfix.delivered_to("bob@example.net")) == 4
    assert waiting(faulty) == 3
    told = faulty.run("status")
    assert told.returncode == 1
    assert "Copies waiting in the fallback directory: 3, since " in told.stdout
    assert faulty.run("fallback", "import").returncode == (
        1 if name in ("full", "read-only") else 0
    )
    cure()
    assert faulty.run("fallback", "import").returncode == 0
    assert waiting(faulty) == 0
    postfix.settle()
    for number in range(3):
        record = record_of(postfix, f"during-{name}-{number}")
        assert [each["event"] for each in record.events].count("archived") == 1
    assert len(postfix.stored()) == 4
    assert len(postfix.delivered_to(LEGAL)) == 4
    assert faulty.run("verify").returncode == 0


def test_a_close_that_fails_after_the_fsync_loses_nothing(faulty: Faulty) -> None:
    postfix = faulty.postfix
    postfix.send(mail("before"))
    postfix.settle()
    # Only the last: strace(1) fails the call without doing it, and the lock stays.
    on_journal("-e trace=close -e inject=close:error=EIO:when=2")(faulty)
    postfix.send(mail("close"))
    postfix.settle()
    assert waiting(faulty) == 0
    assert [each["event"] for each in record_of(postfix, "close").events]
    assert "INJECTED" in (faulty.folder / "trace").read_text()
    assert faulty.run("verify").returncode == 0


def test_a_store_that_is_not_mounted_is_not_begun_anew(faulty: Faulty) -> None:
    postfix = faulty.postfix
    postfix.send(mail("mounted"))
    postfix.settle()
    aside = postfix.folder / "spool"
    subprocess.run(["mount", "--bind", str(postfix.store), str(aside)], check=True)
    faulty.mounted.append(aside)
    faulty.unmount(postfix.store)  # what is below belongs to the archive's user too
    postfix.send(mail("away"))
    postfix.settle()
    assert waiting(faulty) == 1
    assert not list(postfix.store.iterdir())
    assert "is its file system mounted?" in fallback.last_reason(str(postfix.fallback))
    again = ["mount", "--bind", str(aside), str(postfix.store)]
    subprocess.run(again, check=True)
    faulty.mounted.append(postfix.store)
    assert faulty.run("fallback", "import").returncode == 0
    record_of(postfix, "away")


def test_with_both_down_mail_flows_and_copies_wait_in_the_queue(faulty: Faulty) -> None:
    """Also with more waiting copies than the active queue takes."""
    postfix = faulty.postfix
    postfix.send(mail("before"))
    postfix.settle()
    postfix.postconf(qmgr_message_active_limit="20")
    postfix.reload()
    cure = full(faulty)
    faulty.mount(postfix.fallback, "64k")
    faulty.fill(postfix.fallback)
    for number in range(60):
        postfix.send(mail(f"both-{number}"))
    postfix.wait(
        lambda: len(postfix.delivered_to("bob@example.net")) == 61, "mail is delivered"
    )
    postfix.wait(lambda: len(postfix.mailq()) == 60, "the copies alone wait")
    postfix.wait(lambda: counted(faulty) == 60, "status counts them all")
    assert faulty.run("status", "--json").returncode == 1
    postfix.send(mail("live"), to=["carol@example.net"])
    postfix.wait(lambda: postfix.delivered_to("carol@example.net"), "live mail")
    cure()
    postfix.settle()
    assert len(postfix.stored()) == 62
    assert faulty.run("verify").returncode == 0
