"""The child process of extraction_process: extracts one message after the other.

Standard input is a socket: some originals come together, before them a byte for the
mode, their number and the length of each. The content of each goes back as JSON and,
behind that, the text; before them are the length of both and that of the text. Gives up
what it does not need first: whoever takes it over by hostile content has no network, no
new privileges, no files to write and no other processes.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import sys
from typing import BinaryIO

from postfix_archive.search import extraction
from postfix_archive.search.content import MessageContent
from postfix_archive.search.extraction_limits import (
    LENGTH_SIZE,
    WITHOUT_LIBRARIES,
    Timer,
)

DESCRIPTOR_LIMIT = 64  # modules are imported when they are needed
PR_SET_NO_NEW_PRIVS = 38  # prctl(2)
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # unshare(2)
REPEAT_SECONDS = 1.0  # the timer's second signal, for code that caught the first


def main(cpu: float, killed_cpu: int, memory: int) -> None:
    """Serve the parent until it closes our standard input."""
    give_up_rights(memory)
    timer = Timer()
    signal.signal(signal.SIGPROF, timer.expire)
    gc.freeze()  # or each full collection looks at all modules: 5 % of the time
    requests = sys.stdin.buffer
    while mode := requests.read(1):
        count = _read_length(requests)
        lengths = [_read_length(requests) for _ in range(count)]
        # All of them, before the first reply: the parent reads none before that.
        for original in [requests.read(each) for each in lengths]:
            _renew_cpu_limit(killed_cpu)
            timer.is_late = False
            signal.setitimer(signal.ITIMER_PROF, cpu, REPEAT_SECONDS)
            content = extraction.extract(
                original, timer, without_libraries=mode == WITHOUT_LIBRARIES
            )
            _reply(content)


def _read_length(requests: BinaryIO) -> int:
    return int.from_bytes(requests.read(LENGTH_SIZE), "big")


def _reply(content: MessageContent) -> None:
    # The text is sent as it is: as JSON it would take three times as long.
    text = content.text.encode("utf-8", "replace")
    others = content._replace(text="")
    json_text = json.dumps(others, ensure_ascii=False, separators=(",", ":"))
    rest = json_text.encode("utf-8", "replace")
    lengths = (len(rest) + len(text), len(text))
    header = b"".join(each.to_bytes(LENGTH_SIZE, "big") for each in lengths)
    remaining = memoryview(b"".join((header, rest, text)))
    while remaining:
        remaining = remaining[os.write(0, remaining) :]


def _renew_cpu_limit(seconds: int) -> None:
    """Let the kernel kill us when we have used some more seconds of CPU time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime)
    hard_limit = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds + 1, hard_limit))


def give_up_rights(memory: int) -> None:
    """Leave this process nothing but its memory (bytes) and what it has open."""
    for kind, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, DESCRIPTOR_LIMIT),
        (resource.RLIMIT_NPROC, 0),
    ):
        _, hard_limit = resource.getrlimit(kind)
        if hard_limit == resource.RLIM_INFINITY or hard_limit >= limit:
            resource.setrlimit(kind, (limit, limit))
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Fails where the host allows no user namespaces; then there is a network.
    libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)
