"""A process as the kernel describes it in /proc/PID/stat (proc_pid_stat(5)).

Used by intake/end_of_file, for every message in pipe mode, and by server_processes.
"""

from __future__ import annotations

import posix as os

SIZE = 4096  # bytes: more than any /proc/PID/stat
PF_EXITING = 0x4  # include/linux/sched.h
ENDED_STATES = (b"Z", b"X")  # zombie, dead
# Numbers of fields after the name, which may contain spaces and parentheses.
STATE, PARENT, FLAGS, START = (number - 3 for number in (3, 4, 9, 22))


class ProcessStat:
    """Name, parent's process id and start time (clock ticks) of a process.

    ``is_exiting``: it dies, and may have closed its files. ``has_ended``: it is dead.
    """

    __slots__ = ("has_ended", "is_exiting", "name", "parent", "start")

    def __init__(self, text: bytes) -> None:
        before, _, after = text.rpartition(b")")
        fields = after.split()
        self.name = before.partition(b"(")[2]
        self.has_ended = fields[STATE] in ENDED_STATES
        self.parent = int(fields[PARENT])
        self.is_exiting = bool(int(fields[FLAGS]) & PF_EXITING)
        self.start = int(fields[START])


def read(pid: int) -> ProcessStat:
    """Return what is known of a process. Raises OSError without it or without /proc."""
    descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return ProcessStat(os.read(descriptor, SIZE))
    finally:
        os.close(descriptor)
