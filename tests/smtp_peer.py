"""A peer that speaks SMTP or LMTP and answers as it is told, also as no server should.

For what a real Postfix on the other side cannot do: hang up after DATA, answer with
hostile or overlong text, be a content filter that says what it likes, keep a mailbox
behind LMTP. It notes what it took: that is the truth, not our reading of a log.

    with Peer(hang_up) as peer: ... f"smtp:[127.0.0.1]:{peer.port}"
"""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

ADDRESS = re.compile(r"^[A-Z]+ (?:FROM|TO):<(.*)>[^<>]*$", re.IGNORECASE | re.DOTALL)
NO_REPLY = ""  # as a reply: say nothing and close the connection


@dataclass
class Transaction:
    """One message as the peer was given it; content has CRLF, dots unstuffed."""

    sender: str = ""
    recipients: list[str] = field(default_factory=list)
    content: bytes = b""
    xforward: dict[str, str] = field(default_factory=dict)


ReplyFunction = Callable[[Transaction, str], str]


class Peer:
    """Listens on a port of loopback from start() on, one thread a connection.

    ``at_end`` is asked for the reply after the message: once, or with LMTP once for
    each recipient. ``at_rcpt`` is asked for the reply to RCPT. ``accepted`` are the
    messages, each with the recipients that got a reply of 2xx.
    """

    def __init__(
        self,
        at_end: ReplyFunction,
        *,
        at_rcpt: ReplyFunction | None = None,
        port: int = 0,
        is_lmtp: bool = False,
        extensions: tuple[str, ...] = ("8BITMIME", "SMTPUTF8"),
    ) -> None:
        self.at_end = at_end
        self.at_rcpt: ReplyFunction = at_rcpt or (
            lambda transaction, address: "250 2.1.5 ok"
        )
        self.is_lmtp = is_lmtp
        self.extensions = extensions
        self.accepted: list[Transaction] = []
        self._server = _Server(("127.0.0.1", port), _Session)
        self._server.peer = self
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Peer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Answer from now on."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Take no more connections."""
        self._server.shutdown()
        self._server.server_close()

    def accepted_for(self, address: str) -> list[Transaction]:
        """Return the messages that were taken for an address."""
        return [each for each in self.accepted if address in each.recipients]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 100
    peer: Peer


class _Session(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        try:
            self._serve()
        except OSError:
            pass  # the client has gone

    def _serve(self) -> None:
        self.transaction = Transaction()
        self._reply("220 peer.example.com ready")
        for raw_line in self.rfile:
            line = raw_line.decode("utf-8", "surrogateescape").rstrip("\r\n")
            verb = line.partition(" ")[0].upper()
            if not self._handle_command(verb, line) or verb == "QUIT":
                return

    def _handle_command(self, verb: str, line: str) -> bool:
        if verb in ("EHLO", "LHLO"):
            keywords = ("peer.example.com", *self.server.peer.extensions)
            lines = [f"250-{item}" for item in keywords]
            return self._reply(
                "\r\n".join(lines[:-1] + [lines[-1].replace("-", " ", 1)])
            )
        if verb == "MAIL":
            self.transaction.sender = _address(line)
        elif verb == "RCPT":
            return self._recipient(_address(line))
        elif verb == "XFORWARD":
            for item in line.split()[1:]:
                name, _, value = item.partition("=")
                self.transaction.xforward[name] = value
        elif verb == "DATA":
            return self._data()
        return self._reply("221 2.0.0 bye" if verb == "QUIT" else "250 2.0.0 ok")

    def _recipient(self, address: str) -> bool:
        reply = self.server.peer.at_rcpt(self.transaction, address)
        if reply.startswith("2"):
            self.transaction.recipients.append(address)
        return self._reply(reply)

    def _data(self) -> bool:
        if not self.transaction.recipients:
            return self._reply("554 5.5.1 no recipients")
        self._reply("354 go on")
        self.transaction.content = self._content()
        transaction, self.transaction = self.transaction, Transaction()
        peer = self.server.peer
        recipients = (
            transaction.recipients if peer.is_lmtp else transaction.recipients[:1]
        )
        replies = [peer.at_end(transaction, each) for each in recipients]
        accepted = [
            address
            for number, address in enumerate(transaction.recipients)
            if replies[number if peer.is_lmtp else 0].startswith("2")
        ]
        if accepted:
            transaction.recipients = accepted
            peer.accepted.append(transaction)
        return all([self._reply(each) for each in replies])

    def _content(self) -> bytes:
        lines = []
        for raw_line in self.rfile:
            if raw_line == b".\r\n":
                break
            lines.append(raw_line[1:] if raw_line.startswith(b".") else raw_line)
        return b"".join(lines)

    def _reply(self, reply: str) -> bool:
        if reply == NO_REPLY:
            return False
        self.wfile.write(reply.encode("utf-8", "surrogateescape") + b"\r\n")
        return True


def _address(line: str) -> str:
    match = ADDRESS.match(line)
    return match.group(1) if match else ""


def hang_up(transaction: Transaction, address: str) -> str:
    """Say nothing after the message and close the connection."""
    return NO_REPLY
