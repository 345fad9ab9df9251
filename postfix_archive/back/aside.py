"""Work in a process of its own, so that nobody has to wait for it longer than agreed.

Used by front/through. A call on a disk that hangs cannot be broken off, and the process
that made it cannot even be killed; so that process must not be the one mail waits for.
What is late goes on by itself and may still end well: doing it twice must be harmless.
"""

from __future__ import annotations

import os
from _signal import SIG_IGN, SIGCHLD, signal
from _socket import socketpair

from postfix_archive.core.errors import NotAtOnce

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

DONE, FAILED = b"+", b"-"
FILES = 256  # descriptors: more than a door has open
BLOCK = 1 << 16


def done(work: Callable[[], str], seconds: int) -> str:
    """Let another process do the work; return what the work returned.

    Raises NotAtOnce, with the reason, when it failed or was not done within seconds.
    """
    mine, theirs = socketpair()
    try:
        signal(SIGCHLD, SIG_IGN)  # the kernel forgets it when it has ended
        if not os.fork():
            _apart(work, theirs)
        theirs.close()
        mine.settimeout(seconds)
        said = b""
        while piece := mine.recv(BLOCK):
            said += piece
    except TimeoutError:
        raise NotAtOnce(f"not done within {seconds} s") from None
    except OSError as problem:
        raise NotAtOnce(f"cannot be done aside: {problem}") from problem
    finally:
        mine.close()
        theirs.close()
    text = said[1:].decode("utf-8", "replace")
    if not said.startswith(DONE):
        raise NotAtOnce(text or "the process that was to do it has died")
    return text


def _apart(work: Callable[[], str], answer: socket) -> None:
    """Do the work and say what came of it; never returns.

    Holds on to nothing that others wait to see closed: not the client, not Postfix.
    """
    try:
        _let_go(answer.fileno())
        try:
            said = DONE + work().encode("utf-8", "replace")
        except Exception as problem:
            said = FAILED + f"{type(problem).__name__}: {problem}".encode()
        answer.sendall(said)
    finally:
        os._exit(0)


def _let_go(kept: int) -> None:
    """Close every descriptor but one; the first three lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for each in range(3):
        os.dup2(nowhere, each)
    os.closerange(3, kept)
    os.closerange(kept + 1, FILES)
