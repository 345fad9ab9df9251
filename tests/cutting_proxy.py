"""A TCP proxy that cuts connections, or answers for the server, when a test says so."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

BLOCK = 1 << 16


class CuttingProxy:
    """Passes connections to a port of this host. A context manager.

    ``cut_after`` is how many bytes more of requests pass before the connection is cut,
    for ever; None for no limit. ``answer`` is sent instead of what the server says, to
    each request whose first line begins with ``method``.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.cut_after: int | None = None
        self.answer = b""
        self.method = b""
        self.change: Callable[[bytes], bytes] = lambda block: block
        self.connections = 0

    @property
    def endpoint(self) -> str:
        """The URL of the proxy."""
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> CuttingProxy:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self.connections += 1
                server = socket.create_connection(("127.0.0.1", self._port))
                for each in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass, args=each, daemon=True).start()

    def _pass(
        self, source: socket.socket, target: socket.socket, is_request: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(BLOCK):
                if is_request:
                    if self.answer and block.startswith(self.method):
                        source.sendall(self.answer)
                        break
                    block = self.change(block)
                    passing = self._cut(block)
                    target.sendall(passing)
                    if passing != block:
                        break
                else:
                    target.sendall(block)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _cut(self, block: bytes) -> bytes:
        """Return as much of a request as may pass."""
        if self.cut_after is None:
            return block
        block = block[: self.cut_after]
        self.cut_after -= len(block)
        return block
