"""The storm: mail at full speed while processes die at random and Postfix is restarted.

What a client got 250 for is delivered and is in the store once, byte for byte. CI runs
a small storm; make storm the large one.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from postfix_archive.store import record_reader

from mails import LEGAL
from private_postfix import PrivatePostfix, WaitTimeout, descendants

pytestmark = pytest.mark.live

KILLED_PROGRAMS = (
    "smtpd",
    "cleanup",
    "qmgr",
    "pipe",
    "lmtp",
    "archive-stamp",
    "archive-lmtp",
    "archive",
    "python3",
)
SENDER_COUNT = 8
MAIN = {"ipc_timeout": "10s"}


class Storm:
    """One storm over an instance."""

    def __init__(self, postfix: PrivatePostfix, count: int, seed: int) -> None:
        self.postfix = postfix
        self.count = count
        self.generator = random.Random(seed)
        self.accepted: dict[str, str] = {}  # name -> SHA-256 of the body
        self.attempts = 0
        self.kill_counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def send_and_kill(self) -> None:
        """Send all messages; kill meanwhile, stop and start twice."""
        killer = threading.Thread(target=self._kill)
        killer.start()
        with ThreadPoolExecutor(SENDER_COUNT) as pool:
            try:
                results = pool.map(self._send, range(self.count))
                for part in (1, 2):
                    self._wait_for(part * self.count // 3)
                    self.postfix.stop()
                    self._start()
                list(results)
            finally:
                self._stop.set()
                killer.join()

    def _start(self) -> None:
        """Start Postfix; postsuper(1) may stumble over what orphans still move."""

        reasons = [""]

        def has_started() -> bool:
            try:
                self.postfix.start()
            except RuntimeError as error:
                reasons.append(str(error))
                return False
            return True

        try:
            self.postfix.wait(has_started, "Postfix starts")
        except WaitTimeout as error:
            raise WaitTimeout(f"{error}\n{reasons[-1]}") from None

    def _wait_for(self, accepted: int) -> None:
        self.postfix.wait(lambda: len(self.accepted) >= accepted, "mail is accepted")

    def wait_for_empty_queue(self) -> None:
        """Return when nothing is queued; what a dead cleanup(8) began counts not."""

        def is_empty() -> bool:
            if not any(self.postfix.mailq() for _ in range(3)):
                return True
            self.postfix.flush()
            time.sleep(0.5)
            return False

        end = time.monotonic() + 10 * 60
        while not is_empty():
            assert time.monotonic() < end, self.postfix.log()[-4000:]

    def _send(self, number: int) -> None:
        """Send one message, under a new name each time, until Postfix says 250."""
        attempt = 0
        while True:
            attempt += 1
            name = f"storm-{number}-{attempt}"
            body = f"{name}\n".encode() * (1 + number % 50)
            head = f"From: <a@example.org>\nSubject: {name}\nMessage-Id: <{name}@x>\n\n"
            with self._lock:
                self.attempts += 1
            try:
                self.postfix.send(head.encode() + body, to=[f"{name}@example.net"])
            except (OSError, smtplib.SMTPException):
                if self._stop.wait(0.05):
                    return
                continue
            with self._lock:
                self.accepted[name] = hashlib.sha256(body).hexdigest()
            return

    def _kill(self) -> None:
        while not self._stop.wait(self.generator.uniform(0.02, 0.12)):
            candidates = list(self._running_programs())
            if not candidates:
                continue
            pid, name = self.generator.choice(candidates)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.kill_counts[name] += 1

    def _running_programs(self) -> Iterator[tuple[int, str]]:
        try:
            master = int(
                (self.postfix.queue_directory / "pid" / "master.pid").read_text()
            )
            # Once it has stopped, another process may have its number.
            if Path(f"/proc/{master}/comm").read_text() != "master\n":
                return
            if Path(f"/proc/{master}/cwd").resolve() != self.postfix.queue_directory:
                return
        except (OSError, ValueError):
            return
        for pid in descendants(master):
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
            except OSError:
                continue
            if name in KILLED_PROGRAMS:
                yield pid, name


def assert_nothing_lost(storm: Storm) -> str:
    """Hold what was accepted against both ends; return the figures."""
    postfix = storm.postfix
    delivered: dict[str, list[str]] = {}
    for each in postfix.deliveries():
        if each.recipients[0].startswith("storm-"):
            name = each.recipients[0].partition("@")[0]
            body = each.content.partition(b"\n\n")[2]
            delivered.setdefault(name, []).append(hashlib.sha256(body).hexdigest())
    archived: Counter[str] = Counter()
    for record in record_reader.records(str(postfix.store), LEGAL):
        original = b"".join(record_reader.original(str(postfix.store), record))
        body = original.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
        name = body.partition(b"\n")[0].decode()
        archived[name] += 1
        assert [each["event"] for each in record.events].count("archived") == 1
        if name in storm.accepted:
            assert hashlib.sha256(body).hexdigest() == storm.accepted[name]
            recipients = [each.final.decode() for each in record.recipients.values()]
            assert recipients == [f"{name}@example.net"]
    missing = [each for each in storm.accepted if not archived[each]]
    undelivered = [each for each in storm.accepted if each not in delivered]
    assert (missing, undelivered) == ([], [])
    assert max(archived.values()) == 1
    for name, digest in storm.accepted.items():
        assert set(delivered[name]) == {digest}, name
    assert set(delivered) <= set(archived)  # nothing is delivered that is not archived
    process = postfix.run_command("verify")
    assert process.returncode == 0, process.stdout
    extra_deliveries = sum(len(each) - 1 for each in delivered.values())
    return (
        f"{len(storm.accepted)} accepted of {storm.attempts} tried, killed"
        f" {dict(storm.kill_counts)}; in the store {len(archived)},"
        f" delivered {len(delivered)}, delivered again {extra_deliveries}"
    )


def run_storm(count: int, seed: int, *, mode: str = "pipe") -> str:
    with PrivatePostfix(
        main=MAIN, archive_cf={"archive_delivery": "store"}, mode=mode
    ) as postfix:
        storm = Storm(postfix, count, seed)
        storm.send_and_kill()
        storm.wait_for_empty_queue()
        assert storm.kill_counts
        return assert_nothing_lost(storm)


@pytest.mark.parametrize("mode", ["pipe", "native"])
def test_a_small_storm_loses_nothing(mode: str) -> None:
    print(run_storm(200, seed=1, mode=mode))


@pytest.mark.slow
def test_a_large_storm_loses_nothing() -> None:
    print(run_storm(2000, seed=2))
