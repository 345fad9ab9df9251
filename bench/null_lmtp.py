"""A filter for lmtp(8) that does nothing: a worker that gives messages back, no more.

Run by spawn(8) on the connection of lmtp(8), kept for many messages as the lmtp door
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

OFFERS = b"250-localhost\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"


class Back:
    """The connection to the hand-back port."""

    def __init__(self, port: int) -> None:
        self._peer = create_connection(("127.0.0.1", port))
        self._read = self._peer.makefile("rb")
        self.reply()
        self.send(b"EHLO localhost\r\n")
        self.reply()

    def send(self, words: bytes) -> None:
        """Send words."""
        self._peer.sendall(words)

    def reply(self) -> bytes:
        """Read one reply; return its last line."""
        while (line := self._read.readline())[3:4] == b"-":
            pass
        return line


def main(port: int, client: "BinaryIO", answer: "BinaryIO") -> None:
    """Serve one connection."""
    back = None
    envelope: list[bytes] = []
    tell(answer, b"220 localhost\r\n")
    while line := client.readline():
        word = line[:4].upper()
        if word == b"LHLO":
            tell(answer, OFFERS)
        elif word in (b"MAIL", b"RCPT"):
            envelope.append(line)
            answer.write(b"250 2.1.0 Ok\r\n")
            answer.flush()
        elif word == b"DATA":
            tell(answer, b"354 go on\r\n")
            back = back or Back(port)
            reply = give_back(back, envelope, client)
            tell(answer, reply * (len(envelope) - 1))
            envelope = []
        elif word == b"QUIT":
            return tell(answer, b"221 2.0.0 Bye\r\n")
        else:
            envelope = []
            tell(answer, b"250 2.0.0 Ok\r\n")


def give_back(back: Back, envelope: "list[bytes]", client: "BinaryIO") -> bytes:
    """Pass envelope and content on as they came; return Postfix's reply."""
    back.send(b"".join(envelope) + b"DATA\r\n")
    for _ in envelope:
        back.reply()
    if not back.reply().startswith(b"354"):
        sys.exit("hand-back refused")
    last = b""
    while not last.endswith(END):
        block = client.read1(BLOCK)  # type: ignore[attr-defined]
        if not block:
            sys.exit("the client has hung up")
        back.send(block)
        last = (last + block)[-len(END) :]
    return back.reply()


def tell(answer: "BinaryIO", words: bytes) -> None:
    """Send words to the client at once."""
    answer.write(words)
    answer.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
