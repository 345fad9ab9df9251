"""Write-through where the store cannot take a copy at once: mail goes on all the same.

In both modes, with real faults: a file system of its own that is full, read-only, away
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
from contextlib import contextmanager
from pathlib import Path

import pytest

from postfix_archive.store import fallback

from mails import LEGAL, deliveries, event_kinds, mail, one_delivery, record_of, records
from private_postfix import GROUP, MODES, USER, PrivatePostfix, descendants

pytestmark = pytest.mark.live

BOB = "bob@example.net"
LONGER_THAN_PAUSE = 600  # seconds: more than any pause
MESSAGES_DURING_FAULT = 3  # messages during a fault


class FaultyStoreHost:
    """An instance whose store has a file system of its own, in a file."""

    def __init__(self, mode: str, *, main: dict[str, str] | None = None) -> None:
        self.mode = mode
        self.postfix = PrivatePostfix(
            mode=mode, main=main, edit_master=_with_short_timeouts
        )
        self.store = self.postfix.store
        self._image = self.postfix.directory / "disk"
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

    def remount(self, option: str) -> None:
        """Let it be read-only, ro, or not, rw."""
        command = ["mount", "-o", f"remount,{option}", str(self.store)]
        subprocess.run(command, check=True)

    def fill(self) -> None:
        """Leave no room on it; what is on the disk is less than ext4 has promised."""
        descriptor = os.open(self.store / "ballast", os.O_CREAT | os.O_WRONLY)
        while _fill_blocks(descriptor):
            os.fsync(descriptor)
        os.close(descriptor)

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
        self._locks.append(os.open(self.store / LEGAL / "journal.lock", os.O_RDWR))
        fcntl.flock(self._locks[-1], fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Let go of it."""
        while self._locks:
            os.close(self._locks.pop())

    def end_pause(self) -> None:
        """Let the time pass for which the store is not asked."""
        for path in (self.postfix.directory / "spool").glob(".postfix-archive-*.slow"):
            long_ago = time.time() - LONGER_THAN_PAUSE
            os.utime(path, (long_ago, long_ago))

    def process_states(self) -> dict[int, str]:
        """Return our processes that stamp or archive, and the state of each."""
        state_by_pid = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                command = (path / "cmdline").read_bytes()
                state = (path / "stat").read_text().rpartition(") ")[2][0]
            except OSError:
                continue
            is_ours = f"{self.postfix.program_directory}/archive" in command.decode()
            if is_ours and b"/python" in command.split(b"\0")[0] and state != "Z":
                state_by_pid[int(path.name)] = state
        return state_by_pid

    def uninterruptible_pids(self, *programs: str) -> list[int]:
        """Return those of these programs' processes that cannot be interrupted."""
        pids = []
        for pid, state in self.process_states().items():
            command = Path(f"/proc/{pid}/cmdline").read_text()
            if state == "D" and any(f"/{each}\0" in command for each in programs):
                pids.append(pid)
        return pids

    def close(self) -> None:
        """Undo what may be left of a fault."""
        self.unlock()
        self.thaw()
        subprocess.run(["umount", "-l", str(self.store)], check=False)
        self.postfix.remove()


def _with_short_timeouts(master: str) -> str:
    return re.sub("(lmtp_.*_timeout)=[12]0s", r"\1=2s", master)


def _fill_blocks(descriptor: int) -> int:
    """Write until there is no room; return how many blocks there was room for."""
    blocks = 0
    try:
        while os.write(descriptor, bytes(1024)):
            blocks += 1
    except OSError as error:
        assert error.errno == errno.ENOSPC
    return blocks


@pytest.fixture(params=MODES)
def faulty_host(request: pytest.FixtureRequest) -> Iterator[FaultyStoreHost]:
    """An instance in each mode that has archived one message."""
    with running(FaultyStoreHost(request.param)) as host:
        assert re.search(
            "id=[0-9a-f-]+ as=[0-9A-Za-z]+ result=done", host.postfix.log()
        )
        yield host


@contextmanager
def running(host: FaultyStoreHost) -> Iterator[FaultyStoreHost]:
    """Let the instance run that archives one message first; undo all faults."""
    try:
        with host.postfix:
            host.postfix.send(mail("before"))
            host.postfix.wait_for_empty_queue()
            yield host
    finally:
        host.close()


def fill_store(host: FaultyStoreHost) -> Callable[[], None]:
    host.fill()
    return (host.store / "ballast").unlink


def remount_read_only(host: FaultyStoreHost) -> Callable[[], None]:
    host.remount("ro")
    return lambda: host.remount("rw")


def unmount_store(host: FaultyStoreHost) -> Callable[[], None]:
    host.postfix.wait(lambda: len(host.process_states()) < 2, "nobody is in the store")
    subprocess.run(["umount", "-l", str(host.store)], check=True)
    return host.mount


def freeze_store(host: FaultyStoreHost) -> Callable[[], None]:
    host.freeze()
    return host.thaw


def lock_journal(host: FaultyStoreHost) -> Callable[[], None]:
    host.lock()
    return host.unlock


FAILING_FAULTS = {
    "full": fill_store,
    "read-only": remount_read_only,
    "away": unmount_store,
}
HANGING_FAULTS = {"frozen": freeze_store, "locked": lock_journal}


def names_of(fault: str) -> list[str]:
    return [f"{fault}-{number}" for number in range(MESSAGES_DURING_FAULT)]


def assert_delivered(postfix: PrivatePostfix, name: str) -> None:
    """Return when a message is delivered."""
    postfix.wait(lambda: deliveries(postfix, name, BOB), f"{name} is delivered")


def assert_all_once(host: FaultyStoreHost, names: list[str]) -> None:
    """Fail unless each is archived, delivered and mailed once, and all is proved."""
    postfix = host.postfix
    for name in names:
        assert event_kinds(record_of(postfix, name)) == ["archived", "mailed"]
        one_delivery(postfix, name, BOB)
        assert len(deliveries(postfix, name, LEGAL)) == 1
    assert len(postfix.stored_files(LEGAL)) == len(postfix.deliveries()) / 2
    process = postfix.run_command("verify")
    assert process.returncode == 0, process.stdout


def assert_write_through_works(host: FaultyStoreHost, name: str) -> None:
    """Fail unless, the pause over, a copy needs no capsule, and nobody is left."""
    postfix = host.postfix
    host.end_pause()
    before = postfix.log().count(" result=done")
    postfix.send(mail(name))
    postfix.wait_for_empty_queue()
    assert postfix.log().count(" result=done") == before + 1
    postfix.stop()
    postfix.wait(lambda: not host.process_states(), "no process of ours is left")


@pytest.mark.parametrize("fault", FAILING_FAULTS)
def test_where_the_store_fails_the_copy_waits_in_the_fallback_directory(
    faulty_host: FaultyStoreHost, fault: str
) -> None:
    postfix = faulty_host.postfix
    repair = FAILING_FAULTS[fault](faulty_host)
    for name in names_of(fault):
        postfix.send(mail(name))
        postfix.wait_for_empty_queue()  # neither mail nor copies wait in the queue
        one_delivery(postfix, name, BOB)
    assert (
        len(fallback.waiting_capsules(str(postfix.fallback))) == MESSAGES_DURING_FAULT
    )
    failed = re.findall(r"id=\S+ as=\S+ result=queued", postfix.log())
    assert len(failed) == len(names_of(fault))  # it is asked each time: nobody waits
    assert re.search("(?:StoreFailed|JournalFailed): ", postfix.last_failure())
    repair()
    assert postfix.run_command("fallback", "import").returncode == 0
    postfix.wait_for_empty_queue()
    assert_all_once(faulty_host, ["before", *names_of(fault)])
    assert_write_through_works(faulty_host, f"after-{fault}")


@pytest.mark.parametrize("fault", HANGING_FAULTS)
def test_where_the_store_hangs_mail_is_delivered_while_it_still_does(
    faulty_host: FaultyStoreHost, fault: str
) -> None:
    postfix = faulty_host.postfix
    repair = HANGING_FAULTS[fault](faulty_host)
    for name in names_of(fault):
        postfix.send(mail(name))
    for name in names_of(fault):
        assert_delivered(postfix, name)
        assert not records(postfix, name)  # the store hangs
    assert len(postfix.delivered_to(LEGAL)) == 1  # that of the message before
    failed = postfix.wait_for_failure("result=queued reason=not done within 5 s")
    during = postfix.send(mail("during"))
    assert_delivered(postfix, "during")
    postfix.wait_for_log(rf" {during}: to=<{BOB}>.*id=\S+ as=\S+ result=queued")
    assert during not in postfix.last_failure()  # the store was not tried
    assert failed.partition(" reason=")[2] == "not done within 5 s"
    assert not records(postfix, "during")
    postfix.wait(
        lambda: len(postfix.mailq()) == MESSAGES_DURING_FAULT + 1,
        "the copies alone are queued",
    )
    assert not fallback.waiting_capsules(str(postfix.fallback))
    repair()
    postfix.wait_for_empty_queue()
    assert_all_once(faulty_host, ["before", "during", *names_of(fault)])
    assert_write_through_works(faulty_host, f"after-{fault}")


def test_the_process_that_mail_waits_for_is_not_the_one_that_hangs(
    faulty_host: FaultyStoreHost,
) -> None:
    """What writes to a frozen disk cannot even be killed; Postfix need not know."""
    postfix = faulty_host.postfix
    faulty_host.freeze()
    queue_id = postfix.send(mail("hung"))
    postfix.wait_for_log(rf" {queue_id}: to=<{BOB}>.* status=sent \(.* result=queued")
    postfix.wait_for_failure(f"={queue_id} .*result=queued reason=not done ")
    postfix.wait_for_log(rf" {queue_id}: removed")
    [child] = faulty_host.uninterruptible_pids("archive-stamp", "archive-lmtp")
    os.kill(child, signal.SIGKILL)
    if faulty_host.mode == "pipe":
        assert child not in descendants(postfix.master_pid)
    for number in range(5):  # and all that comes meanwhile passes
        postfix.send(mail(f"meanwhile-{number}"))
    for number in range(5):
        assert_delivered(postfix, f"meanwhile-{number}")
    assert child in faulty_host.process_states()
    faulty_host.thaw()
    postfix.wait(
        lambda: child not in faulty_host.process_states(), "the child has ended"
    )
    postfix.wait_for_empty_queue()
    assert_all_once(
        faulty_host, ["before", "hung", *(f"meanwhile-{n}" for n in range(5))]
    )


# What Postfix works on at a time: as many messages fill the queue when captures hang.
SMALL_ACTIVE_QUEUE = {"qmgr_message_active_limit": "5"}


@pytest.mark.parametrize("fault", ["full", "frozen"])
def test_in_native_mode_captures_wait_in_the_queue_and_nothing_else_does(
    fault: str,
) -> None:
    """Also when there are more than the active queue holds (lmtp_*_timeout=2s here)."""
    with running(FaultyStoreHost("native", main=SMALL_ACTIVE_QUEUE)) as host:
        postfix = host.postfix
        repair = {**FAILING_FAULTS, **HANGING_FAULTS}[fault](host)
        names = [f"{fault}-{number}" for number in range(15)]
        for name in names:
            postfix.send(mail(name))
        for name in names:
            assert_delivered(postfix, name)
        assert len(postfix.mailq()) == len(names)
        if fault in HANGING_FAULTS:
            assert not any(records(postfix, each) for each in names)
        repair()
        postfix.flush()
        postfix.wait_for_empty_queue()
        assert_all_once(host, ["before", *names])
