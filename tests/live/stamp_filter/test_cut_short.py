"""A message whose pipe(8) dies while it writes is never taken for a whole one.

pipe(8) is killed after every number of blocks that it writes, while the stamp filter,
or the archive transport, waits for more. Nothing of the part is handed back or stored;
Postfix tries again.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from milter import Milter

from postfix_archive.postfix import queue_file_size

from mails import (
    LEGAL,
    event_kinds,
    mail,
    one_delivery,
    original_of,
    read_queue_file,
    record_of,
    records,
)
from private_postfix import GROUP, ROOT, USER, PrivatePostfix

pytestmark = pytest.mark.live

BLOCK = 4096  # bytes that pipe(8) writes at once
LINES = 2300  # of 80 bytes
DEFERRED = 75


class Killer(threading.Thread):
    """Kills pipe(8) when a launcher asks for it, and lets the launcher go on before."""

    def __init__(self, path: Path, kill: Callable[[int], None]) -> None:
        super().__init__(daemon=True)
        self.killed: list[tuple[str, str]] = []  # transport, queue id
        self._kill = kill
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._socket.listen(100)

    def run(self) -> None:
        """Serve until the socket is closed."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                transport, queue_id, *pids = connection.recv(200).split()
                pipe, launcher = map(int, pids)
                os.kill(pipe, signal.SIGSTOP)
                wait_until_stopped(pipe)
                if is_writing(pipe, launcher):  # else the end of file is there already
                    connection.sendall(b".")
                    wait_until_asleep(launcher)
                self._kill(pipe)
                wait_until_gone(pipe)
                self.killed.append((transport.decode(), queue_id.decode()))

    def close(self) -> None:
        """End the thread."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.join()


def state(pid: int) -> str:
    """Return the state of a process (proc(5)), Z if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "Z"
    return stat.rpartition(")")[2].split()[0]


def wait_until_stopped(pid: int) -> None:
    """Return when a process does nothing any more."""
    while state(pid) not in "TZX":
        pass


def wait_until_gone(pid: int) -> None:
    """Return when a process has ended."""
    while state(pid) not in "ZX":
        pass


def is_writing(pipe: int, launcher: int) -> bool:
    """Tell whether pipe(8) still has the other end of the launcher's stdin open."""
    stdin = os.readlink(f"/proc/{launcher}/fd/0")
    descriptors = Path(f"/proc/{pipe}/fd").iterdir()
    return stdin in [os.readlink(each) for each in descriptors]


def wait_until_asleep(pid: int) -> None:
    """Return when a process waits for more of its message."""
    while state(pid) != "S" or "pipe" not in Path(f"/proc/{pid}/wchan").read_text():
        pass


def large(name: str) -> bytes:
    """Return a message of that name of some 190 KB."""
    line = "".join(chr(65 + number % 26) for number in range(79))
    return mail(name) + "".join(f"{line}\n" for _ in range(LINES)).encode()


def kill(pid: int) -> None:
    """Kill pipe(8) with SIGKILL."""
    os.kill(pid, signal.SIGKILL)


def end(pid: int) -> None:
    """End pipe(8) as master(8) does when Postfix stops."""
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGCONT)


@pytest.fixture(params=["archive-stamp", "archive"])
def transport(request: pytest.FixtureRequest) -> str:
    """Either of the two transports that pipe(8) starts."""
    name: str = request.param
    return name


@pytest.fixture
def postfix(transport: str) -> Iterator[PrivatePostfix]:
    """An instance in which pipe(8) can be killed for one of the transports."""
    instance = PrivatePostfix(
        mode="capsule" if transport == "archive" else "pipe",
        main={"default_process_limit": "50"},
    )
    faults = instance.directory / "faults"
    faults.mkdir()
    faults.chmod(0o777)
    instance.add_to_environment(POSTFIX_ARCHIVE_FAULTS=str(faults))
    shutil.copy(
        ROOT / "tests" / "cut_launcher.py", instance.program_directory / transport
    )
    (instance.program_directory / transport).chmod(0o755)
    (faults / f"armed-{transport}").touch()
    with instance:
        yield instance


@pytest.mark.parametrize("how", [kill, end])
def test_a_message_whose_pipe_dies_is_tried_again_whole(
    postfix: PrivatePostfix, transport: str, how: Callable[[int], None]
) -> None:
    faults = postfix.directory / "faults"
    killer = Killer(faults / "killer", how)
    killer.start()
    count = len(large("x")) // BLOCK + 1
    names = [f"cut-{number}" for number in range(count)]
    for name in names:
        postfix.send(large(name))
    postfix.wait_for_empty_queue()
    killer.close()
    assert [each for each, _ in killer.killed] == [transport] * count
    assert len({queue_id for _, queue_id in killer.killed}) == count
    for name in names:
        content = one_delivery(postfix, name, "bob@example.net").content
        assert content.endswith(large(name)[-2000:])
        assert content.count(b"\n") > LINES
        record = record_of(postfix, name)
        assert event_kinds(record)[0] == "archived"
        assert original_of(postfix, record).count(b"\r\n") > LINES
    assert len(postfix.stored_files(LEGAL)) == count
    assert postfix.run_command("verify").returncode == 0
    assert "alarm=" not in postfix.log()


def run(
    postfix: PrivatePostfix, message: bytes, *, size: int | None
) -> subprocess.CompletedProcess[bytes]:
    """Run the stamp filter by hand, without pipe(8)."""
    arguments = ["--nexthop", LEGAL, "--queue-id", "4ZxBYHAND", "--sender", ""]
    if size is not None:
        arguments += ["--size", str(size)]
    return subprocess.run(
        [
            postfix.program_directory / "archive-stamp",
            *arguments,
            "--",
            "a@example.net",
            "",
        ],
        input=message,
        env={"MAIL_CONFIG": str(postfix.etc)},
        capture_output=True,
        user=USER,
        group=GROUP,
        extra_groups=[],
        check=False,
    )


def queue_size(message: bytes) -> int:
    """Return the size that the queue file of a message has."""
    return queue_file_size.content_size([message.replace(b"\n", b"\r\n")])[0]


def test_a_part_of_a_message_defers_whoever_hands_it_in() -> None:
    with PrivatePostfix() as postfix:
        message = mail("by-hand")
        whole = queue_size(message)
        for length in range(0, len(message) - 1, 9):
            done = run(postfix, message[:length], size=whole)
            assert done.returncode == DEFERRED, length
            assert done.stdout == b"4.3.0 temporary failure\n"
        assert run(postfix, message, size=None).returncode == DEFERRED
        assert run(postfix, message, size=whole - 1).returncode == DEFERRED
        assert "MessageIncomplete" in postfix.last_failure()
        assert not records(postfix, "by-hand")
        assert not postfix.deliveries()
        assert run(postfix, message, size=whole).returncode == 0
        postfix.wait_for_empty_queue()
        assert record_of(postfix, "by-hand")


LENGTHS = [0, 1, 14, 15, 126, 127, 128, 511, 512, 513, 998, 1024, 2047, 2048, 2049]
LENGTHS += [4095, 4096, 4097, 10_000, 16_383, 16_384, 16_385, 70_000]


def test_size_counts_as_postfix_counts() -> None:
    """Lines around every length at which a record takes a byte more; long headers."""
    with PrivatePostfix(main={"defer_transports": "archive-stamp"}) as postfix:
        lines = [b"x" * length for length in LENGTHS]
        header = [b"X-%d: " % length + b"y" * length for length in LENGTHS]
        sent = [mail("sizes-0"), mail("sizes-1") + b"\n".join(lines) + b"\n"]
        sent += [b"\n".join([*header, b""]) + mail("sizes-2")]
        sent += [mail("sizes-%d" % n) + b"\n".join(lines[:n]) for n in range(3, 20)]
        for content in sent:
            postfix.send(content)
        for content in sent[:2]:
            postfix.sendmail(content, to=["bob@example.net"])
        postfix.wait(lambda: len(postfix.mailq()) == len(sent) + 2, "all are queued")
        exact = 0
        for message in postfix.mailq():
            content = read_queue_file(postfix, str(message["queue_id"]))
            canonical = content.replace(b"\n", b"\r\n")
            smallest, largest = queue_file_size.content_size([canonical])
            size = int(str(message["message_size"]))
            assert smallest <= size <= largest
            exact += smallest == largest == size
        assert exact == 8  # those without a line of 512 bytes or more
        postfix.postconf(defer_transports="")
        postfix.reload()
        postfix.flush()
        postfix.wait_for_empty_queue()
        assert len(postfix.stored_files(LEGAL)) == len(sent) + 2


@pytest.mark.parametrize(
    "changes",
    [
        {"removed": b"X-Long", "body": b"This is milter.\r\n"},
        {"added": b"z" * 900},
        {"removed": b"X-Long", "added": b"z" * 900},
    ],
)
def test_what_a_milter_makes_smaller_or_larger_is_whole(
    changes: dict[str, bytes],
) -> None:
    """${size} counts what the Milter has removed, and not what it has added."""
    milter = Milter(**changes)
    with PrivatePostfix(main={"smtpd_milters": milter.address}) as postfix:
        content = b"X-Long: " + b"y" * 900 + b"\n" + mail("milter")
        postfix.send(content + b"x" * 70 + b"\n" * 5)
        postfix.wait_for_empty_queue()
        got = one_delivery(postfix, "milter", "bob@example.net").content
        assert (b"X-Long" in got) == ("removed" not in changes)
        assert (b"X-Added" in got) == ("added" in changes)
        assert (b"xxxx" in got) == ("body" not in changes)
        record_of(postfix, "milter")
        assert postfix.last_failure() == ""
    milter.close()
