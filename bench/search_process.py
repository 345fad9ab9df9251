"""Runs a command and measures time, CPU and peak memory, with its children."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import resource_usage
import search_fill
from private_postfix import descendants

QUICK_INTERVAL, INTERVAL = 0.002, 0.05  # seconds between two looks
QUICK_SECONDS = 3.0


class Usage(NamedTuple):
    """What a command used: seconds, CPU seconds of all and of its children, peak kB."""

    seconds: float
    cpu: float
    child_cpu: float
    memory: int
    child_memory: int


class Watched:
    """A process, and what has been seen of it and its children so far."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self._begin = time.monotonic()
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "TZ": "UTC", **(environment or {})},
            stdout=subprocess.DEVNULL,
        )
        self._command = command
        self._memory: dict[int, int] = {}
        self._child_cpu: dict[int, float] = {}

    def look(self) -> None:
        """Note memory and CPU as they are now."""
        pid = self.process.pid
        children = descendants(pid)
        for each in (pid, *children):
            match = resource_usage.HIGH_WATER.search(_status(each))
            if match:
                self._memory[each] = max(self._memory.get(each, 0), int(match[1]))
        for each in children:
            seconds = resource_usage.own_seconds(each)
            self._child_cpu[each] = max(self._child_cpu.get(each, 0.0), seconds)

    def wait(self) -> Usage:
        """Look until it ends; return what it used. Raises SystemExit if it failed."""
        while True:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                break
            self.look()
            age = time.monotonic() - self._begin
            time.sleep(QUICK_INTERVAL if age < QUICK_SECONDS else INTERVAL)
        seconds = time.monotonic() - self._begin
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode:
            raise SystemExit(f"{' '.join(self._command)}: {self.process.returncode}")
        memory = self._memory.pop(self.process.pid, 0)
        return Usage(
            seconds,
            usage.ru_utime + usage.ru_stime,
            sum(self._child_cpu.values()),
            memory,
            max(self._memory.values(), default=0),
        )


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Usage:
    """Run a command to its end, without its output."""
    return Watched(command, environment).wait()


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def configure(directory: Path, store: Path, index: Path) -> Path:
    """Make a configuration directory with these directories; return it."""
    directory.mkdir(exist_ok=True, parents=True)
    (directory / "archive.cf").write_text(
        f"archive_store_directory = {store}\narchive_index_directory = {index}\n"
    )
    return directory


def fill(store: Path, count: int) -> None:
    """Make a store up to so many messages."""
    command = [sys.executable, search_fill.__file__, str(store), str(count)]
    run(command, {"PYTHONPATH": os.pathsep.join(sys.path)})
