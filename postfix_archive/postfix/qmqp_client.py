"""QMQP client: reinjects messages with addresses that SMTP cannot carry.

Used by stamp_filter/capture if postfix/smtp_client cannot send the envelope. Raises
PostfixUnreachable or PostfixRefused; both defer the message.
"""

from __future__ import annotations

from postfix_archive.errors import PostfixRefused, PostfixUnreachable
from postfix_archive.message import address, smtp_data
from postfix_archive.postfix import smtp_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Iterable

    from postfix_archive.message.envelope import Recipient


def send_message(
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
    size = sum(map(len, smtp_data.to_lf(content())))
    envelope = b"".join(
        _netstring(address.unquote(each))
        for each in (sender, *(recipient.final for recipient in recipients))
    )
    length_prefix = b"%d:" % size
    name = f"{port[0]}:{port[1]}"
    connection = smtp_client.connect(port)
    try:
        connection.sendall(
            b"%d:" % (len(length_prefix) + size + 1 + len(envelope)) + length_prefix
        )
        for chunk in smtp_data.to_lf(content()):
            connection.sendall(chunk)
        connection.sendall(b"," + envelope + b",")
        reply = _read_reply(connection)
        connection.close()
    except OSError as error:
        raise PostfixUnreachable(
            f"QMQP connection to {name} lost: {error}; see Postfix's log"
        ) from error
    if not reply.startswith("K"):
        raise PostfixRefused(f"{name} replied (QMQP): {reply or 'nothing'}")
    return smtp_client.parse_queue_id(reply)


def _read_reply(connection: socket) -> str:
    """Return the server's reply, one netstring; "" if it is incomplete."""
    buffer = b""
    while len(buffer) < smtp_client.REPLY_LINE_LIMIT and (
        chunk := connection.recv(smtp_client.RECEIVE_SIZE)
    ):
        buffer += chunk
        text = buffer.partition(b":")[2][:-1]
        if buffer == _netstring(text):
            return text.decode("utf-8", "replace")
    return ""


def _netstring(content: bytes) -> bytes:
    return b"%d:%s," % (len(content), content)
