"""Claims about the connection to the hand-back port that a worker keeps."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from postfix_archive.errors import PostfixUnreachable
from postfix_archive.message.envelope import Recipient
from postfix_archive.postfix.smtp_client import ConnectionCache

# What is given up is closed when nobody has it any more, and Python says so.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
BOB = (Recipient(b"bob@example.com"),)
ANSWERS = {  # to the first word of each command
    b"EHLO": b"250-mail\r\n250 XFORWARD NAME ADDR\r\n",
    b"DATA": b"354 go\r\n",
    b".": b"250 2.0.0 Ok: queued as 4Zx\r\n",
    b"QUIT": b"221 bye\r\n",
}


class Port:
    """A hand-back port; hangs up after some messages, with or without a word."""

    def __init__(self, *, hangs_up: bool, word: bytes = b"") -> None:
        self.address: tuple[str, int] = ("", 0)
        self.sessions: list[list[bytes]] = []
        self.closed = threading.Semaphore(0)
        self._hangs_up = hangs_up
        self._word = word

    def talk(self, peer: socket.socket) -> None:
        """Serve one client to the end."""
        said: list[bytes] = []
        self.sessions.append(said)
        with peer, peer.makefile("rb") as lines, contextlib.suppress(OSError):
            peer.sendall(b"220 mail ESMTP\r\n")
            for line in lines:
                word = line.split()[0] if line.split() else b""
                if word in (*ANSWERS, b"MAIL", b"RCPT", b"RSET"):
                    said.append(word)
                    peer.sendall(ANSWERS.get(word, b"250 ok\r\n"))
                if word == b"." and self._hangs_up:
                    peer.sendall(self._word)
                    break
        self.closed.release()


@contextlib.contextmanager
def serving(port: Port) -> Iterator[Port]:
    """Serve one client after the other until the test is over."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port.address = listening.getsockname()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listening.accept()
                    threading.Thread(target=port.talk, args=(peer,)).start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        yield port
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join()


def one_message(line: ConnectionCache, port: Port) -> None:
    session = line.take(port.address)
    assert session.send_envelope(b"", BOB)
    assert session.send_message([b"hello\r\n"]) == "4Zx"
    line.put_back(session)


def test_a_worker_gives_one_message_after_the_other_on_one_connection() -> None:
    with serving(Port(hangs_up=False)) as port:
        line = ConnectionCache(is_enabled=True)
        for _ in range(3):
            one_message(line, port)
        line.take(port.address).close()
        port.closed.acquire(timeout=60)
    [said] = port.sessions
    assert said == [b"EHLO", *[b"MAIL", b"RCPT", b"DATA", b"."] * 3, b"QUIT"]


def test_who_serves_one_message_keeps_nothing() -> None:
    with serving(Port(hangs_up=False)) as port:
        line = ConnectionCache(is_enabled=False)
        one_message(line, port)
        assert port.closed.acquire(timeout=60)
        one_message(line, port)
        assert port.closed.acquire(timeout=60)
    assert len(port.sessions) == 2
    assert all(said[-1] == b"QUIT" for said in port.sessions)


@pytest.mark.parametrize("word", [b"", b"421 4.4.2 mail Error: timeout exceeded\r\n"])
def test_a_connection_that_the_other_side_has_ended_is_not_used_again(
    word: bytes,
) -> None:
    with serving(Port(hangs_up=True, word=word)) as port:
        line = ConnectionCache(is_enabled=True)
        for _ in range(3):
            one_message(line, port)
            assert port.closed.acquire(timeout=60)
    assert [said.count(b"DATA") for said in port.sessions] == [1, 1, 1]


def test_another_port_gets_a_connection_of_its_own_and_the_kept_one_ends() -> None:
    with serving(Port(hangs_up=False)) as one, serving(Port(hangs_up=False)) as two:
        line = ConnectionCache(is_enabled=True)
        one_message(line, one)
        one_message(line, two)
        assert one.closed.acquire(timeout=60)
        line.take(two.address).close()
        assert two.closed.acquire(timeout=60)
    assert (len(one.sessions), len(two.sessions)) == (1, 1)


def test_a_session_that_went_wrong_is_taken_by_nobody_again() -> None:
    """Only done() keeps one."""
    with serving(Port(hangs_up=False)) as port:
        line = ConnectionCache(is_enabled=True)
        one_message(line, port)
        line.take(port.address).close()  # and not done
        one_message(line, port)
        line.take(port.address).close()
    assert len(port.sessions) == 2


def test_where_nobody_answers_any_more_that_is_said() -> None:
    line = ConnectionCache(is_enabled=True)
    with serving(Port(hangs_up=True)) as port:
        one_message(line, port)
        assert port.closed.acquire(timeout=60)
    with pytest.raises(PostfixUnreachable, match="^connect to "):
        line.take(port.address)
