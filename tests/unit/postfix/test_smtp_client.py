"""Claims about the answers of Postfix's internal ports, whoever gives them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from postfix_archive.errors import PostfixRefused, PostfixUnreachable
from postfix_archive.message.envelope import Client, Recipient
from postfix_archive.postfix import qmqp_client, smtp_client

GREETING = b"220 mail ESMTP\r\n"
EHLO = b"250-mail\r\n250 XFORWARD NAME ADDR\r\n"
RECIPIENTS = (Recipient(b"bob@example.com"),)


@contextlib.contextmanager
def serve_replies(*replies: bytes) -> Iterator[tuple[str, int]]:
    """A server that says all this to one client, each in a packet of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            peer, _ = listening.accept()
            with peer, contextlib.suppress(OSError):
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for each in replies:
                    peer.sendall(each)
                peer.shutdown(socket.SHUT_WR)
                peer.settimeout(0.2)  # a client that has given up does not hang up
                while peer.recv(1 << 16):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            thread.join()


def send_to_server(*replies: bytes) -> str:
    with serve_replies(*replies) as port:
        return smtp_client.submit(port, b"", RECIPIENTS, [b"hello\r\n"], eightbit=False)


def send_by_qmqp(*replies: bytes) -> str:
    with serve_replies(*replies) as port:
        return qmqp_client.send_message(port, b"", RECIPIENTS, lambda: [b"hello\r\n"])


def test_answers_may_come_byte_by_byte() -> None:
    end = b"250 ok\r\n250 ok\r\n354 go\r\n250 2.0.0 Ok: queued as 4Zx\r\n221 bye\r\n"
    reply_bytes = GREETING + EHLO + end
    assert (
        send_to_server(
            *(reply_bytes[index : index + 1] for index in range(len(reply_bytes)))
        )
        == "4Zx"
    )


def test_a_message_without_a_queue_id_is_given_all_the_same() -> None:
    assert (
        send_to_server(GREETING, EHLO, b"250 a\r\n250 b\r\n354 c\r\n250 d\r\n")
        == "unknown"
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "replies",
    [
        b"",
        b"220",
        b"hello\r\n",
        b"\xb2\xb2\xb2 hello\r\n",
        b"220-" + b"x" * 70_000,
        b"220-more\r\n" * 200 + b"220 at last\r\n",
        GREETING + EHLO + b"250 ok\r\n250 ok\r\n354 go\r\n",
    ],
)
def test_what_is_no_smtp_defers(replies: bytes) -> None:
    with pytest.raises((PostfixUnreachable, PostfixRefused)):
        send_to_server(replies)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_without_xforward_is_refused() -> None:
    with serve_replies(GREETING, b"250 mail\r\n") as port:
        session = smtp_client.Session(port)
        with pytest.raises(PostfixRefused, match="XFORWARD"):
            session.prepare_xforward(Client(), b"4Zx", local=True)
        session.close()


def test_a_qmqp_answer_may_come_in_pieces() -> None:
    assert send_by_qmqp(b"1", b"8:Kok, ", b"queued as 4Zx,") == "4Zx"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "reply",
    [b"", b"18:Kok, ", b"18:Kok, queued as 4Zx", b"2:Kok,", b"K", b"3:Zno,", b":,"],
)
def test_a_qmqp_answer_that_is_cut_off_or_no_is_no_promise(reply: bytes) -> None:
    with pytest.raises((PostfixUnreachable, PostfixRefused)):
        send_by_qmqp(reply)


def test_dsn_parameters_are_passed_on_as_they_were_given() -> None:
    recipient = Recipient(b"bob@example.com", notify=b"DELAY", orcpt=b"rfc822;b+2Bc@x")
    command = smtp_client._rcpt_command(recipient, b"")
    assert command == b"RCPT TO:<bob@example.com> NOTIFY=DELAY ORCPT=rfc822;b+2Bc@x"
    assert b"NOTIFY=NEVER" in smtp_client._rcpt_command(recipient, b"NEVER")


def test_without_dsn_parameters_the_original_recipient_is_named() -> None:
    recipient = Recipient(b"bob@example.com", b"sales@example.com")
    command = smtp_client._rcpt_command(recipient, b"")
    assert command == b"RCPT TO:<bob@example.com> ORCPT=rfc822;sales@example.com"
