"""QMQP client: reinjects messages with addresses that SMTP cannot carry.

Used by stamp_filter/capture if postfix/smtp_client cannot send the envelope. Raises
PostfixUnreachable or PostfixRefused; both defer the message.
"""

from __future__ import annotations

from postfix_archive.back import handback
from postfix_archive.core import address, wire
from postfix_archive.core.errors import HandBackRefused, HandBackUnreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Iterable

    from postfix_archive.core.envelope import Recipient


def give(
    port: tuple[str, int],
    sender: bytes,
    recipients: tuple[Recipient, ...],
    content: Callable[[], Iterable[bytes]],
) -> str:
    """Send a message to qmqpd(8); return its queue id.

    QMQP carries any address, so Postfix itself rejects a bad one, with the DSN that it
    would have sent without us. The message goes to all recipients in one transaction,
    so that address mappings apply once. content is called twice, to count the bytes and
    to send them.
    """
    size = sum(map(len, wire.with_lf(content())))
    tail = b"".join(
        _netstring(address.unquoted(each))
        for each in (sender, *(recipient.final for recipient in recipients))
    )
    begin = b"%d:" % size
    name = f"{port[0]}:{port[1]}"
    peer = handback.connected(port)
    try:
        peer.sendall(b"%d:" % (len(begin) + size + 1 + len(tail)) + begin)
        for piece in wire.with_lf(content()):
            peer.sendall(piece)
        peer.sendall(b"," + tail + b",")
        status = _answered(peer)
        peer.close()
    except OSError as problem:
        raise HandBackUnreachable(
            f"QMQP connection to {name} lost: {problem}; see Postfix's log"
        ) from problem
    if not status.startswith("K"):
        raise HandBackRefused(f"{name} replied (QMQP): {status or 'nothing'}")
    return handback.queue_id(status)


def _answered(peer: socket) -> str:
    """Return the server's reply, one netstring; "" if it is incomplete."""
    held = b""
    while len(held) < handback.LINE_LIMIT and (piece := peer.recv(handback.BLOCK)):
        held += piece
        said = held.partition(b":")[2][:-1]
        if held == _netstring(said):
            return said.decode("utf-8", "replace")
    return ""


def _netstring(content: bytes) -> bytes:
    return b"%d:%s," % (len(content), content)
