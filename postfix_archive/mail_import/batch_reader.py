"""Reads a batch of SMTP commands (RFC 2442): messages with their envelopes.

Used by mail_import/sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from postfix_archive.mail_import import source_message
from postfix_archive.system.spool import Spool


@dataclass
class BatchMessage:
    """A message of a batch, with its envelope."""

    content: Spool
    sender: bytes
    recipients: tuple[bytes, ...]
    number: int
    is_cut: bool


def messages(file: BinaryIO, spool_directory: str) -> Iterator[BatchMessage]:
    """Yield the messages of a batch of SMTP commands (RFC 2442)."""
    sender, number = b"", 0
    recipients: list[bytes] = []
    for line in iter(file.readline, b""):
        verb = line[:10].upper()
        if verb.startswith(b"MAIL FROM:"):
            sender, recipients = _path(line), []
        elif verb.startswith(b"RCPT TO:"):
            recipients.append(_path(line))
        elif verb.strip() == b"DATA":
            number += 1
            lines = _DataLines(file)
            content = source_message.read(lines.pieces(), spool_directory)
            yield BatchMessage(
                content, sender, tuple(recipients), number, not lines.is_complete
            )


class _DataLines:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.is_complete = False

    def pieces(self) -> Iterable[bytes]:
        """Yield the lines up to the end of the data, without the dots before dots."""
        for line in iter(self._file.readline, b""):
            if line in (b".\r\n", b".\n"):
                self.is_complete = True
                return
            yield line[1:] if line.startswith(b".") else line


def _path(line: bytes) -> bytes:
    """Return the address of a MAIL or RCPT command."""
    path = line.partition(b":")[2].strip()
    return path[1 : path.rfind(b">")] if path.startswith(b"<") else path.split()[0]
