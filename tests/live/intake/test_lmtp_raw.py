"""The socket of a live worker, by hand: bad input, clients that hang up, each reply."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator

import pytest

from mails import (
    LEGAL,
    deliveries,
    event_kinds,
    mail,
    one_delivery,
    original_of,
    recipients_of,
    record_of,
    records,
)
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
SESSION_START = (
    b"LHLO test\r\nXFORWARD SOURCE=REMOTE IDENT=4Zx NAME=a ADDR=192.0.2.1\r\n"
    b"MAIL FROM:<ann@example.org>\r\n"
)
BOB, DORA = "bob@example.net", "dora@example.net"


@pytest.fixture(scope="module")
def postfix() -> Iterator[PrivatePostfix]:
    """A running instance with the lmtp mode, shared by this module."""
    with PrivatePostfix(mode="lmtp") as running:
        yield running


def run_session(postfix: PrivatePostfix, *chunks: bytes) -> list[str]:
    """Send all this to a worker, hang up, and return the replies' lines.

    Reads meanwhile, as lmtp(8) does: neither side waits for ever for the other.
    """
    path = str(postfix.queue_directory / "private" / f"archive.{LEGAL}")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)
        sender = threading.Thread(target=_send, args=(peer, chunks))
        sender.start()
        replies = b"".join(iter(lambda: _receive(peer), b""))
        sender.join()
    return replies.decode().splitlines()


def _send(peer: socket.socket, chunks: Iterable[bytes]) -> None:
    try:
        for each in chunks:
            peer.sendall(each)
        peer.shutdown(socket.SHUT_WR)
    except ConnectionError:
        pass  # the worker has ended the session: what it said is read by talk()


def _receive(peer: socket.socket) -> bytes:
    try:
        return peer.recv(1 << 16)
    except ConnectionError:
        return b""


def transaction(name: str, *rcpts: bytes, body: bytes = b"") -> bytes:
    """Return a message as lmtp(8) sends it, without waiting for replies."""
    return (
        SESSION_START
        + b"".join(b"RCPT TO:" + each + b"\r\n" for each in rcpts)
        + b"DATA\r\n"
        + mail(name).replace(b"\n", b"\r\n")
        + body
        + b".\r\n"
    )


def codes(lines: list[str]) -> list[str]:
    return [line[:3] for line in lines if line[3:4] == " "]


def test_one_byte_at_a_time_is_a_message_like_any_other(
    postfix: PrivatePostfix,
) -> None:
    session_bytes = transaction("slow", b"<bob@example.net>", b"<dora@example.net>")
    lines = run_session(
        postfix,
        *(session_bytes[index : index + 1] for index in range(len(session_bytes))),
    )
    assert codes(lines) == ["220", *["250"] * 5, "354", "250", "250"]
    postfix.wait_for_empty_queue()
    assert event_kinds(record_of(postfix, "slow")) == ["archived", "mailed"]
    for to in (BOB, DORA):
        assert len(deliveries(postfix, "slow", to)) == 1


def test_of_two_recipients_one_may_be_refused_and_the_other_gets_the_mail(
    postfix: PrivatePostfix,
) -> None:
    lines = run_session(postfix, transaction("half", b"bob", b"<dora@example.net>"))
    assert codes(lines)[-4:] == ["501", "250", "354", "250"]
    postfix.wait_for_empty_queue()
    assert recipients_of(record_of(postfix, "half")) == [DORA]
    assert one_delivery(postfix, "half", DORA)


def test_a_message_that_must_wait_is_deferred_for_each_recipient(
    postfix: PrivatePostfix,
) -> None:
    session_bytes = transaction("wait", b"<bob@example.net>", b"<dora@example.net>")
    lines = run_session(
        postfix, session_bytes.replace(b"XFORWARD SOURCE=REMOTE ", b"XFORWARD ")
    )
    assert codes(lines)[-3:] == ["354", "451", "451"]
    assert lines[-1].endswith("temporary failure")
    assert "no XFORWARD SOURCE from lmtp(8)" in postfix.last_failure()
    postfix.wait_for_empty_queue()
    assert not records(postfix, "wait") and not deliveries(postfix, "wait", BOB)


def test_a_client_that_hangs_up_after_any_byte_leaves_nothing_behind(
    postfix: PrivatePostfix,
) -> None:
    session_bytes = transaction("cut", b"<bob@example.net>")
    for end in range(len(session_bytes)):
        lines = run_session(postfix, session_bytes[:end])
        assert lines[0].startswith("220 ")
        assert not [line for line in lines if line.startswith(("5", "Traceback"))]
    postfix.wait_for_empty_queue()
    assert not records(postfix, "cut")
    assert not deliveries(postfix, "cut", BOB)
    assert (
        codes(run_session(postfix, session_bytes))[-1] == "250"
    ), "and the next one is served"


def test_a_client_that_is_gone_before_the_answer_and_comes_again_is_archived_once(
    postfix: PrivatePostfix,
) -> None:
    """lmtp(8) would: the message is delivered twice, as behind any filter."""
    session_bytes = transaction("twice", b"<bob@example.net>")
    envelope, data, content = session_bytes.partition(b"DATA\r\n")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(postfix.queue_directory / "private" / f"archive.{LEGAL}"))
        peer.sendall(envelope + data)
        replies = b""
        while b"354 " not in replies:
            replies += peer.recv(1 << 16)
        peer.sendall(content)
    postfix.wait(lambda: deliveries(postfix, "twice", BOB), "the message passes")
    assert codes(run_session(postfix, session_bytes))[-1] == "250"
    postfix.wait_for_empty_queue()
    assert event_kinds(record_of(postfix, "twice")).count("archived") == 1
    assert event_kinds(record_of(postfix, "twice")).count("mailed") == 1


def test_ten_thousand_recipients_are_one_message_and_each_is_answered(
    postfix: PrivatePostfix,
) -> None:
    recipients = [f"p{number}@d{number % 9}.example.net" for number in range(10_000)]
    rcpts = [f"<{each}>".encode() for each in recipients]
    lines = run_session(postfix, transaction("crowd", *rcpts))
    assert codes(lines)[-20_001:] == [*["250"] * 10_000, "354", *["250"] * 10_000]
    postfix.wait_for_empty_queue()
    record = record_of(postfix, "crowd")
    assert recipients_of(record) == sorted(recipients)
    assert event_kinds(record).count("archived") == 1
    assert len(deliveries(postfix, "crowd", recipients[-1])) == 1


@pytest.mark.parametrize("body", [b"a\nb\r\n", b"\n.\n", b"\n.\r\n", b"a\r\n.\nb\r\n"])
def test_a_bare_lf_in_a_message_makes_it_wait_and_hides_no_command(
    postfix: PrivatePostfix, body: bytes
) -> None:
    smuggled = b"MAIL FROM:<eve@example.org>\r\n"
    session_bytes = transaction("smuggled", b"<bob@example.net>", body=body + smuggled)
    lines = run_session(postfix, session_bytes)
    assert codes(lines)[-2:] == ["354", "451"]
    postfix.wait_for_empty_queue()
    assert not records(postfix, "smuggled")
    assert not deliveries(postfix, "smuggled", BOB)


def test_nul_and_lines_of_any_length_pass_as_they_came(postfix: PrivatePostfix) -> None:
    body = b"\0\0a\0\r\n" + b"x" * 1_000_000 + b"\r\n"
    session_bytes = transaction("long", b"<bob@example.net>", body=body)
    assert codes(run_session(postfix, session_bytes))[-1] == "250"
    postfix.wait_for_empty_queue()
    original = original_of(postfix, record_of(postfix, "long"))
    assert original == mail("long").replace(b"\n", b"\r\n") + body


def test_a_message_without_end_is_no_message(postfix: PrivatePostfix) -> None:
    session_bytes = transaction("endless", b"<bob@example.net>").removesuffix(b".\r\n")
    lines = run_session(postfix, session_bytes, *[b"x" * 1_000_000] * 20)
    assert codes(lines)[-1] == "354"
    postfix.wait_for_empty_queue()
    assert not records(postfix, "endless")
    for path in (postfix.directory / "spool").iterdir():
        assert b"xxxx" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("data", "last_code"),
    [
        (b"x" * 30_000, "421"),
        (b"LHLO a\r\nMAIL FROM:<>\r\nDATA\r\n", "503"),
        (b"LHLO a\r\nBDAT 4 LAST\r\nabcd", "421"),
        (b"LHLO a\nMAIL FROM:<>\n", "421"),
        (b"\0\0\0\r\n", "500"),
        (b"DATA\r\n", "503"),
        (b"EHLO a\r\n", "500"),
        (b"GET / HTTP/1.0\r\n\r\n", "500"),
    ],
)
def test_bad_input_gets_a_reply_or_ends_the_session(
    postfix: PrivatePostfix, data: bytes, last_code: str
) -> None:
    assert run_session(postfix, data)[-1][:3] == last_code
