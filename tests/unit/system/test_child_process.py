"""Claims about work in a process of its own: nobody waits longer than agreed."""

from __future__ import annotations

import gc
import os
import subprocess
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
SOON = 60  # seconds: more than any work here takes
PATIENCE = 60.0
MANY = 700  # descriptors


@pytest.fixture(autouse=True)
def children() -> Iterator[None]:
    """Each test ends when the processes that it began have."""
    before = child_process.CHILD_PIDS.copy()
    yield
    begun = [each for each in child_process.CHILD_PIDS if each not in before]
    until(lambda: all(map(is_gone, begun)))


def pid(_: bytes) -> str:
    return str(os.getpid())


def obedient(told: bytes) -> str:
    """Do what is said: die, fail, wait for a file and then make another, or answer."""
    verb, _, rest = told.partition(b" ")
    if verb == b"die":
        os._exit(9)
    if verb == b"fail":
        raise ValueError(rest.decode())
    if verb == b"wait":
        until(Path(os.fsdecode(rest)).exists)
        Path(os.fsdecode(rest) + ".done").touch()
    return str(os.getpid())


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
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


def test_work_is_done_by_another_process_and_its_word_comes_back() -> None:
    mate = child_process.ChildProcess(pid)
    assert int(mate.call(b"x", SOON)) != os.getpid()
    assert (
        child_process.ChildProcess(lambda told: told.decode() + " ä").call(
            b"told", SOON
        )
        == "told ä"
    )


def test_the_same_process_does_one_piece_of_work_after_the_other() -> None:
    mate = child_process.ChildProcess(pid)
    assert len({mate.call(b"x", SOON) for _ in range(5)}) == 1


def test_work_that_fails_says_why_and_the_next_is_done_all_the_same() -> None:
    mate = child_process.ChildProcess(obedient)
    first = mate.call(b"x", SOON)
    with pytest.raises(WriteThroughFailed, match="^ValueError: no room$"):
        mate.call(b"fail no room", SOON)
    assert mate.call(b"x", SOON) == first


def test_a_process_that_dies_is_told_of_and_replaced() -> None:
    mate = child_process.ChildProcess(obedient)
    first = mate.call(b"x", SOON)
    with pytest.raises(
        WriteThroughFailed, match="^child process ended without a result$"
    ):
        mate.call(b"die", SOON)
    until(lambda: is_gone(first))
    assert mate.call(b"x", SOON) != first
    assert not Path("/proc", first).exists()  # the kernel has forgotten it


def test_what_else_the_program_runs_still_tells_how_it_ended() -> None:
    """With SIGCHLD ignored, each command would seem to have succeeded."""
    mate = child_process.ChildProcess(pid)
    mate.call(b"x", SOON)
    assert subprocess.run(["false"], check=False).returncode == 1


def test_who_is_late_is_left_to_itself_and_may_still_end_well(tmp_path: Path) -> None:
    mate = child_process.ChildProcess(obedient)
    first = mate.call(b"x", SOON)
    gate = tmp_path / "gate"
    with pytest.raises(WriteThroughFailed, match="^not done within 1 s$"):
        mate.call(b"wait " + os.fsencode(gate), 1)
    second = mate.call(b"x", SOON)  # while the first is at work
    assert second != first
    assert not is_gone(first)
    gate.touch()
    until(lambda: is_gone(first))
    assert gate.with_suffix(".done").exists()
    assert mate.call(b"x", SOON) == second


@pytest.mark.parametrize(
    "size", [0, 1, child_process.RECEIVE_SIZE - 8, child_process.RECEIVE_SIZE, 5 << 20]
)
def test_content_of_any_size_arrives_whole_both_ways(size: int) -> None:
    mate = child_process.ChildProcess(lambda told: told.decode())
    content = ("0123456789abcdef" * (size // 16 + 1))[:size]
    assert mate.call(b"-" + content.encode(), SOON) == "-" + content


def test_a_mate_ends_with_whom_it_belongs_to() -> None:
    mate = child_process.ChildProcess(pid)
    process = mate.call(b"x", SOON)
    assert not is_gone(process)
    del mate
    until(lambda: is_gone(process))


def test_it_holds_nothing_that_others_wait_to_see_closed() -> None:
    reads, writes = os.pipe()
    mate = child_process.ChildProcess(lambda _: " ".join(os.listdir("/proc/self/fd")))
    held = mate.call(b"x", SOON).split()
    os.close(writes)
    assert os.read(reads, 1) == b""  # though it lives
    os.close(reads)
    assert {"0", "1", "2"} < set(held)
    # Those, the connection, its name, and the folder that is listed.
    assert len(held) == 6


def test_it_holds_nothing_of_a_process_that_has_much_open_either() -> None:
    """Not even the other end of its own connection: else it would never end."""
    begin = len(os.listdir("/proc/self/fd"))
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(begin, MANY)]
    try:
        mate = child_process.ChildProcess(
            lambda _: " ".join(os.listdir("/proc/self/fd"))
        )
        assert len(mate.call(b"x", SOON).split()) == 6
        [process] = child_process.CHILD_PIDS[-1:]
        assert not is_gone(process)
        del mate
        until(lambda: is_gone(process))
    finally:
        for each in opened:
            os.close(each)


def test_its_first_three_descriptors_lead_nowhere() -> None:
    mate = child_process.ChildProcess(
        lambda _: " ".join(os.readlink(f"/proc/self/fd/{n}") for n in "012")
    )
    assert mate.call(b"x", SOON) == "/dev/null /dev/null /dev/null"


def test_there_are_so_many_and_no_more_also_of_those_that_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that hangs all night takes the memory of so many processes."""
    monkeypatch.setattr(child_process, "PROCESS_LIMIT", 3)
    waits = b"wait " + os.fsencode(tmp_path / "answer")
    mates = [child_process.ChildProcess(obedient) for _ in range(4)]
    for mate in mates[:3]:
        with pytest.raises(WriteThroughTimeout):
            mate.call(waits, 1)
    with pytest.raises(WriteThroughFailed, match="^3 processes wait for the store$"):
        mates[3].call(b"x", 1)
    (tmp_path / "answer").touch()  # the disk answers, and they end

    def is_room() -> bool:
        try:
            return bool(mates[3].call(b"x", SOON))
        except WriteThroughFailed:
            return False

    until(is_room)


def test_where_no_process_can_be_made_it_is_not_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("posix.fork", no_fork)
    mate = child_process.ChildProcess(pid)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(WriteThroughFailed, match="Resource temporarily unavailable"):
        mate.call(b"x", SOON)
    assert os.listdir("/proc/self/fd") == before
    monkeypatch.undo()
    assert mate.call(b"x", SOON)
