"""A Milter that adds a DKIM signature by dkimpy, as OpenDKIM does: for tests.

python tests/signing_milter.py PORT KEY_FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import dkim
from milter import Message, Milter

SELECTOR, DOMAIN = b"s1", b"example.org"
SIGNED_FIELDS = [b"from", b"to", b"cc", b"subject", b"date", b"message-id"]


class SigningMilter(Milter):
    """Signs every message, whatever its sender."""

    def __init__(self, port: int, key: bytes) -> None:
        self._key = key
        self.port = port
        super().__init__()

    def replies(self, message: Message) -> list[bytes]:
        """Return the signature as a header field to add."""
        signature = dkim.sign(
            message.header + b"\r\n" + message.body,
            SELECTOR,
            DOMAIN,
            self._key,
            canonicalize=(b"relaxed", b"relaxed"),
            include_headers=SIGNED_FIELDS,
            logger=None,
        )
        name, _, value = signature.rstrip().partition(b": ")
        return [b"h" + name + b"\0" + value.replace(b"\r\n", b"\n") + b"\0"]


if __name__ == "__main__":
    SigningMilter(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()).join()
