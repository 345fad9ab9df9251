"""Write-through where the store cannot take a copy at once: mail goes on all the same.

By both doors, with real faults: a file system of its own that is full, read-only, away
or frozen, so that whoever touches it hangs and cannot be killed, and a journal that
somebody has locked. When the fault is over each message is archived once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postfix_archive.store import fallback

from mails import LEGAL, delivered, deliveries, mail, record_of, records, words
from private_postfix import DOORS, GROUP, USER, PrivatePostfix, descendants

pytestmark = pytest.mark.live

BOB = "bob@example.net"
LONG_AGO = 600  # seconds: more than any pause
FROM_QUEUE = 3  # messages during a fault


class Faulty:
    """An instance whose store has a file system of its own, in a file."""

    def __init__(self, door: str) -> None:
        self.door = door
        self.postfix = PrivatePostfix(door=door)
        self.store = self.postfix.store
        self._image = self.postfix.folder / "disk"
        self._locks: list[int] = []
        self._is_frozen = False
        with self._image.open("wb") as disk:
            disk.truncate(16 << 20)
        make = ["mkfs.ext4", "-q", "-m", "0", str(self._image)]
        subprocess.run(make, check=True)
        self.mount()
        os.chmod(self.store, 0o700)
        subprocess.run(["chown", f"{USER}:{GROUP}", str(self.store)], check=True)

    def mount(self) -> None:
        """Make the store's file system be there."""
        command = ["mount", "-o", "loop", str(self._image), str(self.store)]
        subprocess.run(command, check=True)

    def remount(self, how: str) -> None:
        """Let it be read-only, ro, or not, rw."""
        command = ["mount", "-o", f"remount,{how}", str(self.store)]
        subprocess.run(command, check=True)

    def fill(self) -> None:
        """Leave no room on it; what is on the disk is less than ext4 has promised."""
        opened = os.open(self.store / "ballast", os.O_CREAT | os.O_WRONLY)
        while _filled(opened):
            os.fsync(opened)
        os.close(opened)

    def freeze(self) -> None:
        """Let everybody hang who writes to it."""
        subprocess.run(["fsfreeze", "-f", str(self.store)], check=True)
        self._is_frozen = True

    def thaw(self) -> None:
        """Let them go on."""
        if self._is_frozen:
            subprocess.run(["fsfreeze", "-u", str(self.store)], check=True)
        self._is_frozen = False

    def lock(self) -> None:
        """Hold the journal as a run does that is in the middle of its work."""
        self._locks.append(os.open(self.store / LEGAL / "journal", os.O_RDWR))
        fcntl.flock(self._locks[-1], fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Let go of it."""
        while self._locks:
            os.close(self._locks.pop())

    def end_pause(self) -> None:
        """Let the time pass for which the store is not asked."""
        for path in (self.postfix.folder / "spool").glob(".postfix-archive-*.slow"):
            long_ago = time.time() - LONG_AGO
            os.utime(path, (long_ago, long_ago))

    def ours(self) -> dict[int, str]:
        """Return our processes that stamp or archive, and the state of each."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                command = (path / "cmdline").read_bytes()
                state = (path / "stat").read_text().rpartition(") ")[2][0]
            except OSError:
                continue
            if str(self.postfix.program).encode() in command and state != "Z":
                found[int(path.name)] = state
        return found

    def hung(self, *programs: str) -> list[int]:
        """Return those of these programs' processes that cannot be interrupted."""
        found = []
        for pid, state in self.ours().items():
            command = Path(f"/proc/{pid}/cmdline").read_text()
            if state == "D" and any(f"/{each}\0" in command for each in programs):
                found.append(pid)
        return found

    def close(self) -> None:
        """Undo what may be left of a fault."""
        self.unlock()
        self.thaw()
        subprocess.run(["umount", "-l", str(self.store)], check=False)
        self.postfix.remove()


def _filled(opened: int) -> int:
    """Write until there is no room; return how many blocks there was room for."""
    blocks = 0
    try:
        while os.write(opened, bytes(1024)):
            blocks += 1
    except OSError as problem:
        assert problem.errno == errno.ENOSPC
    return blocks


@pytest.fixture(params=DOORS)
def faulty(request: pytest.FixtureRequest) -> Iterator[Faulty]:
    """An instance by each door that has archived one message."""
    host = Faulty(request.param)
    try:
        with host.postfix:
            host.postfix.send(mail("before"))
            host.postfix.settle()
            assert re.search(
                "id=[0-9a-f-]+ as=[0-9A-Za-z]+ result=done", host.postfix.log()
            )
            yield host
    finally:
        host.close()


def full(host: Faulty) -> Callable[[], None]:
    host.fill()
    return (host.store / "ballast").unlink


def read_only(host: Faulty) -> Callable[[], None]:
    host.remount("ro")
    return lambda: host.remount("rw")


def away(host: Faulty) -> Callable[[], None]:
    host.postfix.wait(lambda: len(host.ours()) < 2, "nobody is in the store")
    subprocess.run(["umount", "-l", str(host.store)], check=True)
    return host.mount


def frozen(host: Faulty) -> Callable[[], None]:
    host.freeze()
    return host.thaw


def locked(host: Faulty) -> Callable[[], None]:
    host.lock()
    return host.unlock


FAILS = {"full": full, "read-only": read_only, "away": away}
HANGS = {"frozen": frozen, "locked": locked}


def names_of(fault: str) -> list[str]:
    return [f"{fault}-{number}" for number in range(FROM_QUEUE)]


def is_delivered(postfix: PrivatePostfix, name: str) -> None:
    """Return when a message is delivered."""
    postfix.wait(lambda: deliveries(postfix, name, BOB), f"{name} is delivered")


def assert_all_once(host: Faulty, names: list[str]) -> None:
    """Fail unless each is archived, delivered and mailed once, and all is proved."""
    postfix = host.postfix
    for name in names:
        assert words(record_of(postfix, name)) == ["archived", "mailed"]
        delivered(postfix, name, BOB)
        assert len(deliveries(postfix, name, LEGAL)) == 1
    assert len(postfix.stored(LEGAL)) == len(postfix.deliveries()) / 2
    done = postfix.command("verify")
    assert done.returncode == 0, done.stdout


def assert_straight_again(host: Faulty, name: str) -> None:
    """Fail unless, the pause over, a copy needs no capsule, and nobody is left."""
    postfix = host.postfix
    host.end_pause()
    before = postfix.log().count(" result=done")
    postfix.send(mail(name))
    postfix.settle()
    assert postfix.log().count(" result=done") == before + 1
    postfix.stop()
    postfix.wait(lambda: not host.ours(), "no process of ours is left")


@pytest.mark.parametrize("fault", FAILS)
def test_where_the_store_fails_the_copy_waits_in_the_fallback_directory(
    faulty: Faulty, fault: str
) -> None:
    postfix = faulty.postfix
    cure = FAILS[fault](faulty)
    for name in names_of(fault):
        postfix.send(mail(name))
        postfix.settle()  # neither mail nor copies wait in the queue
        delivered(postfix, name, BOB)
    assert len(fallback.waiting_capsules(str(postfix.fallback))) == FROM_QUEUE
    failed = re.findall(r"id=\S+ as=\S+ result=queued", postfix.log())
    assert len(failed) == len(names_of(fault))  # it is asked each time: nobody waits
    assert re.search("(?:StoreFailed|JournalFailed): ", postfix.last_failure())
    cure()
    assert postfix.command("fallback", "import").returncode == 0
    postfix.settle()
    assert_all_once(faulty, ["before", *names_of(fault)])
    assert_straight_again(faulty, f"after-{fault}")


@pytest.mark.parametrize("fault", HANGS)
def test_where_the_store_hangs_mail_is_delivered_while_it_still_does(
    faulty: Faulty, fault: str
) -> None:
    postfix = faulty.postfix
    cure = HANGS[fault](faulty)
    for name in names_of(fault):
        postfix.send(mail(name))
    for name in names_of(fault):
        is_delivered(postfix, name)
        assert not records(postfix, name)  # the store hangs
    assert len(postfix.delivered_to(LEGAL)) == 1  # that of the message before
    failed = postfix.wait_for_failure("result=queued reason=not done within 5 s")
    during = postfix.send(mail("during"))
    is_delivered(postfix, "during")
    postfix.wait_for_log(rf" {during}: to=<{BOB}>.*id=\S+ as=\S+ result=queued")
    assert during not in postfix.last_failure()  # the store was not tried
    assert failed.partition(" reason=")[2] == "not done within 5 s"
    assert not records(postfix, "during")
    postfix.wait(
        lambda: len(postfix.mailq()) == FROM_QUEUE + 1, "the copies alone are queued"
    )
    assert not fallback.waiting_capsules(str(postfix.fallback))
    cure()
    postfix.settle()
    assert_all_once(faulty, ["before", "during", *names_of(fault)])
    assert_straight_again(faulty, f"after-{fault}")


def test_the_process_that_mail_waits_for_is_not_the_one_that_hangs(
    faulty: Faulty,
) -> None:
    """What writes to a frozen disk cannot even be killed; Postfix need not know."""
    postfix = faulty.postfix
    faulty.freeze()
    sent = postfix.send(mail("hung"))
    postfix.wait_for_log(rf" {sent}: to=<{BOB}>.* status=sent \(.* result=queued")
    postfix.wait_for_failure(f"={sent} .*result=queued reason=not done ")
    postfix.wait_for_log(rf" {sent}: removed")
    [child] = faulty.hung("archive-stamp", "archive-lmtp")
    os.kill(child, signal.SIGKILL)
    if faulty.door == "pipe":
        assert child not in descendants(postfix.master_pid)
    for number in range(5):  # and all that comes meanwhile passes
        postfix.send(mail(f"meanwhile-{number}"))
    for number in range(5):
        is_delivered(postfix, f"meanwhile-{number}")
    assert child in faulty.ours()
    faulty.thaw()
    postfix.wait(lambda: child not in faulty.ours(), "the child has ended")
    postfix.settle()
    assert_all_once(faulty, ["before", "hung", *(f"meanwhile-{n}" for n in range(5))])
