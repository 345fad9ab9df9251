"""Tells whether the end of file on stdin is the end of the message.

Used by intake/pipe. pipe(8) closes stdin after the last byte; the kernel closes it also
when pipe(8) is killed, when Postfix stops, and after any part of the message. Nothing
in the data tells these apart. Two facts do:

* pipe(8) still runs and is our parent. A process that dies is marked as exiting
  (PF_EXITING in /proc/PID/stat) before its files are closed, and its children get
  another parent after that. So a parent that is not exiting after the end of file has
  closed stdin itself.
* As many bytes were read as the queue file has (``${size}``), which pipe(8) does not
  deliver in full if the file is damaged. Milters that remove headers or replace the
  body make the message smaller than ${size}: a difference counts only where no Milter
  is configured.

Raises MessageIncomplete; then nothing is reinjected or stored, and Postfix retries.
"""

from __future__ import annotations

import posix as os
import time

from postfix_archive.errors import MessageIncomplete
from postfix_archive.message import header
from postfix_archive.postfix import process_stat, queue_file_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.system.spool import Spool

INIT = 1  # the parent of processes whose parent has ended
# Seconds for a parent whose state cannot be read (/proc with hidepid): a process that
# dies has no children any more soon after its files are closed.
HIDDEN_PARENT_WAIT = 0.1
PARENT_DIED = "pipe(8) has died, so the message may be cut short; Postfix will retry"


def require_complete(message: Spool, size: bytes, config_directory: str) -> None:
    """Return if stdin ended because the message did. Raises MessageIncomplete.

    size is pipe(8)'s ``${size}``, empty if master.cf does not pass it. A caller other
    than pipe(8) must give the exact size.
    """
    if not message.size:
        raise MessageIncomplete("stdin is empty; Postfix will retry")
    is_pipe = _is_parent_pipe()
    if is_pipe and not size:
        return
    if not size.isdigit():
        raise MessageIncomplete(
            f"--size {size[:20].decode('utf-8', 'replace')!r} is not a number; compare"
            " the argv= of archive-stamp with master.cf.d"
        )
    expected = int(size)
    reserve = _milter_reserve(message) if is_pipe else 0
    # Usually enough: a line takes no less in the queue file than in canonical form.
    if is_pipe and expected <= message.size + reserve:
        return
    smallest, largest = queue_file_size.content_size(message.chunks())
    largest += reserve
    if expected <= largest and (is_pipe or expected >= smallest):
        return
    if is_pipe and _has_milters(config_directory):
        return
    raise MessageIncomplete(
        f"message cut short: {expected} bytes in the queue file, at most {largest} on"
        " stdin; Postfix will retry"
    )


def _milter_reserve(message: Spool) -> int:
    head = message.head()
    return queue_file_size.milter_reserve(head[: max(0, header.body_start(head))])


def _is_parent_pipe() -> bool:
    """Return whether the parent is pipe(8). Raises MessageIncomplete if it has died."""
    parent = os.getppid()
    if parent <= INIT:
        raise MessageIncomplete(PARENT_DIED)
    try:
        stat = process_stat.read(parent)
    except OSError:
        return _is_alive_after_wait(parent)
    if stat.is_exiting or os.getppid() != parent:
        raise MessageIncomplete(PARENT_DIED)
    return stat.name == b"pipe"


def _is_alive_after_wait(parent: int) -> bool:
    """Return True if the parent runs. Raises MessageIncomplete if it has died."""
    time.sleep(HIDDEN_PARENT_WAIT)
    if os.getppid() != parent:
        raise MessageIncomplete(PARENT_DIED)
    return True


def _has_milters(config_directory: str) -> bool:
    """Return whether main.cf or a service of master.cf names a Milter."""
    # Rarely needed.
    from postfix_archive.postfix import header_rewriting, postfix_command

    configuration = postfix_command.read_configuration(config_directory)
    services = (None, *configuration.services)
    return any(
        configuration.value(name, service)
        for names in header_rewriting.MILTERS.values()
        for name in names
        for service in services
    )
