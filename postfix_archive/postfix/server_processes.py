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

from postfix_archive.postfix import archive_services, postfix_command

CLIENT_PROGRAMS = ("smtpd", "qmqpd")
# Seconds to wait for clients. Most connections are over by then, and one that a content
# filter keeps open can last for hours.
CONNECTION_TIMEOUT = 30.0
Processes = frozenset[tuple[int, str]]  # process id, start time in clock ticks


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
        left = frozenset(each for each in processes if _stat(each[0])[2] == each[1])
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


def _children(master: int) -> Iterator[tuple[int, str]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            name, parent, start = _stat(int(entry.name))
            if parent == str(master) and name in CLIENT_PROGRAMS:
                yield int(entry.name), start


def _service_name(pid: int) -> str:
    """Return the service of a process: the value of -n, which master(8) passes."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")
    except OSError:
        return ""
    return words[words.index("-n") + 1] if "-n" in words[:-1] else words[0]


def _stat(pid: int) -> tuple[str, str, str]:
    """Return name, parent's id and start time of a process; "" if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return "", "", ""
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()  # from field 3, the state, on
    return ("", "", "") if fields[0] in "ZX" else (name, fields[1], fields[19])
