"""Runs a function in a child process, and waits for it no longer than a timeout.

Used by stamp_filter/write_through. A system call on a disk that hangs cannot be
interrupted, and its process not even killed; so mail must not wait for that process. A
child that is late keeps running and may still succeed, so the function must be safe to
run twice. The number of children of one user is limited, hanging ones included: each
binds one of PROCESS_LIMIT names in the abstract socket namespace (unix(7)), which needs
no disk, and which the kernel frees when the child ends.
"""

from __future__ import annotations

import posix as os
from _socket import AF_UNIX, SOCK_DGRAM, socket, socketpair
from errno import EADDRINUSE

from postfix_archive.errors import WriteThroughFailed, WriteThroughTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SUCCESS, FAILURE = b"+", b"-"
LENGTH_SIZE = 8  # bytes of the length before each message, big-endian
RECEIVE_SIZE = 1 << 16
DESCRIPTOR_LIMIT = 1 << 16  # descriptors: more than a transport has open
# Children of one user: more than a usual host has transport processes at a time (10 in
# pipe mode, 20 workers an archive). Each child has about 10 MB of its own.
PROCESS_LIMIT = 64
CHILD_PIDS: list[int] = []  # process ids of children that are not reaped yet


class ChildProcess:
    """Calls a function in a child process, which is forked at the first call.

    The child ends with its parent. After a timeout it is abandoned, and the next call
    forks another.
    """

    __slots__ = ("_connection", "_function")

    def __init__(self, function: Callable[[bytes], str]) -> None:
        self._function = function
        self._connection: socket | None = None

    def call(self, payload: bytes, timeout: int) -> str:
        """Call the function with payload; return its result.

        Raises WriteThroughFailed, with the reason, if the call fails, and
        WriteThroughTimeout if it takes longer than timeout seconds.
        """
        try:
            connection, self._connection = (
                self._connection or _fork_child(self._function),
                None,
            )
            connection.settimeout(timeout)
            _send(connection, payload)
            reply = _receive(connection)
        except TimeoutError:
            raise WriteThroughTimeout(f"not done within {timeout} s") from None
        except OSError as error:
            raise WriteThroughFailed(f"child process failed: {error}") from error
        if not reply:
            raise WriteThroughFailed("child process ended without a result")
        self._connection = connection
        result = reply[1:].decode("utf-8", "replace")
        if not reply.startswith(SUCCESS):
            raise WriteThroughFailed(result)
        return result


def _fork_child(function: Callable[[bytes], str]) -> socket:
    """Fork; return the socket that is connected to the child."""
    _reap_children()
    name_socket = _bind_free_name()
    try:
        parent_socket, child_socket = socketpair()
        pid = os.fork()
        if not pid:
            _serve(function, child_socket, name_socket)
        CHILD_PIDS.append(pid)
        child_socket.close()
        return parent_socket
    finally:
        name_socket.close()


def _reap_children() -> None:
    """Reap the children that have ended, without waiting.

    SIGCHLD is not set to SIG_IGN: that would lose the exit status of every other child
    of the program.
    """
    for pid in CHILD_PIDS.copy():
        try:
            reaped, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            reaped = pid
        if reaped:
            CHILD_PIDS.remove(pid)


def _bind_free_name() -> socket:
    """Return a socket bound to a free name; the child holds it until it ends."""
    name_socket = socket(AF_UNIX, SOCK_DGRAM)
    for number in range(os.getpid(), os.getpid() + PROCESS_LIMIT):
        try:
            name_socket.bind(
                b"\0postfix-archive.%d.%d" % (os.geteuid(), number % PROCESS_LIMIT)
            )
            return name_socket
        except OSError as error:
            if error.errno != EADDRINUSE:
                return name_socket  # a system without the abstract namespace: no limit
    name_socket.close()
    raise WriteThroughFailed(f"{PROCESS_LIMIT} processes wait for the store")


def _serve(
    function: Callable[[bytes], str], connection: socket, name_socket: socket
) -> None:
    """Serve calls until the parent has closed its socket; never returns.

    Closes all inherited descriptors first, since the client and Postfix wait for theirs
    to be closed.
    """
    try:
        _close_descriptors(connection.fileno(), name_socket.fileno())
        while payload := _receive(connection):
            try:
                reply = SUCCESS + function(payload).encode("utf-8", "replace")
            except Exception as error:
                reply = FAILURE + f"{type(error).__name__}: {error}".encode()
            _send(connection, reply)
    finally:
        os._exit(0)


def _close_descriptors(*kept_descriptors: int) -> None:
    """Close all descriptors but these; connect the first three to /dev/null."""
    dev_null = os.open("/dev/null", os.O_RDWR)
    for descriptor in range(3):
        os.dup2(dev_null, descriptor)
    start = 3
    for descriptor in sorted(kept_descriptors):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, DESCRIPTOR_LIMIT)


def _send(connection: socket, content: bytes) -> None:
    connection.sendall(len(content).to_bytes(LENGTH_SIZE, "big") + content)


def _receive(connection: socket) -> bytes:
    """Return one message from the peer, b"" if the peer has closed its socket."""
    length = _receive_bytes(connection, LENGTH_SIZE)
    return _receive_bytes(connection, int.from_bytes(length, "big"))


def _receive_bytes(connection: socket, remaining: int) -> bytes:
    chunks = []
    while remaining:
        chunk = connection.recv(min(remaining, RECEIVE_SIZE))
        if not chunk:
            return b""
        chunks.append(chunk)
        remaining -= len(chunk)
    return b"".join(chunks)
