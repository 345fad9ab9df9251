"""What an instance uses: CPU by its control group, memory and fsyncs by process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from private_postfix import PrivatePostfix, descendants

TICKS = os.sysconf("SC_CLK_TCK")
PROGRAMS = ("archive-stamp", "archive", "archive-lmtp")
POLL_INTERVAL = 0.005  # seconds between two looks at memory
HIGH_WATER = re.compile(r"^VmHWM:\s+(\d+) kB", re.M)
SYNCS = re.compile(
    r"\b(?:fsync|fdatasync)\((?!.*unfinished)|\b(?:fsync|fdatasync) resumed"
)


class ControlGroup:
    """A control group (cgroup v2) for one instance; or none, where none can be had."""

    def __init__(self, name: str) -> None:
        self.directory = _cgroup_directory()
        self.parent = self.directory
        if self.directory:
            self.directory = self.directory / name
            try:
                self.directory.mkdir()
            except OSError:
                self.directory = None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """What is started meanwhile, and all that comes of it, belongs to the group."""
        if not (self.directory and self.parent):
            yield
            return
        (self.directory / "cgroup.procs").write_text("0")
        try:
            yield
        finally:
            (self.parent / "cgroup.procs").write_text("0")

    def remove(self) -> None:
        """Remove the group, once its last process is gone."""
        for _ in range(200):
            try:
                return self.directory.rmdir() if self.directory else None
            except OSError:
                time.sleep(0.02)

    def seconds(self, postfix: PrivatePostfix) -> float:
        """Return the CPU seconds that the instance has used since its start."""
        if self.directory:
            stat = (self.directory / "cpu.stat").read_text()
            return int(stat.split()[1]) / 1e6
        return sum(sum(_stat(pid)) for pid in processes(postfix)) / TICKS

    @property
    def source(self) -> str:
        """Where seconds() comes from."""
        return "cgroup v2 cpu.stat" if self.directory else "/proc/PID/stat of the tree"


def processes(postfix: PrivatePostfix) -> list[int]:
    """Return the pids of an instance."""
    pid = int((postfix.queue_directory / "pid" / "master.pid").read_text())
    return [pid, *descendants(pid)]


@contextmanager
def peak(postfix: PrivatePostfix, peaks: dict[str, int]) -> Iterator[None]:
    """Note the peak memory (kB) of each of our programs, meanwhile."""
    stop = threading.Event()
    thread = threading.Thread(target=_poll_memory, args=(postfix, peaks, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def fsyncs(postfix: PrivatePostfix, counts: list[int]) -> Iterator[None]:
    """Count fsync and fdatasync of the whole instance, meanwhile; it is slower."""
    trace_path = postfix.directory / "strace"
    pids = [word for pid in processes(postfix) for word in ("-p", str(pid))]
    calls = "trace=fsync,fdatasync"
    command = [
        "strace",
        "-f",
        "-qq",
        "-e",
        calls,
        "-e",
        "signal=none",
        "-o",
        str(trace_path),
    ]
    tracer = subprocess.Popen([*command, *pids], stderr=subprocess.DEVNULL)
    postfix.wait(
        lambda: tracer.poll() is not None or _is_traced(postfix, tracer.pid),
        "strace has attached",
    )
    if tracer.poll() is not None:
        raise SystemExit("strace may not look at Postfix here: it needs CAP_SYS_PTRACE")
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
    counts.append(len(SYNCS.findall(trace_path.read_text())))
    trace_path.unlink()


def own_seconds(pid: int) -> float:
    """Return the CPU seconds that a process itself has used; 0 once it is gone."""
    try:
        text = Path(f"/proc/{pid}/schedstat").read_text()
        return int(text.split()[0]) / 1e9
    except OSError:  # where the kernel was built without it
        return sum(_stat(pid)[:2]) / TICKS


def children_seconds(pid: int) -> float:
    """Return the CPU seconds of the children that a process has waited for."""
    return sum(_stat(pid)[2:]) / TICKS


def command_line(pid: int) -> list[str]:
    """Return a process's command line, nothing once it is gone."""
    try:
        content = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return os.fsdecode(content).rstrip("\0").split("\0")


def _cgroup_directory() -> Path | None:
    """Return this process's directory in the cgroup v2 hierarchy, None without one."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    match = re.search(r"^0::(.*)$", Path("/proc/self/cgroup").read_text(), re.M)
    for _, mount_point, file_system, *_rest in mounts:
        if file_system == "cgroup2" and match and os.access(mount_point, os.W_OK):
            return Path(mount_point + match[1].rstrip("/"))
    return None


def _stat(pid: int) -> list[int]:
    """Return CPU ticks: user, system, and those of children that are gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [int(each) for each in stat[11:15]]


def _is_traced(postfix: PrivatePostfix, tracer: int) -> bool:
    return all(
        f"TracerPid:\t{tracer}\n" in _status(pid) or not _status(pid)
        for pid in processes(postfix)
    )


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def _poll_memory(
    postfix: PrivatePostfix, peaks: dict[str, int], stop: threading.Event
) -> None:
    programs = {
        str(postfix.program_directory / program): program for program in PROGRAMS
    }
    is_over = False
    while not is_over:
        is_over = stop.wait(POLL_INTERVAL)  # a last look: workers stay
        for pid in processes(postfix):
            program = programs.get(_program(pid))
            match = HIGH_WATER.search(_status(pid)) if program else None
            if program and match:
                peaks[program] = max(peaks.get(program, 0), int(match[1]))


def _program(pid: int) -> str:
    """Return the script that a Python process runs."""
    scripts = [each for each in command_line(pid)[1:3] if each.startswith("/")]
    return scripts[0] if scripts else ""
