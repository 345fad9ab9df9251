"""Work in a process of its own, so that nobody has to wait for it longer than agreed.

Used by front/through. A call on a disk that hangs cannot be broken off, and the process
that made it cannot even be killed; so that process must not be the one mail waits for.
What is late goes on by itself and may still end well: doing it twice must be harmless.
There are so many such processes of one user and no more, those that hang included. Each
has a name in Linux's abstract namespace (unix(7)), which the kernel frees with it and
for which no disk is asked.
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
LENGTH = 8  # bytes before what is said, most significant first
BLOCK = 1 << 16
FILES = 1 << 16  # descriptors: more than a door has open
# Processes of one user: more than doors work at once on the usual host (10 by pipe(8),
# 20 workers an archive). Each has about 10 MB of its own.
MOST = 64
BEGUN: list[int] = []  # process ids of which nobody has seen the end yet


class Mate:
    """A process that does one piece of work after the other, forked for the first.

    It ends with the process that it belongs to. One that is late is left to itself.
    """

    __slots__ = ("_peer", "_work")

    def __init__(self, work: Callable[[bytes], str]) -> None:
        self._work = work
        self._peer: socket | None = None

    def done(self, told: bytes, seconds: int) -> str:
        """Let it work on what it is told; return what the work returned.

        Raises NotAtOnce, with the reason, when the work failed, and TooLate when it
        took longer than seconds.
        """
        try:
            peer, self._peer = self._peer or _begun(self._work), None
            peer.settimeout(seconds)
            _say(peer, told)
            said = _heard(peer)
        except TimeoutError:
            raise TooLate(f"not done within {seconds} s") from None
        except OSError as problem:
            raise NotAtOnce(f"cannot be done aside: {problem}") from problem
        if not said:
            raise NotAtOnce("the process that was to do it has died")
        self._peer = peer
        text = said[1:].decode("utf-8", "replace")
        if not said.startswith(DONE):
            raise NotAtOnce(text)
        return text


def _begun(work: Callable[[bytes], str]) -> socket:
    """Fork; return the connection to the new process."""
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
    """Let the kernel forget the processes that have ended; wait for none.

    SIGCHLD stays as it is: ignored, it would take from the rest of the program the exit
    status of every process that it runs.
    """
    for each in BEGUN.copy():
        try:
            ended, _ = os.waitpid(each, os.WNOHANG)
        except ChildProcessError:
            ended = each
        if ended:
            BEGUN.remove(each)


def _named() -> socket:
    """Return one of the names that there are, to be held by the new process."""
    name = socket(AF_UNIX, SOCK_DGRAM)
    for each in range(os.getpid(), os.getpid() + MOST):
        try:
            name.bind(b"\0postfix-archive.%d.%d" % (os.geteuid(), each % MOST))
            return name
        except OSError as problem:
            if problem.errno != EADDRINUSE:
                return name  # a system without such names: there is no bound
    name.close()
    raise NotAtOnce(f"{MOST} processes wait for the store")


def _serve(work: Callable[[bytes], str], peer: socket, name: socket) -> None:
    """Do what is asked for until nobody asks any more; never returns.

    Holds on to nothing that others wait to see closed: not the client, not Postfix.
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
    """Close every descriptor but those; the first three lead nowhere."""
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
    """Return what the other side says, nothing if it is gone."""
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
