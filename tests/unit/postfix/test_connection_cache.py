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
RECIPIENTS = (Recipient(b"bob@example.com"),)
REPLIES = {  # to the first word of each command
    b"EHLO": b"250-mail\r\n250 XFORWARD NAME ADDR\r\n",
    b"DATA": b"354 go\r\n",
    b".": b"250 2.0.0 Ok: queued as 4Zx\r\n",
    b"QUIT": b"221 bye\r\n",
}


class Port:
    """A hand-back port; hangs up after some messages, with or without a word."""

    def __init__(self, *, has_to_hang_up: bool, hang_up_command: bytes = b"") -> None:
        self.address: tuple[str, int] = ("", 0)
        self.sessions: list[list[bytes]] = []
        self.closed_connections = threading.Semaphore(0)
        self._has_to_hang_up = has_to_hang_up
        self._hang_up_command = hang_up_command

    def serve(self, connection: socket.socket) -> None:
        """Serve one client to the end."""
        commands: list[bytes] = []
        self.sessions.append(commands)
        with connection, connection.makefile("rb") as lines, contextlib.suppress(
            OSError
        ):
            connection.sendall(b"220 mail ESMTP\r\n")
            for line in lines:
                command = line.split()[0] if line.split() else b""
                if command in (*REPLIES, b"MAIL", b"RCPT", b"RSET"):
                    commands.append(command)
                    connection.sendall(REPLIES.get(command, b"250 ok\r\n"))
                if command == b"." and self._has_to_hang_up:
                    connection.sendall(self._hang_up_command)
                    break
        self.closed_connections.release()


@contextlib.contextmanager
def serve(port: Port) -> Iterator[Port]:
    """Serve one client after the other until the test is over."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port.address = listening.getsockname()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listening.accept()
                    threading.Thread(target=port.serve, args=(peer,)).start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        yield port
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join()


def send_message(cache: ConnectionCache, port: Port) -> None:
    session = cache.take(port.address)
    assert session.send_envelope(b"", RECIPIENTS)
    assert session.send_message([b"hello\r\n"]) == "4Zx"
    cache.put_back(session)


def test_a_worker_gives_one_message_after_the_other_on_one_connection() -> None:
    with serve(Port(has_to_hang_up=False)) as port:
        line = ConnectionCache(is_enabled=True)
        for _ in range(3):
            send_message(line, port)
        line.take(port.address).close()
        port.closed_connections.acquire(timeout=60)
    [lines] = port.sessions
    assert lines == [b"EHLO", *[b"MAIL", b"RCPT", b"DATA", b"."] * 3, b"QUIT"]


def test_who_serves_one_message_keeps_nothing() -> None:
    with serve(Port(has_to_hang_up=False)) as port:
        line = ConnectionCache(is_enabled=False)
        send_message(line, port)
        assert port.closed_connections.acquire(timeout=60)
        send_message(line, port)
        assert port.closed_connections.acquire(timeout=60)
    assert len(port.sessions) == 2
    assert all(lines[-1] == b"QUIT" for lines in port.sessions)


@pytest.mark.parametrize(
    "last_reply", [b"", b"421 4.4.2 mail Error: timeout exceeded\r\n"]
)
def test_a_connection_that_the_other_side_has_ended_is_not_used_again(
    last_reply: bytes,
) -> None:
    with serve(Port(has_to_hang_up=True, hang_up_command=last_reply)) as port:
        line = ConnectionCache(is_enabled=True)
        for _ in range(3):
            send_message(line, port)
            assert port.closed_connections.acquire(timeout=60)
    assert [lines.count(b"DATA") for lines in port.sessions] == [1, 1, 1]


def test_another_port_gets_a_connection_of_its_own_and_the_cached_one_ends() -> None:
    with serve(Port(has_to_hang_up=False)) as one, serve(
        Port(has_to_hang_up=False)
    ) as two:
        line = ConnectionCache(is_enabled=True)
        send_message(line, one)
        send_message(line, two)
        assert one.closed_connections.acquire(timeout=60)
        line.take(two.address).close()
        assert two.closed_connections.acquire(timeout=60)
    assert (len(one.sessions), len(two.sessions)) == (1, 1)


def test_a_failed_session_is_not_reused() -> None:
    """Only done() keeps one."""
    with serve(Port(has_to_hang_up=False)) as port:
        line = ConnectionCache(is_enabled=True)
        send_message(line, port)
        line.take(port.address).close()  # and not done
        send_message(line, port)
        line.take(port.address).close()
    assert len(port.sessions) == 2


def test_a_port_that_no_longer_answers_is_reported() -> None:
    line = ConnectionCache(is_enabled=True)
    with serve(Port(has_to_hang_up=True)) as port:
        send_message(line, port)
        assert port.closed_connections.acquire(timeout=60)
    with pytest.raises(PostfixUnreachable, match="^connect to "):
        line.take(port.address)
