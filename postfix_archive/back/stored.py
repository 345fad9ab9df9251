"""One file of the store: write it compressed, read it, parse its envelope fields.

Used by archive, reader and outcomes/report_queue. Raises StoreFailed for errors of the
operating system and RecordDamaged for a damaged file.
"""

from __future__ import annotations

import posix as os
import zlib

from postfix_archive.back import files
from postfix_archive.core import digest, envelope, report
from postfix_archive.core.errors import CapsuleBroken, RecordDamaged, StoreFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

GZIP = 31  # wbits of zlib: gzip format (RFC 1952), without file name and time
MEMORY = 7  # memLevel of zlib; 8 doubles the time for small mail, same size
BLOCK = 1 << 16  # bytes
PREAMBLE_LIMIT = 16 << 20  # bytes before the original: 20,000 recipients, twice


class Piece:
    """What the store keeps of one capture of a message, besides the copy itself.

    ``capsule_id`` is the SHA-256 that names the capsule, ``envelope_fields`` are the
    sealed envelope lines, ``sha256`` and ``size`` describe the stored original,
    ``lines_above`` are the header lines above a valid stamp, ``verdict`` is the verdict
    on the stamp.
    """

    __slots__ = ("above", "digest", "fields", "key", "record_id", "size", "verdict")

    def __init__(
        self,
        *,
        record_id: str,
        key: str,
        fields: bytes,
        digest_: str,
        size: int,
        verdict: str,
        above: bytes = b"",
    ) -> None:
        self.record_id = record_id
        self.key = key
        self.fields = fields
        self.digest = digest_
        self.size = size
        self.verdict = verdict
        self.above = above


def packed_into(draft: files.Draft, content: Iterable[bytes]) -> str:
    """Write content as gzip, durably; return the SHA-256 of the compressed file."""
    packer = zlib.compressobj(6, zlib.DEFLATED, GZIP, MEMORY)
    total = digest.sha256()
    for piece in content:
        packed = packer.compress(piece)
        if packed:
            total.update(packed)
            draft.write(packed)
    packed = packer.flush()
    total.update(packed)
    draft.write(packed)
    draft.sync()
    return total.hexdigest()


def commit(path: str) -> None:
    """Set the mode that says: the journal has the line of this file."""
    try:
        os.chmod(path, files.KEPT_MODE)
    except OSError as problem:
        raise files.failed(path, problem) from problem


def unpacked(path: str) -> Iterator[bytes]:
    """Yield the uncompressed copy. Raises RecordDamaged and StoreFailed."""
    unpacker = zlib.decompressobj(GZIP)
    try:
        for block in blocks(path):
            while block:
                yield unpacker.decompress(block, BLOCK)
                block = unpacker.unconsumed_tail
            if unpacker.eof:
                break  # zlib would collect trailing data in memory; verify reports it
        yield unpacker.flush()
    except zlib.error as problem:
        raise RecordDamaged(f"{path}: {problem}; run gzip -t on it") from problem
    if not unpacker.eof:
        raise RecordDamaged(f"{path}: truncated gzip file; run gzip -t on it")


def begun(pieces: Iterator[bytes]) -> tuple[bytes, int]:
    """Return the first bytes of a copy and the original's offset in them, or -1.

    Reads no more chunks than necessary and gives up after PREAMBLE_LIMIT. Searches
    again only when the size has doubled: the time stays linear for a long preamble.
    """
    held: list[bytes] = []
    size = enough = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size < enough:
            continue
        held = [b"".join(held)]
        start = report.original_start(held[0])
        if start >= 0 or size > PREAMBLE_LIMIT:
            return held[0], start
        enough = 2 * size
    head = b"".join(held)
    return head, report.original_start(head)


def recovered(path: str, address: str) -> Piece:
    """Return the capture that a stored copy describes, with this archive's verdict.

    Raises StoreFailed, not RecordDamaged, for a damaged copy: the caller delivers mail
    and has to defer.
    """
    try:
        return _read_back(path, address)
    except (RecordDamaged, CapsuleBroken, ValueError) as problem:
        raise StoreFailed(
            f"{path} is damaged: {problem}; restore it from a backup"
        ) from problem


def covered(path: str) -> str:
    """Return the ``covers`` value of a stored outcome report. Raises StoreFailed."""
    try:
        fields = report.status_part(b"".join(unpacked(path)))
    except RecordDamaged as problem:
        raise StoreFailed(str(problem)) from problem
    lines = [each.partition(b": ") for each in fields.split(b"\r\n")]
    known = {name: value for name, _, value in reversed(lines)}
    return known.get(report.COVERS, b"").decode("ascii", "replace")


def _read_back(path: str, address: str) -> Piece:
    head, _ = begun(unpacked(path))
    fields = report.status_part(head)
    sealed = envelope.parse(fields)
    known = dict(
        line.split(b": ", 1) for line in fields.split(b"\r\n") if b": " in line
    )
    altered = known.get(b"Archive-Altered-SHA256", b"").decode("ascii", "replace")
    size = int(known.get(b"Archive-Altered-Size", sealed.size))
    verdicts = {each.address: each.verdict for each in sealed.requests}
    return Piece(
        record_id=known.get(b"Archive-Record-Id", b"").decode("ascii", "replace"),
        key=known.get(b"Archive-Capsule", b"").decode("ascii", "replace"),
        fields=envelope.serialise(sealed),
        digest_=altered or sealed.digest,
        size=size,
        verdict=verdicts.get(address, ""),
    )


def blocks(path: str) -> Iterator[bytes]:
    """Yield the compressed bytes of a file of the store. Raises StoreFailed."""
    try:
        with open(files.opened(path), "rb") as opened:
            while block := opened.read(BLOCK):
                yield block
    except OSError as problem:
        raise files.failed(path, problem) from problem
