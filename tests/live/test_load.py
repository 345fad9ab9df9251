"""Load: fifty sessions at once, messages of a kilobyte to 20 MB, and many small ones.

All that Postfix has said 250 to is delivered once and archived once, byte for byte, and
none of our processes needs more memory than it may. CI runs a tenth; make load all of
it, with the figures: also of the memory at the beginning and at the end.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import threading
import time
from base64 import encodebytes
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import median

import pytest

from postfix_archive.store import record_reader

import journal_lines
from mails import LEGAL
from private_postfix import GROUP, TIMEOUT, USER, Client, PrivatePostfix

pytestmark = pytest.mark.live

SESSIONS = 50
LARGEST_SIZE = 20 << 20
# maxproc in master.cf.d
PROCESS_LIMITS = {"archive-stamp": 10, "archive": 4, "archive-lmtp": 20}
BUSY_PROGRAMS = {
    "pipe": ["archive-stamp"],
    "capsule": ["archive-stamp", "archive"],
    "native": ["archive-lmtp"],
}  # by the way of the copy
MEMORY_LIMIT = 64 << 10  # KiB: the bar for one process
DOMAIN = "load.example.net"
MAIN = {
    "message_size_limit": str(2 * LARGEST_SIZE),
    "virtual_mailbox_domains": DOMAIN,
    "virtual_mailbox_maps": "static:inbox/",
    "virtual_mailbox_limit": "0",
    "virtual_uid_maps": "static:65534",
    "virtual_gid_maps": "static:65534",
    "virtual_minimum_uid": "100",
    "maximal_queue_lifetime": "5d",
    "minimal_backoff_time": "300s",
    "maximal_backoff_time": "300s",
    "queue_run_delay": "60s",
    "defer_transports": "archive, archive-capture",
}


def mixed_size(generator: random.Random) -> int:
    """Return a size as mail has them: many small, few large, one in 1,000 of 20 MB."""
    drawn_number = generator.random()
    if drawn_number < 0.001:
        return LARGEST_SIZE
    return int(2 ** generator.uniform(9, 17 if drawn_number < 0.97 else 21))


def small_size(_: random.Random) -> int:
    return 2000


class LoadRun:
    """One run: what was sent, and what our processes needed meanwhile."""

    def __init__(
        self, postfix: PrivatePostfix, count: int, size: Callable[[random.Random], int]
    ) -> None:
        self.postfix = postfix
        self.count = count
        self.sent: dict[int, bytes] = {}  # number -> SHA-256 of the body
        self.bytes = 0
        self.peaks: dict[str, dict[int, int]] = {name: {} for name in PROCESS_LIMITS}
        self.max_processes: Counter[str] = Counter()  # processes at once
        self.seconds = 0.0
        self._size = size
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Send all, wait until nothing is queued."""
        watcher = threading.Thread(target=self._watch_processes)
        watcher.start()
        start = time.monotonic()
        try:
            with ThreadPoolExecutor(SESSIONS) as pool:
                results = pool.map(self._session, range(SESSIONS))
                self._release_copies()
                list(results)
            self._wait_for_empty_queue()
        finally:
            self.seconds = time.monotonic() - start
            self._stop.set()
            watcher.join()

    def _release_copies(self) -> None:
        """Let copies wait at first, so that their transport has a queue to work off."""
        self.postfix.wait(
            lambda: len(self.sent) >= self.count // 4, "a quarter is accepted"
        )
        self.postfix.postconf(defer_transports="")
        self.postfix.reload()
        self.postfix.flush()

    def _session(self, session: int) -> None:
        """Send every fiftieth message, in one SMTP session."""
        with Client(self.postfix.smtp_port) as client:
            for number in range(session, self.count, SESSIONS):
                body = self._body(number)
                head = (
                    f"Subject: load\nX-Number: {number}\nMessage-Id: <{number}@x>\n\n"
                )
                client.send(head.encode() + body, to=[f"n{number}@{DOMAIN}"])
                with self._lock:
                    self.sent[number] = hashlib.sha256(body).digest()
                    self.bytes += len(body)

    def _body(self, number: int) -> bytes:
        generator = random.Random(number)
        size = self._size(generator)
        return encodebytes(generator.randbytes(size * 3 // 4))

    def _wait_for_empty_queue(self) -> None:
        """Return when the queue is empty; fail when nothing gets on."""
        journal = journal_lines.segment(self.postfix.store / LEGAL)
        progress_before, deadline = (0, 0), time.monotonic() + TIMEOUT
        while length := len(self.postfix.queue_files()):
            progress = (journal.stat().st_size if journal.exists() else 0, -length)
            if progress > progress_before:
                progress_before, deadline = progress, time.monotonic() + TIMEOUT
            assert time.monotonic() < deadline, self.postfix.log()[-4000:]
            time.sleep(0.5)

    def _watch_processes(self) -> None:
        """Note the peak memory of each of our processes, and how many there are."""
        master = int((self.postfix.queue_directory / "pid" / "master.pid").read_text())
        while not self._stop.wait(0.1):
            now: Counter[str] = Counter()
            for pid, name in _programs(master):
                now[name] += 1
                self.peaks[name][pid] = max(_peak(pid), self.peaks[name].get(pid, 0))
            self.max_processes |= now


def _programs(master: int) -> Iterator[tuple[int, str]]:
    """Give the processes of ours below this master(8): pipe(8)'s children."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, stat_fields = path.read_text().partition(" (")[2].rpartition(") ")
            parents[int(path.parent.name)] = int(stat_fields.split()[1])
            names[int(path.parent.name)] = name
    for pid, name in names.items():
        if name in PROCESS_LIMITS and parents.get(parents[pid]) == master:
            yield pid, name


def _peak(pid: int) -> int:
    """Return a process's peak resident memory in KiB, 0 if it has ended."""
    with suppress(OSError):
        _, _, status_text = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")
        return int(status_text.split()[0]) if status_text else 0
    return 0


def delivered(inbox: Path) -> Iterator[tuple[int, bytes]]:
    """Give number and SHA-256 of the body of each message in a Maildir."""
    for path in (inbox / "new").iterdir():
        yield _number_and_digest(path.read_bytes())


def _number_and_digest(message: bytes) -> tuple[int, bytes]:
    head, _, body = message.replace(b"\r\n", b"\n").partition(b"\n\n")
    number = int(head.partition(b"\nX-Number: ")[2].partition(b"\n")[0])
    return number, hashlib.sha256(body).digest()


def assert_all_arrived(load: LoadRun, inbox: Path, mode: str) -> str:
    """Hold what was accepted against both ends; return the figures."""
    postfix = load.postfix
    assert len(load.sent) == load.count
    arrived = Counter(delivered(inbox))
    assert arrived == Counter(load.sent.items())
    store = str(postfix.store)
    archived: Counter[tuple[int, bytes]] = Counter()
    for record in record_reader.records(store, LEGAL):
        number, digest = _number_and_digest(
            b"".join(record_reader.original(store, record))
        )
        archived[number, digest] += 1
        recipients = [each.final for each in record.recipients.values()]
        assert recipients == [f"n{number}@{DOMAIN}".encode()]
    assert archived == arrived
    process = postfix.run_command("verify")
    assert process.returncode == 0, process.stdout
    lines = postfix.log().splitlines()
    waited = [line for line in lines if "status=deferred" in line]
    assert not [line for line in waited if "(deferred transport)" not in line]
    assert load.max_processes <= Counter(PROCESS_LIMITS)
    assert all(load.max_processes[name] for name in BUSY_PROGRAMS[mode])
    return _summary(load, BUSY_PROGRAMS[mode])


def _summary(load: LoadRun, busy_programs: list[str]) -> str:
    text = (
        f"{load.count} messages, {load.bytes >> 20} MB, in {load.seconds:.0f} s"
        f" ({load.count / load.seconds:.1f} a second)"
    )
    for name in busy_programs:
        inorder = [each for each in load.peaks[name].values() if each]
        quarter = max(1, len(inorder) // 4)
        first, last = median(inorder[:quarter]), median(inorder[-quarter:])
        assert max(inorder) <= MEMORY_LIMIT
        text += (
            f"; {name}: peak of the first quarter {first / 1024:.1f} MB, of the last"
            f" {last / 1024:.1f}, of all {max(inorder) / 1024:.1f}"
        )
    return text


def run_load(
    count: int, size: Callable[[random.Random], int], *, mode: str = "pipe"
) -> str:
    cf = {"archive_delivery": "store"}
    with PrivatePostfix(main=MAIN, archive_cf=cf, mode=mode) as postfix:
        inbox = postfix.directory / "inbox"
        for directory in (inbox, *(inbox / each for each in ("cur", "new", "tmp"))):
            directory.mkdir()
            directory.chmod(0o700)
            shutil.chown(directory, USER, GROUP)
        postfix.postconf(virtual_mailbox_base=str(postfix.directory))
        postfix.reload()
        load = LoadRun(postfix, count, size)
        load.run()
        return assert_all_arrived(load, inbox, mode)


@pytest.mark.parametrize("mode", BUSY_PROGRAMS)
def test_two_thousand_mixed_messages_arrive_at_both_ends(mode: str) -> None:
    print(run_load(2000, mixed_size, mode=mode))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pipe", "native"])
def test_twenty_thousand_mixed_messages_arrive_at_both_ends(mode: str) -> None:
    print(run_load(20_000, mixed_size, mode=mode))


@pytest.mark.slow
def test_a_hundred_thousand_small_messages_arrive_at_both_ends() -> None:
    print(run_load(100_000, small_size))
