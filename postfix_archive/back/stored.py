"""A copy as the store keeps it: what belongs to it, its file, and reading it back.

Used by store, settling and reading. Foreign errors leave as StoreFailed, damage as
RecordDamaged.
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

GZIP = 31  # zlib's wbits for a gzip file (RFC 1952) without name and time
MEMORY = 7  # zlib's memLevel: with 8, small mail takes twice as long, to save nothing
BLOCK = 1 << 16
PREAMBLE_LIMIT = 16 << 20  # bytes before the original: two addresses, 20,000 times


class Piece:
    """One capture, or a piece or later pass of one, as the store is to keep it.

    ``key`` names the capsule that brought it, ``fields`` are the sealed envelope lines,
    ``digest`` and ``size`` are those of the original that is kept, ``above`` the lines
    that stood above a valid stamp and ``verdict`` what its stamp said.
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
    """Write content as gzip, durably; return the SHA-256 of the file."""
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
    """Say with a file's mode that its line stands in the journal."""
    try:
        os.chmod(path, files.KEPT_MODE)
    except OSError as problem:
        raise files.failed(path, problem) from problem


def unpacked(path: str) -> Iterator[bytes]:
    """Give the copy in a file of the store; raises RecordDamaged, StoreFailed."""
    unpacker = zlib.decompressobj(GZIP)
    try:
        for block in blocks(path):
            while block:
                yield unpacker.decompress(block, BLOCK)
                block = unpacker.unconsumed_tail
            if unpacker.eof:
                break  # zlib would collect what stands behind; verify names it
        yield unpacker.flush()
    except zlib.error as problem:
        raise RecordDamaged(f"{path}: {problem}; run gzip -t on it") from problem
    if not unpacker.eof:
        raise RecordDamaged(f"{path}: its end is cut off; run gzip -t on it")


def begun(pieces: Iterator[bytes]) -> tuple[bytes, int]:
    """Return the first bytes of a copy, and where in them the original begins, or -1.

    Takes no more pieces than it needs, and gives up after PREAMBLE_LIMIT. It looks
    again only when there is twice as much, so that a long preamble takes no long time.
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
    """Return what a copy that is stored in an archive of this address says of itself.

    Raises StoreFailed for a damaged one: it is asked for while mail is in flight.
    """
    try:
        return _read_back(path, address)
    except (RecordDamaged, CapsuleBroken, ValueError) as problem:
        raise StoreFailed(
            f"{path} is damaged: {problem}; restore it from a backup"
        ) from problem


def covered(path: str) -> str:
    """Return what an outcome report in the store covers; raises StoreFailed."""
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
    """Give the bytes of a file of the store, as they are on the disk."""
    try:
        with open(files.opened(path), "rb") as opened:
            while block := opened.read(BLOCK):
                yield block
    except OSError as problem:
        raise files.failed(path, problem) from problem
