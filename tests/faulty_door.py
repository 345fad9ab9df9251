#!/usr/bin/python3 -IS
# mypy: ignore-errors
"""A door that dies: kill -9 before its N-th step, once for each queue id.

The launcher of tests alone. POSTFIX_ARCHIVE_FAULTS names a folder; the first run of
each queue file takes the next number from there and kills itself just before that step.
Steps are the system calls of the door's own work: files, folders, locks, sockets, and
its end.
"""

import _socket
import fcntl
import os
import posix
import sys

STEPS = (
    "open",
    "write",
    "pwrite",
    "fsync",
    "link",
    "unlink",
    "rename",
    "mkdir",
    "chmod",
    "ftruncate",
    "close",
)


class Fault:
    """Counts the steps of one run; dies before the wanted one, 0 for never."""

    def __init__(self, door, queue_id, folder):
        self.place = f"{folder}/{door}"
        self.queue_id = queue_id
        self.count = self.dots = self.acknowledged = 0
        armed = os.path.exists(f"{folder}/armed") and self._is_first()
        self.wanted = self._number() if armed else 0

    def step(self, name):
        """Die here, if it is time."""
        self.count += 1
        if self.count == self.wanted:
            line = (
                f"{self.queue_id} {self.count} {name} {self.dots} {self.acknowledged}\n"
            )
            log = os_open(f"{self.place}.killed", FLAGS | os.O_APPEND, 0o666)
            os_write(log, line.encode())
            os.kill(os.getpid(), 9)

    def survived(self):
        """Give a number back that was too high: answers come in more reads or fewer."""
        if self.wanted > self.count:
            os_unlink(f"{self.place}.{self.wanted}")

    def _is_first(self):
        return self._made(f"{self.place}-{self.queue_id}")

    def _number(self):
        number = 1
        while not self._made(f"{self.place}.{number}"):
            number += 1
        return number

    def _made(self, path):
        try:
            os.close(os_open(path, FLAGS | os.O_EXCL, 0o666))
        except FileExistsError:
            return False
        return True


FLAGS = os.O_CREAT | os.O_WRONLY
os_open, os_write, os_unlink = os.open, os.write, os.unlink
folder, _, name = os.path.realpath(__file__).rpartition("/")
fault = Fault(
    name,
    sys.argv[sys.argv.index("--queue-id") + 1],
    os.environ["POSTFIX_ARCHIVE_FAULTS"],
)


def stepping(name, call):
    """Return the call with a step before it."""

    def stepped(*words, **named):
        fault.step(name)
        return call(*words, **named)

    return stepped


class Socket(_socket.socket):
    """A socket whose every use is a step."""

    def connect(self, *words):
        """See socket(2)."""
        fault.step("connect")
        return super().connect(*words)

    def sendall(self, content):
        """See socket(2)."""
        fault.step("sendall")
        fault.dots += bytes(content) == b".\r\n"
        return super().sendall(content)

    def recv(self, *words):
        """See socket(2)."""
        fault.step("recv")
        got = super().recv(*words)
        fault.acknowledged += b"queued as" in got
        return got


for each in STEPS:
    stepped = stepping(each, getattr(posix, each))
    setattr(os, each, stepped)
    setattr(posix, each, stepped)
fcntl.flock = stepping("flock", fcntl.flock)
_socket.socket = Socket
sys.path[:0] = [folder]
from postfix_archive.front import archive_transport, pipe, stamp_filter  # noqa: E402

door = stamp_filter.door if name == "archive-stamp" else archive_transport.door
code = pipe.main(door, [os.fsencode(each) for each in sys.argv[1:]])
fault.step("exit")
fault.survived()
sys.exit(code)
