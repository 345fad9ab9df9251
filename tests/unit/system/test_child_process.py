"""Claims about work in a process of its own: nobody waits longer than agreed."""

from __future__ import annotations

import gc
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postfix_archive.errors import WriteThroughFailed, WriteThroughTimeout
from postfix_archive.system import child_process

# What is given up is closed when nobody has it any more, and Python says so.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
TIME_LIMIT = 60  # seconds: more than any work here takes
TIMEOUT = 60.0
DESCRIPTOR_COUNT = 700  # descriptors
SPOOL = "TEST_SPOOL_DIRECTORY"
# Another user takes names and locks, and says so.
TAKE_ALL = r"""
import fcntl, os, socket, sys
directory, uid = sys.argv[1:]
sockets = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(64)]
for number, each in enumerate(sockets):
    each.bind("\0postfix-archive.%s.%d" % (uid, number))
for suffix in ("", ".0", ".ffffffffffffffff"):
    file = open(f"{directory}/.postfix-archive-{uid}.lock{suffix}", "w")
    os.set_inheritable(file.fileno(), True)
    fcntl.lockf(file, fcntl.LOCK_EX)
    fcntl.flock(os.dup(file.fileno()), fcntl.LOCK_EX)
    sockets.append(file)
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def children_end() -> Iterator[None]:
    """Each test ends when the processes that it began have."""
    before = child_process.CHILD_PIDS.copy()
    yield
    new_pids = [each for each in child_process.CHILD_PIDS if each not in before]
    wait_until(lambda: all(map(is_gone, new_pids)))


@pytest.fixture(autouse=True)
def spool_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which every user may create files, as /var/tmp is."""
    directory = tmp_path / "spool"
    directory.mkdir()
    directory.chmod(0o1777)
    monkeypatch.setenv(SPOOL, str(directory))
    return directory


def make_child(function: Callable[[bytes], str]) -> child_process.ChildProcess:
    return child_process.ChildProcess(function, os.environ[SPOOL])


def own_pid(_: bytes) -> str:
    return str(os.getpid())


def obey(request: bytes) -> str:
    """Do what is said: die, fail, wait for a file and then make another, or answer."""
    verb, _, argument = request.partition(b" ")
    if verb == b"die":
        os._exit(9)
    if verb == b"fail":
        raise ValueError(argument.decode())
    if verb == b"wait":
        wait_until(Path(os.fsdecode(argument)).exists)
        Path(os.fsdecode(argument) + ".done").touch()
    return str(os.getpid())


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_gone(process: str | int) -> bool:
    """Tell whether a process has ended, even if nobody has asked how."""
    gc.collect()  # a mate that nobody has any more ends
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(") ")[2].startswith("Z")


def test_work_is_done_by_another_process_and_its_result_is_returned() -> None:
    child = make_child(own_pid)
    assert int(child.call(b"x", TIME_LIMIT)) != os.getpid()
    assert (
        make_child(lambda request: request.decode() + " ä").call(b"told", TIME_LIMIT)
        == "told ä"
    )


def test_the_same_process_does_one_piece_of_work_after_the_other() -> None:
    child = make_child(own_pid)
    assert len({child.call(b"x", TIME_LIMIT) for _ in range(5)}) == 1


def test_work_that_fails_gives_the_reason_and_the_next_is_done() -> None:
    child = make_child(obey)
    first = child.call(b"x", TIME_LIMIT)
    with pytest.raises(WriteThroughFailed, match="^ValueError: no room$"):
        child.call(b"fail no room", TIME_LIMIT)
    assert child.call(b"x", TIME_LIMIT) == first


def test_a_process_that_dies_is_reported_and_replaced() -> None:
    child = make_child(obey)
    first = child.call(b"x", TIME_LIMIT)
    with pytest.raises(
        WriteThroughFailed, match="^child process ended without a result$"
    ):
        child.call(b"die", TIME_LIMIT)
    wait_until(lambda: is_gone(first))
    assert child.call(b"x", TIME_LIMIT) != first
    assert not Path("/proc", first).exists()  # the kernel has forgotten it


def test_other_children_of_the_program_still_report_their_exit_status() -> None:
    """With SIGCHLD ignored, each command would seem to have succeeded."""
    child = make_child(own_pid)
    child.call(b"x", TIME_LIMIT)
    assert subprocess.run(["false"], check=False).returncode == 1


def test_a_late_child_is_abandoned_and_may_still_finish(tmp_path: Path) -> None:
    child = make_child(obey)
    first = child.call(b"x", TIME_LIMIT)
    fifo = tmp_path / "gate"
    with pytest.raises(WriteThroughFailed, match="^not done within 1 s$"):
        child.call(b"wait " + os.fsencode(fifo), 1)
    second = child.call(b"x", TIME_LIMIT)  # while the first is at work
    assert second != first
    assert not is_gone(first)
    fifo.touch()
    wait_until(lambda: is_gone(first))
    assert fifo.with_suffix(".done").exists()
    assert child.call(b"x", TIME_LIMIT) == second


@pytest.mark.parametrize(
    "size", [0, 1, child_process.RECEIVE_SIZE - 8, child_process.RECEIVE_SIZE, 5 << 20]
)
def test_content_of_any_size_arrives_complete_in_both_directions(size: int) -> None:
    child = make_child(lambda request: request.decode())
    content = ("0123456789abcdef" * (size // 16 + 1))[:size]
    assert child.call(b"-" + content.encode(), TIME_LIMIT) == "-" + content


def test_a_child_ends_with_its_parent() -> None:
    child = make_child(own_pid)
    process = child.call(b"x", TIME_LIMIT)
    assert not is_gone(process)
    del child
    wait_until(lambda: is_gone(process))


def test_it_holds_nothing_that_others_wait_to_see_closed() -> None:
    reads, writes = os.pipe()
    child = make_child(lambda _: " ".join(os.listdir("/proc/self/fd")))
    descriptors = child.call(b"x", TIME_LIMIT).split()
    os.close(writes)
    assert os.read(reads, 1) == b""  # though it lives
    os.close(reads)
    assert {"0", "1", "2"} < set(descriptors)
    # Those, the connection, its name, and the directory that is listed.
    assert len(descriptors) == 6


def test_it_holds_nothing_of_a_process_that_has_much_open_either() -> None:
    """Not even the other end of its own connection: else it would never end."""
    open_count = len(os.listdir("/proc/self/fd"))
    opened_descriptors = [
        os.open("/dev/null", os.O_RDONLY) for _ in range(open_count, DESCRIPTOR_COUNT)
    ]
    try:
        child = make_child(lambda _: " ".join(os.listdir("/proc/self/fd")))
        assert len(child.call(b"x", TIME_LIMIT).split()) == 6
        [process] = child_process.CHILD_PIDS[-1:]
        assert not is_gone(process)
        del child
        wait_until(lambda: is_gone(process))
    finally:
        for each in opened_descriptors:
            os.close(each)


def test_its_first_three_descriptors_are_dev_null() -> None:
    child = make_child(
        lambda _: " ".join(os.readlink(f"/proc/self/fd/{n}") for n in "012")
    )
    assert child.call(b"x", TIME_LIMIT) == "/dev/null /dev/null /dev/null"


def test_there_are_so_many_and_no_more_also_of_those_that_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that hangs all night takes the memory of so many processes."""
    monkeypatch.setattr(child_process, "PROCESS_LIMIT", 3)
    waits = b"wait " + os.fsencode(tmp_path / "answer")
    hanging = [make_child(obey) for _ in range(4)]
    for child in hanging[:3]:
        with pytest.raises(WriteThroughTimeout):
            child.call(waits, 1)
    with pytest.raises(WriteThroughFailed, match="^3 processes wait for the store$"):
        hanging[3].call(b"x", 1)
    (tmp_path / "answer").touch()  # the disk answers, and they end

    def is_room() -> bool:
        try:
            return bool(hanging[3].call(b"x", TIME_LIMIT))
        except WriteThroughFailed:
            return False

    wait_until(is_room)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_another_user_can_take_no_name_that_turns_it_off(
    spool_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory in spool_directory.parents:
        if str(directory).startswith(f"{tempfile.gettempdir()}/"):  # pytest's own
            directory.chmod(0o755)
    monkeypatch.setattr(child_process, "PROCESS_LIMIT", 2)
    command = [
        "/usr/bin/python3",
        "-c",
        TAKE_ALL,
        str(spool_directory),
        str(os.geteuid()),
    ]
    with subprocess.Popen(
        command, user="nobody", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other_user:
        assert other_user.stdout is not None
        assert other_user.stdout.readline() == b"taken\n"
        children = [make_child(own_pid) for _ in range(3)]
        pids = {each.call(b"x", TIME_LIMIT) for each in children[:2]}
        assert len(pids) == 2
        # The limit holds all the same: all find one file.
        with pytest.raises(WriteThroughFailed, match="^2 processes wait"):
            children[2].call(b"x", TIME_LIMIT)
        del children[0]
        wait_until(lambda: sum(map(is_gone, pids)) == 1)
        assert children[1].call(b"x", TIME_LIMIT)
        assert other_user.stdin is not None
        other_user.stdin.close()


def test_without_a_spool_directory_it_is_not_at_once(spool_directory: Path) -> None:
    child = make_child(own_pid)
    spool_directory.rmdir()
    with pytest.raises(WriteThroughFailed, match="FileNotFoundError"):
        child.call(b"x", TIME_LIMIT)
    spool_directory.mkdir()
    assert child.call(b"x", TIME_LIMIT)


def test_where_no_process_can_be_made_it_is_not_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("posix.fork", no_fork)
    child = make_child(own_pid)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(WriteThroughFailed, match="Resource temporarily unavailable"):
        child.call(b"x", TIME_LIMIT)
    assert os.listdir("/proc/self/fd") == before
    monkeypatch.undo()
    assert child.call(b"x", TIME_LIMIT)
