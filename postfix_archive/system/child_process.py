"""Runs a function in a child process, and waits for it no longer than a timeout.

Used by stamp_filter/write_through. A system call on a disk that hangs cannot be
interrupted, and its process not even killed; so mail must not wait for that process. A
child that is late keeps running and may still succeed, so the function must be safe to
run twice. The number of children of one user is limited, hanging ones included: each
locks one of PROCESS_LIMIT bytes of a file in archive_spool_directory, which the kernel
unlocks when the child ends. The child does it, since that disk may hang as well.
"""

from __future__ import annotations

import posix as os
from _socket import socket, socketpair
from fcntl import LOCK_EX, LOCK_NB, lockf

from postfix_archive.errors import WriteThroughFailed, WriteThroughTimeout
from postfix_archive.system import files, spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SUCCESS, FAILURE = b"+", b"-"
LENGTH_SIZE = 8  # bytes of the length before each message, big-endian
RECEIVE_SIZE = 1 << 16
DESCRIPTOR_LIMIT = 1 << 16  # descriptors: more than a transport has open
LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# Children of one user: more than a usual host has transport processes at a time (10 in
# pipe mode, 20 workers an archive). Each child has about 10 MB of its own.
PROCESS_LIMIT = 64
CHILD_PIDS: list[int] = []  # process ids of children that are not reaped yet


class ChildProcess:
    """Calls a function in a child process, which is forked at the first call.

    The child ends with its parent. After a timeout it is abandoned, and the next call
    forks another. directory is archive_spool_directory, for the file with the locks.
    """

    __slots__ = ("_connection", "_directory", "_function")

    def __init__(self, function: Callable[[bytes], str], directory: str) -> None:
        self._function = function
        self._directory = directory
        self._connection: socket | None = None

    def call(self, payload: bytes, timeout: int) -> str:
        """Call the function with payload; return its result.

        Raises WriteThroughFailed, with the reason, if the call fails, and
        WriteThroughTimeout if it takes longer than timeout seconds.
        """
        try:
            connection, self._connection = (
                self._connection or _fork_child(self._function, self._directory),
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


def _fork_child(function: Callable[[bytes], str], directory: str) -> socket:
    """Fork; return the socket that is connected to the child."""
    _reap_children()
    parent_socket, child_socket = socketpair()
    pid = os.fork()
    if not pid:
        _serve(function, child_socket, directory)
    CHILD_PIDS.append(pid)
    child_socket.close()
    return parent_socket


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


def _lock_byte(directory: str) -> int:
    """Lock a byte until this process ends; return the descriptor.

    Raises OSError and, if no byte is free, WriteThroughFailed.
    """
    name = f".postfix-archive-{os.geteuid()}.lock"
    path = spool.own_path(directory, name)
    descriptor = os.open(path, LOCK_FLAGS, files.DRAFT_MODE)
    for number in range(os.getpid(), os.getpid() + PROCESS_LIMIT):
        try:
            lockf(descriptor, LOCK_EX | LOCK_NB, 1, number % PROCESS_LIMIT)
            return descriptor
        except BlockingIOError:
            pass
    os.close(descriptor)
    raise WriteThroughFailed(f"{PROCESS_LIMIT} processes wait for the store")


def _serve(
    function: Callable[[bytes], str], connection: socket, directory: str
) -> None:
    """Serve calls until the parent has closed its socket; never returns.

    Closes all inherited descriptors first, since the client and Postfix wait for theirs
    to be closed.
    """
    lock = -1
    try:
        _close_descriptors(connection.fileno())
        while payload := _receive(connection):
            try:
                lock = _lock_byte(directory) if lock < 0 else lock
                reply = SUCCESS + function(payload).encode("utf-8", "replace")
            except WriteThroughFailed as error:
                reply = FAILURE + str(error).encode()
            except Exception as error:
                reply = FAILURE + f"{type(error).__name__}: {error}".encode()
            _send(connection, reply)
    finally:
        os._exit(0)


def _close_descriptors(kept_descriptor: int) -> None:
    """Close all descriptors but one; connect the first three to /dev/null."""
    dev_null = os.open("/dev/null", os.O_RDWR)
    for descriptor in range(3):
        os.dup2(dev_null, descriptor)
    os.closerange(3, kept_descriptor)
    os.closerange(kept_descriptor + 1, DESCRIPTOR_LIMIT)


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
