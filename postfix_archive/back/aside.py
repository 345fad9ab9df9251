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

from postfix_archive.core.errors import NotAtOnce, TooLate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DONE, FAILED = b"+", b"-"
LENGTH = 8  # bytes of the length before each message, big-endian
BLOCK = 1 << 16
FILES = 1 << 16  # descriptors: more than a transport has open
# Children of one user: more than a usual host has transport processes at a time (10 in
# pipe mode, 20 workers an archive). Each child has about 10 MB of its own.
MOST = 64
BEGUN: list[int] = []  # process ids of children that are not reaped yet


class Mate:
    """Calls a function in a child process, which is forked at the first call.

    The child ends with its parent. After a timeout it is abandoned, and the next call
    forks another.
    """

    __slots__ = ("_peer", "_work")

    def __init__(self, work: Callable[[bytes], str]) -> None:
        self._work = work
        self._peer: socket | None = None

    def done(self, told: bytes, seconds: int) -> str:
        """Call the function with payload; return its result.

        Raises WriteThroughFailed, with the reason, if the call fails, and
        WriteThroughTimeout if it takes longer than timeout seconds.
        """
        try:
            peer, self._peer = self._peer or _begun(self._work), None
            peer.settimeout(seconds)
            _say(peer, told)
            said = _heard(peer)
        except TimeoutError:
            raise TooLate(f"not done within {seconds} s") from None
        except OSError as problem:
            raise NotAtOnce(f"child process failed: {problem}") from problem
        if not said:
            raise NotAtOnce("child process ended without a result")
        self._peer = peer
        text = said[1:].decode("utf-8", "replace")
        if not said.startswith(DONE):
            raise NotAtOnce(text)
        return text


def _begun(work: Callable[[bytes], str]) -> socket:
    """Fork; return the socket that is connected to the child."""
    _forget_ended()
    name = _named()
    try:
        mine, theirs = socketpair()
        process = os.fork()
        if not process:
            _serve(work, theirs, name)
        BEGUN.append(process)
        theirs.close()
        return mine
    finally:
        name.close()


def _forget_ended() -> None:
    """Reap the children that have ended, without waiting.

    SIGCHLD is not set to SIG_IGN: that would lose the exit status of every other child
    of the program.
    """
    for each in BEGUN.copy():
        try:
            ended, _ = os.waitpid(each, os.WNOHANG)
        except ChildProcessError:
            ended = each
        if ended:
            BEGUN.remove(each)


def _named() -> socket:
    """Return a socket bound to a free name; the child holds it until it ends."""
    name = socket(AF_UNIX, SOCK_DGRAM)
    for each in range(os.getpid(), os.getpid() + MOST):
        try:
            name.bind(b"\0postfix-archive.%d.%d" % (os.geteuid(), each % MOST))
            return name
        except OSError as problem:
            if problem.errno != EADDRINUSE:
                return name  # a system without the abstract namespace: no limit
    name.close()
    raise NotAtOnce(f"{MOST} processes wait for the store")


def _serve(work: Callable[[bytes], str], peer: socket, name: socket) -> None:
    """Serve calls until the parent has closed its socket; never returns.

    Closes all inherited descriptors first, since the client and Postfix wait for theirs
    to be closed.
    """
    try:
        _let_go(peer.fileno(), name.fileno())
        while told := _heard(peer):
            try:
                said = DONE + work(told).encode("utf-8", "replace")
            except Exception as problem:
                said = FAILED + f"{type(problem).__name__}: {problem}".encode()
            _say(peer, said)
    finally:
        os._exit(0)


def _let_go(*kept: int) -> None:
    """Close all descriptors but these; connect the first three to /dev/null."""
    nowhere = os.open("/dev/null", os.O_RDWR)
    for each in range(3):
        os.dup2(nowhere, each)
    begin = 3
    for each in sorted(kept):
        os.closerange(begin, each)
        begin = each + 1
    os.closerange(begin, FILES)


def _say(peer: socket, content: bytes) -> None:
    peer.sendall(len(content).to_bytes(LENGTH, "big") + content)


def _heard(peer: socket) -> bytes:
    """Return one message from the peer, b"" if the peer has closed its socket."""
    length = _bytes(peer, LENGTH)
    return _bytes(peer, int.from_bytes(length, "big"))


def _bytes(peer: socket, wanted: int) -> bytes:
    pieces = []
    while wanted:
        piece = peer.recv(min(wanted, BLOCK))
        if not piece:
            return b""
        pieces.append(piece)
        wanted -= len(piece)
    return b"".join(pieces)
