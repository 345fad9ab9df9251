"""A Milter that changes every message: for tests (Postfix's MILTER_README)."""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import dataclass

VERSION = 6
ADD_HEADERS, CHANGE_BODY, CHANGE_HEADERS = 0x01, 0x02, 0x10
CONTINUE = b"c"
WITHOUT_REPLY = b"DAQ"  # macros, abort, quit


@dataclass
class Message:
    """What Postfix has sent of the current message."""

    header: bytes = b""
    body: bytes = b""


class Milter(threading.Thread):
    """Serves on a port of loopback: removes a header field, replaces the body."""

    port = 0  # 0: a free one

    def __init__(self, *, removed: bytes = b"", added: bytes = b"", body: bytes = b""):
        super().__init__(daemon=True)
        self._replies = []
        if removed:
            self._replies.append(b"m" + struct.pack("!I", 1) + removed + b"\0\0")
        if added:
            self._replies.append(b"hX-Added\0" + added + b"\0")
        if body:
            self._replies.append(b"b" + body)
        self._socket = socket.create_server(("127.0.0.1", self.port))
        self.address = f"inet:127.0.0.1:{self._socket.getsockname()[1]}"
        self.start()

    def run(self) -> None:
        """Serve until the socket is closed."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,)).start()

    def close(self) -> None:
        """Accept no more connections."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self, connection: socket.socket) -> None:
        message = Message()
        with connection, connection.makefile("rwb") as stream:
            while header := stream.read(4):
                [length] = struct.unpack("!I", header)
                packet = stream.read(length)
                for reply in self._answer(packet, message):
                    stream.write(struct.pack("!I", len(reply)) + reply)
                stream.flush()

    def replies(self, message: Message) -> list[bytes]:
        """Return what is changed in a message."""
        return self._replies

    def _answer(self, packet: bytes, message: Message) -> list[bytes]:
        command = packet[:1]
        if command == b"O":
            actions = ADD_HEADERS | CHANGE_BODY | CHANGE_HEADERS
            return [b"O" + struct.pack("!III", VERSION, actions, 0)]
        if command == b"E":  # the end of the message
            replies = self.replies(message)
            message.header, message.body = b"", b""
            return [*replies, CONTINUE]
        if command == b"L":
            name, value, _ = packet[1:].split(b"\0")
            message.header += name + b": " + value.replace(b"\n", b"\r\n") + b"\r\n"
        if command == b"B":
            message.body += packet[1:]
        return [] if command in WITHOUT_REPLY else [CONTINUE]
