"""Work in a process of its own, so that nobody has to wait for it longer than agreed.

Used by front/through. A call on a disk that hangs cannot be broken off, and the process
that made it cannot even be killed; so that process must not be the one mail waits for.
What is late goes on by itself and may still end well: doing it twice must be harmless.
"""

from __future__ import annotations

import posix as os
from _signal import SIG_IGN, SIGCHLD, signal
from _socket import socketpair

from postfix_archive.core.errors import NotAtOnce

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

DONE, FAILED = b"+", b"-"
LENGTH = 8  # bytes before what is said, most significant first
BLOCK = 1 << 16
FILES = 256  # descriptors: more than a door has open


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

        Raises NotAtOnce, with the reason, when the work failed or took longer than
        seconds, by the clock from the last byte that either side has taken.
        """
        try:
            peer, self._peer = self._peer or _begun(self._work), None
            peer.settimeout(seconds)
            _say(peer, told)
            said = _heard(peer)
        except TimeoutError:
            raise NotAtOnce(f"not done within {seconds} s") from None
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
    mine, theirs = socketpair()
    try:
        signal(SIGCHLD, SIG_IGN)  # the kernel forgets it when it has ended
        if not os.fork():
            _serve(work, theirs)
        return mine
    except OSError:
        mine.close()
        raise
    finally:
        theirs.close()


def _serve(work: Callable[[bytes], str], peer: socket) -> None:
    """Do what is asked for until nobody asks any more; never returns.

    Holds on to nothing that others wait to see closed: not the client, not Postfix.
    """
    try:
        _let_go(peer.fileno())
        while told := _heard(peer):
            try:
                said = DONE + work(told).encode("utf-8", "replace")
            except Exception as problem:
                said = FAILED + f"{type(problem).__name__}: {problem}".encode()
            _say(peer, said)
    finally:
        os._exit(0)


def _let_go(kept: int) -> None:
    """Close every descriptor but one; the first three lead nowhere."""
    nowhere = os.open("/dev/null", os.O_RDWR)
    for each in range(3):
        os.dup2(nowhere, each)
    os.closerange(3, kept)
    os.closerange(kept + 1, FILES)


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
