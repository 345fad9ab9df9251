"""Holds the message that is being handled, so that it can be read several times.

Used by both transports. Small messages stay in memory; large ones go to an unnamed
file, which the kernel removes with the process. Nothing here needs to be durable, since
Postfix keeps the message in its queue until the transport reports success.
"""

from __future__ import annotations

import posix as os

from postfix_archive.back import files
from postfix_archive.core import digest, header, packing, wire
from postfix_archive.core.errors import CapsuleBroken, SpoolFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 1 << 16  # bytes a read; the capacity of a Linux pipe (pipe(7))
MEMORY_LIMIT = 4 << 20  # bytes; a larger message goes to a file


class Spool:
    """A message in canonical form that can be read from any offset, many times."""

    __slots__ = ("_file", "_memory", "size")

    def __init__(self) -> None:
        self._memory: list[bytes] = []
        self._file = -1
        self.size = 0

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from start up to stop (default: the end), in chunks."""
        stop = self.size if stop is None else min(stop, self.size)
        stored = self._from_file(start, stop) if self._file >= 0 else self._memory
        at = start if self._file >= 0 else 0
        for piece in stored:
            if at + len(piece) > start and at < stop:
                yield piece[max(0, start - at) : stop - at]
            at += len(piece)

    def head(self, start: int = 0, limit: int = header.HEAD_LIMIT) -> bytes:
        """Return the bytes from start on, at most limit of them."""
        return b"".join(self.pieces(start, start + limit))

    def digests(self, offsets: list[int]) -> dict[int, bytes]:
        """Return the SHA-256 of the message from each of these offsets on."""
        digest.expect(self.size * len(offsets))
        sums = [(offset, digest.sha256()) for offset in offsets]
        at = 0
        for piece in self.pieces():
            for offset, total in sums:
                if offset < at + len(piece):
                    total.update(piece[max(0, offset - at) :])
            at += len(piece)
        return {offset: total.digest() for offset, total in sums}

    def shape(self, start: int = 0) -> wire.Shape:
        """Return what SMTP must support to carry the message from start on."""
        shape = wire.Shape()
        for piece in self.pieces(start):
            shape.take(piece)
        return shape

    def add(self, piece: bytes, directory: str) -> None:
        """Append a chunk; a file, if one is needed, is made in directory."""
        self.size += len(piece)
        if self._file < 0 and self.size <= MEMORY_LIMIT:
            self._memory.append(piece)
            return
        if self._file < 0:
            self._file = _nameless_file(directory)
            held, self._memory = self._memory, []
            for earlier in held:
                files.write_all(self._file, earlier)
        files.write_all(self._file, piece)

    def close(self) -> None:
        """Free memory and file."""
        self._memory = []
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _from_file(self, start: int, stop: int) -> Iterator[bytes]:
        while start < stop:
            piece = os.pread(self._file, PIECE, start)
            if not piece:
                raise SpoolFailed(
                    "spool file is shorter than the message; Postfix will retry"
                )
            yield piece
            start += len(piece)


def read(descriptor: int, directory: str, *, canonical: bool = False) -> Spool:
    """Return the message that pipe(8) writes to descriptor, in canonical form.

    canonical: it has that form already, as our own files have. Reads to the end, since
    a transport that closes its stdin early and exits with 0 counts as success. Raises
    SpoolFailed.
    """
    spool = Spool()
    try:
        pieces = _pieces(descriptor)
        for piece in pieces if canonical else wire.canonical(pieces):
            spool.add(piece, directory)
    except OSError as problem:
        raise _failed(spool, directory, problem) from problem
    return spool


def append(message: Spool, piece: bytes, directory: str) -> None:
    """Append a chunk that is in canonical form already. Raises SpoolFailed."""
    try:
        message.add(piece, directory)
    except OSError as problem:
        raise _failed(message, directory, problem) from problem


def unpacked(message: Spool, directory: str) -> Spool:
    """Return a capsule with its body decompressed; the same message if it is plain.

    Raises CapsuleBroken and SpoolFailed.
    """
    head = message.head()
    if not packing.is_packed(head):
        return message
    plain = Spool()
    try:
        rest = message.pieces(len(head))
        for piece in packing.unpacked(wire.chained((head,), rest)):
            plain.add(piece, directory)
    except CapsuleBroken:
        plain.close()
        raise
    except OSError as problem:
        raise SpoolFailed(
            f"cannot spool a capsule of {message.size} bytes: {problem};"
            f" check archive_spool_directory = {directory}"
        ) from problem
    message.close()
    return plain


def _failed(message: Spool, directory: str, problem: OSError) -> SpoolFailed:
    return SpoolFailed(
        f"cannot spool a message of at least {message.size} bytes: {problem};"
        f" check archive_spool_directory = {directory}"
    )


def _pieces(descriptor: int) -> Iterator[bytes]:
    while piece := os.read(descriptor, PIECE):
        yield piece


def _nameless_file(directory: str) -> int:
    """Open a file without a name: private, and removed when it is closed."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (OSError, AttributeError):  # a file system without O_TMPFILE
        name = f"{directory}/.postfix-archive-{os.getpid()}-{os.urandom(8).hex()}"
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        opened = os.open(name, flags, 0o600)
        os.unlink(name)
        return opened
