"""Kill a process between two steps: a test sees what is left at each of them."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

# Functions of the operating system that change something, or make it durable.
CHANGES = ("fchmod", "fsync", "link", "mkdir", "pwrite", "rename", "unlink", "write")


def is_killed_at(
    step: int, action: Callable[[], object], *, only_changes: bool = False
) -> bool:
    """Run an action in a process that is killed before its step-th call.

    Of SQLite or the operating system, with only_changes those in CHANGES. False if it
    came to its end before.
    """
    pid = os.fork()
    if not pid:
        try:
            _kill_before(step, only_changes)
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _kill_before(step: int, only_changes: bool) -> None:
    remaining = step

    def count(_: FrameType, event: str, function: Any) -> None:
        nonlocal remaining
        if event != "c_call":
            return
        if getattr(function, "__module__", None) == "posix":
            is_step = not only_changes or function.__name__ in CHANGES
        else:
            owner = getattr(function, "__self__", None)
            is_step = not only_changes and isinstance(owner, sqlite3.Connection)
        remaining -= is_step
        if is_step and not remaining:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
