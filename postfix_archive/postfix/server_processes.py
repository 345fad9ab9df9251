"""Server processes that still have the configuration of before a reload.

Used by install, uninstall and bypass. postfix reload starts new processes, but an
smtpd(8) that has a client serves it to the end with the old parameters, and so with the
old content_filter (master(8)). Reads /proc, as proc_pid_stat(5) describes it; finds
nothing where that is absent. Raises PostfixCommandFailed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from postfix_archive.postfix import archive_services, postfix_command, process_stat
from postfix_archive.postfix.process_stat import ProcessStat

CLIENT_PROGRAMS = (b"smtpd", b"qmqpd")
# Seconds to wait for clients. Most connections are over by then, and one that a content
# filter keeps open can last for hours.
CONNECTION_TIMEOUT = 30.0
Processes = frozenset[tuple[int, int]]  # process id, start time in clock ticks


def with_clients(directory: str) -> Processes:
    """Return the smtpd(8) and qmqpd(8) processes of this instance, without ours.

    Workers keep connections to the reinjection port, which need not end.
    """
    config = postfix_command.read_configuration(directory)
    queue_directory = config.value("queue_directory")
    own_services = {e.name for e in config.services if archive_services.is_ours(e)}
    try:
        master = int(Path(queue_directory, "pid", "master.pid").read_text())
    except (OSError, ValueError):
        return frozenset()
    return frozenset(
        (pid, start)
        for pid, start in _children(master)
        if _service_name(pid) not in own_services
    )


def wait_for(processes: Processes, timeout: float = CONNECTION_TIMEOUT) -> Processes:
    """Wait until these processes have ended; return those that have not."""
    deadline = time.monotonic() + timeout
    while True:
        left = processes & {(pid, _start(pid)) for pid, _ in processes}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def reload(directory: str) -> Processes:
    """Reload Postfix; return the processes that keep the old configuration.

    Waits up to CONNECTION_TIMEOUT for them.
    """
    processes = with_clients(directory)
    postfix_command.reload(directory)
    return wait_for(processes)


def describe(processes: Processes) -> str:
    """Return the text for processes that are left, with their ids."""
    ids = ", ".join(str(pid) for pid, _ in sorted(processes))
    return f"SMTP connections from before (process ids {ids})"


def _children(master: int) -> Iterator[tuple[int, int]]:
    for pid in (int(each.name) for each in os.scandir("/proc") if each.name.isdigit()):
        stat = _stat(pid)
        if stat and stat.parent == master and stat.name in CLIENT_PROGRAMS:
            yield pid, stat.start


def _service_name(pid: int) -> str:
    """Return the service of a process: the value of -n, which master(8) passes."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")
    except OSError:
        return ""
    return words[words.index("-n") + 1] if "-n" in words[:-1] else words[0]


def _start(pid: int) -> int:
    """Return the start time of a process; 0 if it has ended."""
    stat = _stat(pid)
    return stat.start if stat else 0


def _stat(pid: int) -> ProcessStat | None:
    """Return what is known of a process, None if it has ended."""
    try:
        stat = process_stat.read(pid)
    except OSError:
        return None
    return None if stat.has_ended else stat
