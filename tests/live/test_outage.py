"""Native mode while the archive is stopped, hangs or is killed: live mail goes on.

Mail comes at a steady rate, small and large. For a while no worker can be started, all
of them or the store hang, or each is killed: nothing waits for them. Afterwards each
message is delivered once and archived once.

In CI an outage takes seconds, and qmgr(8)'s times and active queue are smaller in
proportion; the timeouts of lmtp(8) are not. make outage has ten minutes and Postfix's
own times, and prints the latency, beside that of an instance without an archive.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postfix_archive.store import record_reader

import figures
import load
import steady_mail
from mails import LEGAL
from private_postfix import (
    GROUP,
    NATIVE_MODES,
    TIMEOUT,
    USER,
    PrivatePostfix,
    descendants,
)

pytestmark = pytest.mark.live

RATE = 20.0  # messages a second
OUTAGE = 600  # seconds, with Postfix's own times
SHORT_OUTAGE = 15
CONTENTS = [load.make_message(4 << 10)] * 9 + [load.make_message(200 << 10)]
# Postfix's own, in seconds; PrivatePostfix has shorter ones.
TIMES = {
    "minimal_backoff_time": 300,
    "maximal_backoff_time": 4000,
    "queue_run_delay": 300,
    "service_throttle_time": 60,
    "transport_retry_time": 60,
}
ACTIVE_QUEUE_SHARE = 3  # of the mail of an outage a third fits: 100 a second, 20,000
WATCH_INTERVAL = 0.05  # seconds
STORE_SIZE = 4 << 30  # bytes, sparse
PERIODS = ("before", "during", "after")
BAR = 1.2  # p99 during the outage, in that of an instance without an archive


class Outages:
    """An instance in native mode, and what can happen to its archive."""

    def __init__(self, mode: str, seconds: int) -> None:
        self.scale = min(1.0, seconds / OUTAGE)
        limit = int(seconds * RATE) // ACTIVE_QUEUE_SHARE
        self.postfix = PrivatePostfix(
            mode=mode,
            main={
                **steady_mail.MAIN,
                **self.times(),
                "qmgr_message_active_limit": str(limit),
            },
            archive_cf={"archive_delivery": "store"},
        )
        self.maildir = steady_mail.make_mailbox(self.postfix)
        self.launchers = [
            self.postfix.program_directory / each
            for each in ("archive-lmtp", "archive-capture")
        ]
        self._mount_store()

    def times(self) -> dict[str, str]:
        """Return times of Postfix, as short as the outage is."""
        return {name: f"{round(s * self.scale) or 1}s" for name, s in TIMES.items()}

    def _mount_store(self) -> None:
        """Give the store a file system of its own, which can be frozen."""
        image, store = self.postfix.directory / "disk", self.postfix.store
        with image.open("wb") as disk:
            disk.truncate(STORE_SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(store)], check=True)
        store.chmod(0o700)
        subprocess.run(["chown", f"{USER}:{GROUP}", str(store)], check=True)

    def close(self) -> None:
        """Leave no mount."""
        subprocess.run(["umount", "-l", str(self.postfix.store)], check=True)
        self.postfix.remove()

    def workers(self) -> Iterator[int]:
        """Yield the pids of our workers, or processes for one message."""
        names = [os.fsencode(each) for each in self.launchers]
        for pid in descendants(self.postfix.master_pid):
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"python" in command[0] and set(command) & set(names):
                    yield pid

    def signal_workers(self, number: int) -> set[int]:
        """Send a signal to all workers; return their pids."""
        pids = set(self.workers())
        for each in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)
        return pids

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """No worker can be started."""
        for each in self.launchers:
            each.chmod(0)
        self.signal_workers(signal.SIGKILL)
        try:
            yield
        finally:
            for each in self.launchers:
                each.chmod(0o755)

    @contextlib.contextmanager
    def store_hangs(self) -> Iterator[None]:
        """Whoever writes into the store waits, and cannot be killed."""
        subprocess.run(["fsfreeze", "-f", str(self.postfix.store)], check=True)
        try:
            yield
        finally:
            subprocess.run(["fsfreeze", "-u", str(self.postfix.store)], check=True)

    @contextlib.contextmanager
    def workers_hang(self) -> Iterator[None]:
        """Each worker stands still, wherever it is."""
        pids: set[int] = set()
        try:
            with self._again(lambda: pids.update(self.signal_workers(signal.SIGSTOP))):
                yield
        finally:
            for each in pids & set(self.workers()):
                os.kill(each, signal.SIGCONT)

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """Each worker is killed soon after its start."""
        with self._again(lambda: self.signal_workers(signal.SIGKILL)):
            yield

    @contextlib.contextmanager
    def _again(self, action: Callable[[], object]) -> Iterator[None]:
        """Do something again and again meanwhile."""
        end = threading.Event()

        def run() -> None:
            while not end.wait(WATCH_INTERVAL):
                action()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()


FAULTS: dict[str, Callable[[Outages], contextlib.AbstractContextManager[None]]] = {
    "stopped": Outages.stopped,
    "store hangs": Outages.store_hangs,
    "workers hang": Outages.workers_hang,
    "killed": Outages.killed,
}


Table = dict[tuple[str, str], list[float]]  # instance and period: ms, in order


def run_outage(mode: str, fault: str, seconds: int) -> Table:
    """Send mail before, during and after an outage; return the latencies."""
    outages = Outages(mode, seconds)
    plain = PrivatePostfix(main=steady_mail.MAIN | outages.times(), has_archive=False)
    plain_maildir = steady_mail.make_mailbox(plain)
    postfix = outages.postfix
    begins = [0]
    try:
        with plain, postfix:
            mail = steady_mail.SteadyMail(postfix, RATE, CONTENTS)
            with steady_mail.SteadyMail(plain, RATE, CONTENTS) as plain_mail, mail:
                wait_for_mail(mail, seconds // 4)
                with FAULTS[fault](outages):
                    begins.append(time.time_ns())
                    wait_for_mail(mail, seconds)
                    numbers = set(range(mail.count))
                    postfix.wait(
                        lambda: numbers <= delivered_numbers(postfix),
                        "all is delivered while the archive is out of order",
                    )
                begins.append(time.time_ns())
                wait_for_mail(mail, seconds // 4)
            wait_for_empty_queue(postfix)
            wait_for_empty_queue(plain)
            assert_once(outages, mail)
            return {
                **latencies("plain", plain_mail, plain_maildir, begins),
                **latencies(mode, mail, outages.maildir, begins),
            }
    finally:
        outages.close()


def wait_for_mail(mail: steady_mail.SteadyMail, seconds: int) -> None:
    """Return when the mail of so many seconds has been sent."""
    end = mail.count + int(seconds * RATE)
    while mail.count < end:
        mail.check()
        time.sleep(WATCH_INTERVAL)


def delivered_numbers(postfix: PrivatePostfix) -> set[int]:
    """Return the numbers of the messages that are delivered, by the log."""
    pattern = rf" to=<n(\d+)@{steady_mail.DOMAIN}>,.* status=sent "
    return {int(each) for each in re.findall(pattern, postfix.log())}


def wait_for_empty_queue(postfix: PrivatePostfix) -> None:
    """Retry what waits until nothing does; fail when nothing gets on."""
    shortest, deadline = 1 << 60, time.monotonic() + TIMEOUT
    while length := len(postfix.queue_files()):
        if length < shortest:
            shortest, deadline = length, time.monotonic() + TIMEOUT
        assert time.monotonic() < deadline, postfix.log()[-4000:]
        postfix.flush()
        time.sleep(1)


def assert_once(outages: Outages, mail: steady_mail.SteadyMail) -> None:
    """Each message is delivered once, archived once, byte for byte."""
    sent = {number: [item.sha256] for number, item in mail.sent.items()}
    assert len(sent) == mail.count
    delivered = steady_mail.deliveries(outages.maildir)
    assert {n: [e.sha256 for e in each] for n, each in delivered.items()} == sent
    store, archived = str(outages.postfix.store), dict[int, list[str]]()
    for record in record_reader.records(store, LEGAL):
        content = b"".join(record_reader.original(store, record))
        number, digest = steady_mail.read_message(content.replace(b"\r\n", b"\n"))
        archived.setdefault(number, []).append(digest)
        assert [each["event"] for each in record.events].count("archived") == 1
    assert archived == sent
    assert not re.search("status=(?:bounced|expired)", outages.postfix.log())
    assert outages.postfix.run_command("verify").returncode == 0


def latencies(
    name: str, mail: steady_mail.SteadyMail, maildir: Path, begins: list[int]
) -> Table:
    """Return ms from when each message was due to its delivery, by period."""
    table: Table = {(name, period): [] for period in PERIODS}
    delivered = steady_mail.deliveries(maildir)
    for due, ms in steady_mail.latencies(mail.sent, delivered):
        table[name, PERIODS[bisect.bisect(begins, due) - 1]].append(ms)
    return table


def percentiles(ms: list[float]) -> str:
    """Return how many there are, p50, p99 and the maximum."""
    p50, p99 = (figures.percentile(ms, each) for each in (50, 99))
    return f"{len(ms)} messages, p50 {p50:.0f}, p99 {p99:.0f}, max {max(ms):.0f} ms"


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_waits_for_an_archive_that_is_out_of_order(fault: str) -> None:
    run_outage("native", fault, SHORT_OUTAGE)


@pytest.mark.parametrize("fault", ["stopped", "store hangs", "killed"])
def test_nothing_waits_for_processes_without_workers(fault: str) -> None:
    run_outage("native-pipe", fault, SHORT_OUTAGE)


@pytest.mark.slow
@pytest.mark.parametrize("mode", NATIVE_MODES)
@pytest.mark.parametrize("fault", FAULTS)
def test_ten_minutes_without_the_archive_slow_nothing_down(
    mode: str, fault: str
) -> None:
    table = run_outage(mode, fault, int(os.environ.get("OUTAGE") or OUTAGE))
    for (name, period), ms in table.items():
        print(f"{fault}: {name}, {period}: {percentiles(ms)}")
    p99 = {key: figures.percentile(ms, 99) for key, ms in table.items()}
    assert p99[mode, "during"] <= BAR * max(p99["plain", "during"], p99[mode, "before"])
