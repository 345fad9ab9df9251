#!/usr/bin/python3 -IS
# mypy: ignore-errors
"""A transport that dies: kill -9 before its N-th step, once for each queue id.

The launcher of tests alone. POSTFIX_ARCHIVE_FAULTS names a directory; the first run of
each queue file takes the next number from there and kills itself just before that step.
Steps are the system calls of the transport's own work: files, directories, locks,
sockets, the process that puts copies into the store, and its end. That process is
"aside", with steps of its own. Who is to die is armed by a file armed-NAME in the
directory.
"""

import _socket
import fcntl
import marshal
import os
import posix
import sys

# Not mkdir: the directory of a day is there, and a worker asks that once.
STEPS = (
    "open",
    "write",
    "pwrite",
    "fsync",
    "link",
    "unlink",
    "rename",
    "chmod",
    "ftruncate",
    "close",
)
REPLY_DESCRIPTOR = 1  # the descriptor on which a worker speaks with Postfix
FLAGS = os.O_CREAT | os.O_WRONLY
os_open, os_write, os_close = os.open, os.write, os.close
os_unlink, os_fork = os.unlink, os.fork


class Fault:
    """Counts the steps of one message; dies before the wanted one, 0 for never."""

    def __init__(self, directory):
        self.directory = directory
        self.is_aside = False
        self.reset()

    def reset(self):
        """Count nothing: what is done is for no message."""
        self.queue_id = ""
        self.kill_step = 0

    def begin(self, program, queue_id):
        """Count from here on, for one message."""
        self.path_prefix = f"{self.directory}/{program}"
        self.queue_id = queue_id
        self.step_count = self.end_of_data_count = self.acknowledged_count = 0
        is_armed = (
            os.path.exists(f"{self.directory}/armed-{program}") and self._is_first()
        )
        self.kill_step = self._number() if is_armed else 0
        self.step("begin")

    def step(self, name):
        """Die here, if it is time."""
        if not self.queue_id:
            return
        self.step_count += 1
        if self.step_count == self.kill_step:
            counts = f"{self.end_of_data_count} {self.acknowledged_count}"
            line = f"{self.queue_id} {self.step_count} {name} {counts}\n"
            log = os_open(f"{self.path_prefix}.killed", FLAGS | os.O_APPEND, 0o666)
            os_write(log, line.encode())
            os.kill(os.getpid(), 9)

    def end(self, name):
        """Take the last step of a message.

        Give a number back that was too high: answers come in more reads or fewer.
        """
        self.step(name)
        if self.queue_id and self.kill_step > self.step_count:
            os_unlink(f"{self.path_prefix}.{self.kill_step}")
        self.reset()

    def _is_first(self):
        return self._create(f"{self.path_prefix}-{self.queue_id}")

    def _number(self):
        number = 1
        while not self._create(f"{self.path_prefix}.{number}"):
            number += 1
        return number

    def _create(self, path):
        try:
            os_close(os_open(path, FLAGS | os.O_EXCL, 0o666))
        except FileExistsError:
            return False
        return True


directory, _, program = os.path.realpath(__file__).rpartition("/")
fault = Fault(os.environ["POSTFIX_ARCHIVE_FAULTS"])


def counted(name, call):
    """Return the call with a step before it."""

    def counted_call(*arguments, **keywords):
        fault.step(name)
        return call(*arguments, **keywords)

    return counted_call


class Socket(_socket.socket):
    """A socket whose every use is a step."""

    def connect(self, *arguments):
        """See socket(2)."""
        fault.step("connect")
        return super().connect(*arguments)

    def sendall(self, content):
        """See socket(2)."""
        fault.step("sendall")
        fault.end_of_data_count += bytes(content) == b".\r\n" if fault.queue_id else 0
        return super().sendall(content)

    def recv(self, *arguments):
        """See socket(2)."""
        if fault.is_aside and self.family == _socket.AF_UNIX:
            fault.end("recv")  # of the next message, or of the news that none comes
        fault.step("recv")
        data = super().recv(*arguments)
        fault.acknowledged_count += b"queued as" in data if fault.queue_id else 0
        return data


def fork():
    """See fork(2); the child counts for itself."""
    fault.step("fork")
    child = os_fork()
    if not child:
        fault.is_aside = True
        fault.reset()
    return child


def socketpair():
    """See socketpair(2)."""
    return [
        Socket(end.family, end.type, end.proto, end.detach())
        for end in real_socketpair()
    ]


def count_replies(write):
    """Return a write after which a worker has done with a message."""

    def counted_write(descriptor, content):
        result = write(descriptor, content)
        if (
            descriptor == REPLY_DESCRIPTOR
            and program == "archive-lmtp"
            and not fault.is_aside
        ):
            fault.end("answered")
        return result

    return counted_write


for step in STEPS:
    stepped = counted(step, getattr(posix, step))
    setattr(os, step, stepped)
    setattr(posix, step, stepped)
posix.write = os.write = count_replies(posix.write)
posix.fork = os.fork = fork
fcntl.flock = counted("flock", fcntl.flock)
fcntl.lockf = counted("lockf", fcntl.lockf)
real_socketpair = _socket.socketpair
_socket.socket, _socket.socketpair = Socket, socketpair
sys.path[:0] = [directory]
from postfix_archive.intake import pipe  # noqa: E402
from postfix_archive.message import capsule  # noqa: E402
from postfix_archive.stamp_filter import write_through  # noqa: E402

archive_in_child = write_through._archive_in_child
write_through.SLOW_STORE_PAUSE = 0  # the next message is to die too


def counted_archive(request, settings, keys):
    """Put a copy into the store, aside, and die over it."""
    envelope = capsule.from_fields(marshal.loads(request)[1]).envelope
    fault.begin("aside", envelope.queue_id.decode())
    return archive_in_child(request, settings, keys)


write_through._archive_in_child = counted_archive
arguments = [os.fsencode(each) for each in sys.argv[1:]]
if program == "archive-lmtp":
    from postfix_archive.intake import lmtp_worker
    from postfix_archive.stamp_filter import capture, native_capture

    def counted_handler(handler):
        """Return a handler that begins to count when a message is whole."""

        def counted(run):
            fault.begin(program, run.macros[b"queue-id"].decode())
            return handler(run)

        return counted

    capture.filter_message = counted_handler(capture.filter_message)
    native_capture.archive_message = counted_handler(native_capture.archive_message)
    sys.exit(lmtp_worker.main(arguments))
fault.begin(program, sys.argv[sys.argv.index("--queue-id") + 1])
if program == "archive-stamp":
    from postfix_archive.stamp_filter.capture import filter_message as process
elif program == "archive-capture":
    from postfix_archive.stamp_filter.native_capture import archive_message as process
else:
    from postfix_archive.intake.pipe import archive_capsule as process
code = pipe.main(process, arguments)
fault.end("exit")
sys.exit(code)
