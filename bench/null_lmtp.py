"""A filter for lmtp(8) that does nothing: a worker that gives messages back, no more.

Run by spawn(8) on the connection of lmtp(8), kept for many messages as the lmtp mode
is, with one connection to the hand-back port that is kept as well.

    python3 -I -S null_lmtp.py PORT
"""

import sys
from socket import create_connection

END = b"\r\n.\r\n"
BLOCK = 1 << 16
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

LHLO_REPLY = b"250-localhost\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"


class ReinjectionConnection:
    """The connection to the hand-back port."""

    def __init__(self, port: int) -> None:
        self._peer = create_connection(("127.0.0.1", port))
        self._reader = self._peer.makefile("rb")
        self.reply()
        self.send(b"EHLO localhost\r\n")
        self.reply()

    def send(self, data: bytes) -> None:
        """Send words."""
        self._peer.sendall(data)

    def reply(self) -> bytes:
        """Read one reply; return its last line."""
        while (line := self._reader.readline())[3:4] == b"-":
            pass
        return line


def main(port: int, client: "BinaryIO", output: "BinaryIO") -> None:
    """Serve one connection."""
    connection = None
    envelope: list[bytes] = []
    send_reply(output, b"220 localhost\r\n")
    while line := client.readline():
        command = line[:4].upper()
        if command == b"LHLO":
            send_reply(output, LHLO_REPLY)
        elif command in (b"MAIL", b"RCPT"):
            envelope.append(line)
            output.write(b"250 2.1.0 Ok\r\n")
            output.flush()
        elif command == b"DATA":
            send_reply(output, b"354 go on\r\n")
            connection = connection or ReinjectionConnection(port)
            reply = reinject(connection, envelope, client)
            send_reply(output, reply * (len(envelope) - 1))
            envelope = []
        elif command == b"QUIT":
            return send_reply(output, b"221 2.0.0 Bye\r\n")
        else:
            envelope = []
            send_reply(output, b"250 2.0.0 Ok\r\n")


def reinject(
    connection: ReinjectionConnection, envelope: "list[bytes]", client: "BinaryIO"
) -> bytes:
    """Pass envelope and content on as they came; return Postfix's reply."""
    connection.send(b"".join(envelope) + b"DATA\r\n")
    for _ in envelope:
        connection.reply()
    if not connection.reply().startswith(b"354"):
        sys.exit("hand-back refused")
    tail = b""
    while not tail.endswith(END):
        block = client.read1(BLOCK)  # type: ignore[attr-defined]
        if not block:
            sys.exit("the client has hung up")
        connection.send(block)
        tail = (tail + block)[-len(END) :]
    return connection.reply()


def send_reply(output: "BinaryIO", data: bytes) -> None:
    """Send words to the client at once."""
    output.write(data)
    output.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
