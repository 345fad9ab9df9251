"""Gives Postfix a message with addresses that SMTP cannot carry, by QMQP.

Used by front/stamp_filter where handback says so. Fails as handback does: with
HandBackUnreachable and HandBackRefused, which both mean: defer.
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
    """Give a message with addresses that SMTP cannot carry; return its queue id.

    By QMQP, which takes any address, so that Postfix itself decides and sends the DSN
    that it would have sent without us. The whole message goes this way, so that address
    mappings see it once. content is called twice, to count and to send.
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
        raise HandBackUnreachable(f"{name} (QMQP) broke: {problem}") from problem
    if not status.startswith("K"):
        raise HandBackRefused(f"{name} (QMQP) answered: {status or 'nothing'}")
    return handback.queue_id(status)


def _answered(peer: socket) -> str:
    """Return what a QMQP server says, one netstring, "" if that is cut off."""
    held = b""
    while len(held) < handback.LINE_LIMIT and (piece := peer.recv(handback.BLOCK)):
        held += piece
        said = held.partition(b":")[2][:-1]
        if held == _netstring(said):
            return said.decode("utf-8", "replace")
    return ""


def _netstring(content: bytes) -> bytes:
    return b"%d:%s," % (len(content), content)
