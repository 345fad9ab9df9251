#!/usr/bin/python3 -IS
# mypy: ignore-errors
"""A door that dies: kill -9 before its N-th step, once for each queue id.

The launcher of tests alone. POSTFIX_ARCHIVE_FAULTS names a folder; the first run of
each queue file takes the next number from there and kills itself just before that step.
Steps are the system calls of the door's own work: files, folders, locks, sockets, the
process that puts copies into the store, and its end. That process is "aside", with
steps of its own. Who is to die is armed by a file armed-NAME in the folder.
"""

import _socket
import fcntl
import marshal
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
ANSWERS = 1  # the descriptor on which a worker speaks with Postfix
FLAGS = os.O_CREAT | os.O_WRONLY
os_open, os_write, os_close = os.open, os.write, os.close
os_unlink, os_fork = os.unlink, os.fork


class Fault:
    """Counts the steps of one message; dies before the wanted one, 0 for never."""

    def __init__(self, folder):
        self.folder = folder
        self.is_aside = False
        self.rest()

    def rest(self):
        """Count nothing: what is done is for no message."""
        self.queue_id = ""
        self.wanted = 0

    def begin(self, door, queue_id):
        """Count from here on, for one message."""
        self.place = f"{self.folder}/{door}"
        self.queue_id = queue_id
        self.count = self.dots = self.acknowledged = 0
        armed = os.path.exists(f"{self.folder}/armed-{door}") and self._is_first()
        self.wanted = self._number() if armed else 0
        self.step("begin")

    def step(self, name):
        """Die here, if it is time."""
        if not self.queue_id:
            return
        self.count += 1
        if self.count == self.wanted:
            line = (
                f"{self.queue_id} {self.count} {name} {self.dots} {self.acknowledged}\n"
            )
            log = os_open(f"{self.place}.killed", FLAGS | os.O_APPEND, 0o666)
            os_write(log, line.encode())
            os.kill(os.getpid(), 9)

    def end(self, name):
        """Take the last step of a message.

        Give a number back that was too high: answers come in more reads or fewer.
        """
        self.step(name)
        if self.queue_id and self.wanted > self.count:
            os_unlink(f"{self.place}.{self.wanted}")
        self.rest()

    def _is_first(self):
        return self._made(f"{self.place}-{self.queue_id}")

    def _number(self):
        number = 1
        while not self._made(f"{self.place}.{number}"):
            number += 1
        return number

    def _made(self, path):
        try:
            os_close(os_open(path, FLAGS | os.O_EXCL, 0o666))
        except FileExistsError:
            return False
        return True


folder, _, name = os.path.realpath(__file__).rpartition("/")
fault = Fault(os.environ["POSTFIX_ARCHIVE_FAULTS"])


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
        fault.dots += bytes(content) == b".\r\n" if fault.queue_id else 0
        return super().sendall(content)

    def recv(self, *words):
        """See socket(2)."""
        if fault.is_aside and self.family == _socket.AF_UNIX:
            fault.end("recv")  # of the next message, or of the news that none comes
        fault.step("recv")
        got = super().recv(*words)
        fault.acknowledged += b"queued as" in got if fault.queue_id else 0
        return got


def fork():
    """See fork(2); the child counts for itself."""
    fault.step("fork")
    child = os_fork()
    if not child:
        fault.is_aside = True
        fault.rest()
    return child


def socketpair():
    """See socketpair(2)."""
    return [
        Socket(each.family, each.type, each.proto, each.detach())
        for each in real_socketpair()
    ]


def answering(write):
    """Return a write after which a worker has done with a message."""

    def written(descriptor, content):
        done = write(descriptor, content)
        if descriptor == ANSWERS and name == "archive-lmtp" and not fault.is_aside:
            fault.end("answered")
        return done

    return written


for each in STEPS:
    stepped = stepping(each, getattr(posix, each))
    setattr(os, each, stepped)
    setattr(posix, each, stepped)
posix.write = os.write = answering(posix.write)
posix.fork = os.fork = fork
fcntl.flock = stepping("flock", fcntl.flock)
fcntl.lockf = stepping("lockf", fcntl.lockf)
real_socketpair = _socket.socketpair
_socket.socket, _socket.socketpair = Socket, socketpair
sys.path[:0] = [folder]
from postfix_archive.intake import pipe  # noqa: E402
from postfix_archive.message import capsule  # noqa: E402
from postfix_archive.stamp_filter import write_through  # noqa: E402

kept = write_through._archive_in_child
write_through.SLOW_STORE_PAUSE = 0  # the next message is to die too


def dying(told, settings, keys):
    """Put a copy into the store, aside, and die over it."""
    sealed = capsule.from_fields(marshal.loads(told)[1]).envelope
    fault.begin("aside", sealed.queue_id.decode())
    return kept(told, settings, keys)


write_through._archive_in_child = dying
words = [os.fsencode(each) for each in sys.argv[1:]]
if name == "archive-lmtp":
    from postfix_archive.intake import lmtp_worker
    from postfix_archive.stamp_filter import capture

    stamping = capture.filter_message

    def begun(run):
        """Begin to count when a message is whole."""
        fault.begin(name, run.macros[b"queue-id"].decode())
        return stamping(run)

    capture.filter_message = begun
    sys.exit(lmtp_worker.main(words))
fault.begin(name, sys.argv[sys.argv.index("--queue-id") + 1])
if name == "archive-stamp":
    from postfix_archive.stamp_filter.capture import filter_message as process
else:
    from postfix_archive.intake.pipe import archive_capsule as process
code = pipe.main(process, words)
fault.end("exit")
sys.exit(code)
