#!/usr/bin/python3 -IS
# mypy: ignore-errors
"""A launcher whose pipe(8) is killed after it has read a number of blocks.

The launcher of tests alone. POSTFIX_ARCHIVE_FAULTS names a directory with a socket
"killer": the first run of each queue file takes the next number, reads so many blocks
of its message and tells the killer its own process id and that of pipe(8).
"""

import _socket
import os
import posix
import sys

BLOCK = 4096  # bytes: pipe(8) writes as many at once
STDIN = 0
program, _, name = os.path.realpath(__file__).rpartition("/")
directory = os.environ["POSTFIX_ARCHIVE_FAULTS"]
queue_id = sys.argv[sys.argv.index("--queue-id") + 1]
read = posix.read


def create(path):
    """Create a file; return False if it exists."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    return True


def next_number():
    """Return after how many blocks to have pipe(8) killed, 0 for never."""
    if not os.path.exists(f"{directory}/armed-{name}"):
        return 0
    if not create(f"{directory}/{name}-{queue_id}"):
        return 0
    number = 1
    while not create(f"{directory}/{name}.{number}"):
        number += 1
    return number


class Reader:
    """Reads stdin block by block."""

    def __init__(self):
        self.count = 0
        self.wanted = next_number()

    def read(self, descriptor, size):
        """See read(2)."""
        if descriptor != STDIN:
            return read(descriptor, size)
        if self.wanted and self.count == self.wanted:
            self.wanted = 0
            killer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            killer.connect(f"{directory}/killer")
            killer.sendall(f"{name} {queue_id} {os.getppid()} {os.getpid()}\n".encode())
            killer.recv(1)  # pipe(8) is stopped
        self.count += 1
        return read(descriptor, BLOCK)


posix.read = os.read = Reader().read
sys.path[:0] = [program]
from postfix_archive.intake import pipe  # noqa: E402

handler = pipe.filter_message if name == "archive-stamp" else pipe.archive_capsule
sys.exit(pipe.main(handler, [os.fsencode(each) for each in sys.argv[1:]]))
