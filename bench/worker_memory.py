"""What a worker of the lmtp mode has in memory after many messages.

It is driven as lmtp(8) drives it, on one connection that never ends: lmtp(8) itself
takes a new one after lmtp_connection_reuse_time_limit (300 s).
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import load
import variants
from private_postfix import GROUP, TIMEOUT, USER, PrivatePostfix

NEXTHOP = "legal@example.com"
RECEIVED = (
    "Received: from client.example.org (client.example.org [192.0.2.7])\r\n"
    "\tby mail.example.com (Postfix) with ESMTP id {queue_id}\r\n"
    "\tfor <bob@example.net>; Sun, 22 Nov 2026 12:53:00 +0100 (CET)\r\n"
    "Message-Id: <{queue_id}@example.org>\r\n"
)
ENVELOPE = (
    "XFORWARD NAME=client.example.org ADDR=192.0.2.7 PORT=34567\r\n"
    "XFORWARD PROTO=ESMTP HELO=client.example.org IDENT={queue_id} SOURCE=REMOTE\r\n"
    "MAIL FROM:<alice@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n"
)
ARCHIVE_ENTRY = r"^archive unix .*\n(?:  .*\n)+"
DISCARD_ENTRY = "archive unix - - n - - discard\n"
MEMORY_FIGURES = {  # in kB
    "rss_kb": ("status", r"^VmRSS:\s+(\d+)"),
    "peak_kb": ("status", r"^VmHWM:\s+(\d+)"),
    "private_kb": ("smaps_rollup", r"^Private_Dirty:\s+(\d+)"),
}


class Worker:
    """A worker of an instance, and the connection to it."""

    def __init__(self, postfix: PrivatePostfix) -> None:
        self._connection, worker_end = socket.socketpair()
        self._connection.settimeout(TIMEOUT)
        self._process = subprocess.Popen(
            [f"{postfix.program_directory}/archive-lmtp", "--nexthop", NEXTHOP],
            stdin=worker_end.fileno(),
            stdout=worker_end.fileno(),
            env={"MAIL_CONFIG": str(postfix.etc), "PATH": "/usr/bin:/bin"},
            user=USER,
            group=GROUP,
            extra_groups=[],
            cwd="/",
        )
        worker_end.close()
        self._reader = self._connection.makefile("rb")
        self._connection.sendall(b"LHLO localhost\r\n")
        self._read_until(b"250 ")
        self._content = (
            load.make_message(load.SMALL_SIZE).replace(b"\n", b"\r\n") + b".\r\n"
        )

    def close(self) -> None:
        """Hang up, and wait until the worker has ended."""
        self._reader.close()
        self._connection.close()
        self._process.wait(TIMEOUT)

    def serve(self, number: int) -> None:
        """Have a message archived and handed back."""
        queue_id = f"4Z{number:010d}"
        self._connection.sendall(ENVELOPE.format(queue_id=queue_id).encode())
        self._read_until(b"354 ")
        received = RECEIVED.format(queue_id=queue_id).encode()
        self._connection.sendall(received + self._content)
        self._read_until(b"250 ")

    def memory(self) -> dict[str, int]:
        """Return what the worker has in memory, in kB."""
        directory = Path(f"/proc/{self._process.pid}")
        kilobytes = {}
        for name, (file_name, pattern) in MEMORY_FIGURES.items():
            line = re.search(pattern, (directory / file_name).read_text(), re.M)
            kilobytes[name] = int(line[1]) if line else 0
        return kilobytes

    def _read_until(self, reply: bytes) -> None:
        """Read up to a reply that begins so; none before it may be a refusal."""
        while not (line := self._reader.readline()).startswith(reply):
            if not line or line[:1] in b"45":
                raise SystemExit(f"the worker said: {os.fsdecode(line)}")


def memory(counts: list[int]) -> dict[str, dict[str, int]]:
    """Return what one worker has in memory after so many messages.

    Capsules go to discard(8): the worker's memory is what counts, and time.
    """
    with variants.build(variants.LMTP, edit_master=_without_transport) as postfix:
        worker = Worker(postfix)
        try:
            return _memory_after(worker, counts)
        finally:
            worker.close()


def _memory_after(worker: Worker, counts: list[int]) -> dict[str, dict[str, int]]:
    memory_by_count = {}
    for number in range(1, max(counts) + 1):
        worker.serve(number)
        if number in counts:
            memory_by_count[str(number)] = worker.memory()
    return memory_by_count


def _without_transport(master: str) -> str:
    edited, count = re.subn(ARCHIVE_ENTRY, DISCARD_ENTRY, master, flags=re.M)
    assert count == 1
    return edited
