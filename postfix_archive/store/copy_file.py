"""One file of the store: write it compressed, read it, parse its envelope fields.

Used by archive, reader and outcomes/report_queue. Raises StoreFailed for errors of the
operating system and RecordDamaged for a damaged file.
"""

from __future__ import annotations

import posix as os
import zlib
from itertools import chain

from postfix_archive.errors import (
    CapsuleBroken,
    CopyUnreachable,
    RecordDamaged,
    StoreFailed,
)
from postfix_archive.message import archive_copy, digest, envelope
from postfix_archive.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

GZIP_WBITS = 31  # wbits of zlib: gzip format (RFC 1952), without file name and time
GZIP_MEM_LEVEL = 7  # memLevel of zlib; 8 doubles the time for small mail, same size
BLOCK_SIZE = 1 << 16  # bytes
PREAMBLE_LIMIT = 16 << 20  # bytes before the original: 20,000 recipients, twice
TRAILER_LIMIT = 1 << 10  # bytes after the original
REPORT_LIMIT = 256 << 20  # bytes of an outcome report: 100,000 recipients
# Of a copy that is in the object storage alone (archive_local_days) the content up to
# the end of the original's header stays: gzip with a comment (RFC 1952), which ends
# with the SHA-256 of the whole file.
MOVED_START = (
    b"\x1f\x8b\x08\x10\0\0\0\0\0\xff"
    b"the whole copy is in the object storage, SHA-256 "
)


class Capture:
    """What the store keeps of one capture of a message, besides the copy itself.

    ``capsule_id`` is the SHA-256 that names the capsule, ``envelope_fields`` are the
    sealed envelope lines, ``sha256`` and ``size`` describe the stored original,
    ``lines_above`` are the header lines above a valid stamp, ``verdict`` is the verdict
    on the stamp.
    """

    __slots__ = (
        "lines_above",
        "sha256",
        "envelope_fields",
        "capsule_id",
        "record_id",
        "size",
        "verdict",
    )

    def __init__(
        self,
        *,
        record_id: str,
        capsule_id: str,
        envelope_fields: bytes,
        sha256: str,
        size: int,
        verdict: str,
        lines_above: bytes = b"",
    ) -> None:
        self.record_id = record_id
        self.capsule_id = capsule_id
        self.envelope_fields = envelope_fields
        self.sha256 = sha256
        self.size = size
        self.verdict = verdict
        self.lines_above = lines_above


def write_compressed(draft: files.Draft, content: Iterable[bytes]) -> str:
    """Write content as gzip, durably; return the SHA-256 of the compressed file."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, GZIP_WBITS, GZIP_MEM_LEVEL)
    file_sha256 = digest.sha256()
    for chunk in content:
        compressed = compressor.compress(chunk)
        if compressed:
            file_sha256.update(compressed)
            draft.write(compressed)
    compressed = compressor.flush()
    file_sha256.update(compressed)
    draft.write(compressed)
    draft.sync()
    return file_sha256.hexdigest()


def is_committed(path: str) -> bool:
    """Return whether the mode says that the journal has the line of this file."""
    try:
        return not os.lstat(path).st_mode & 0o200
    except OSError as error:
        raise files.store_error(path, error) from error


def mark_committed(path: str, draft: str = "") -> None:
    """Set the mode that says: the journal has the line of this file.

    Or set it of the draft that is about to take the place of path.
    """
    try:
        directory = files.parent_directory(path)
        os.chmod(draft or path, files.shared_mode(directory, files.STORED_FILE_MODE))
    except OSError as error:
        raise files.store_error(path, error) from error


def mark_removable(paths: Iterable[str]) -> None:
    """Set the mode that says: look into the journal whether this file was removed.

    Durably, so before the line that removes it. Files that are missing are skipped.
    """
    present = [each for each in paths if files.exists(each)]
    for action in (_make_writable, os.fsync):  # the first fsync is of most of them
        for path in present:
            try:
                descriptor = files.open_regular(path)
                try:
                    action(descriptor)
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise files.store_error(path, error) from error


def _make_writable(descriptor: int) -> None:
    os.fchmod(descriptor, os.fstat(descriptor).st_mode & 0o777 | 0o200)


def unlink(path: str) -> None:
    """Delete a file, not durably; a missing one is no error."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise files.store_error(path, error) from error


def copy_limit(original_size: int) -> int:
    """Return the largest size of a copy in bytes, given that of the original."""
    return PREAMBLE_LIMIT + original_size + TRAILER_LIMIT


def decompress(path: str, limit: int) -> Iterator[bytes]:
    """Yield the uncompressed copy, at most limit bytes of it.

    Of a copy that was moved first what is here, which is compared once the rest is read
    from the object storage. Raises StoreFailed, and RecordDamaged, also for a file that
    is larger than limit: a small file of zeros can decompress to gigabytes.
    """
    blocks = local_blocks(path)
    first = next(blocks, b"")
    sha256 = _moved_sha256(first)
    head = bytearray()
    for chunk in _decompress(path, chain((first,), blocks), limit):
        yield chunk
        if sha256:
            head += chunk
    if not sha256:
        return
    for chunk in _decompress(path, fetch_moved(path, sha256), limit):
        start = len(head[: len(chunk)])
        if head[:start] != chunk[:start]:
            break
        del head[:start]
        yield chunk[start:]
    if head:
        raise RecordDamaged(f"{path}: its beginning is not that of the whole copy")


def _decompress(path: str, blocks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    decompressor = zlib.decompressobj(GZIP_WBITS)
    try:
        for block in blocks:
            while block:
                chunk = decompressor.decompress(block, BLOCK_SIZE)
                limit -= len(chunk)
                if limit < 0:
                    raise RecordDamaged(f"{path}: decompresses to more than its record")
                yield chunk
                block = decompressor.unconsumed_tail
            if decompressor.eof:
                break  # zlib would collect trailing data in memory; verify reports it
        yield decompressor.flush()
    except zlib.error as error:
        raise RecordDamaged(f"{path}: {error}; run gzip -t on it") from error
    if not decompressor.eof:
        raise RecordDamaged(f"{path}: truncated gzip file; run gzip -t on it")


def original(path: str, name: str, size: int) -> Iterator[bytes]:
    """Yield the original in a copy, size bytes; name is the copy's in messages.

    Raises StoreFailed and RecordDamaged.
    """
    chunks = decompress(path, copy_limit(size))
    head, start = read_head(chunks)
    if start < 0:
        raise RecordDamaged(
            f"{name}: no original in this file; restore it from a backup"
        )
    for chunk in chain((head[start:],), chunks):
        yield chunk[:size]
        size -= len(chunk[:size])
        if not size:
            return
    if size:
        raise RecordDamaged(
            f"{name}: the original is truncated; restore it from a backup"
        )


def read_head(chunks: Iterator[bytes]) -> tuple[bytes, int]:
    """Return the first bytes of a copy and the original's offset in them, or -1.

    Reads no more chunks than necessary and gives up after PREAMBLE_LIMIT. Searches
    again only when the size has doubled: the time stays linear for a long preamble.
    """
    buffered: list[bytes] = []
    size = next_search_size = 0
    for chunk in chunks:
        buffered.append(chunk)
        size += len(chunk)
        if size < next_search_size:
            continue
        buffered = [b"".join(buffered)]
        start = archive_copy.original_offset(buffered[0])
        if start >= 0 or size > PREAMBLE_LIMIT:
            return buffered[0], start
        next_search_size = 2 * size
    head = b"".join(buffered)
    return head, archive_copy.original_offset(head)


def read_capture(path: str, archive: str) -> Capture:
    """Return the capture that a stored copy describes, with this archive's verdict.

    Raises StoreFailed, not RecordDamaged, for a damaged copy: the caller delivers mail
    and has to defer.
    """
    try:
        return _parse_capture(path, archive)
    except (RecordDamaged, CapsuleBroken, ValueError) as error:
        raise StoreFailed(
            f"{path} is damaged: {error}; restore it from a backup"
        ) from error


def read_coverage(path: str) -> str:
    """Return the ``covers`` value of a stored outcome report. Raises StoreFailed."""
    try:
        status_part = archive_copy.envelope_fields(
            b"".join(decompress(path, REPORT_LIMIT))
        )
    except RecordDamaged as error:
        raise StoreFailed(str(error)) from error
    lines = [each.partition(b": ") for each in status_part.split(b"\r\n")]
    values = {name: value for name, _, value in reversed(lines)}
    return values.get(archive_copy.OUTCOMES_FIELD, b"").decode("ascii", "replace")


def _parse_capture(path: str, archive: str) -> Capture:
    head, _ = read_head(decompress(path, copy_limit(0)))
    status_part = archive_copy.envelope_fields(head)
    parsed_envelope = envelope.parse(status_part)
    values = dict(
        line.split(b": ", 1) for line in status_part.split(b"\r\n") if b": " in line
    )
    altered_sha256 = values.get(b"Archive-Altered-SHA256", b"").decode(
        "ascii", "replace"
    )
    size = int(values.get(b"Archive-Altered-Size", parsed_envelope.size))
    verdicts = {each.address: each.verdict for each in parsed_envelope.requests}
    return Capture(
        record_id=values.get(b"Archive-Record-Id", b"").decode("ascii", "replace"),
        capsule_id=values.get(b"Archive-Capsule", b"").decode("ascii", "replace"),
        envelope_fields=envelope.serialise(parsed_envelope),
        sha256=altered_sha256 or parsed_envelope.sha256,
        size=size,
        verdict=verdicts.get(archive, ""),
    )


def read_blocks(path: str) -> Iterator[bytes]:
    """Yield the compressed bytes of a file of the store, wherever they are.

    Raises StoreFailed.
    """
    blocks = local_blocks(path)
    first = next(blocks, b"")
    sha256 = _moved_sha256(first)
    if sha256:
        yield from fetch_moved(path, sha256)
        return
    yield first
    yield from blocks


def is_moved(path: str) -> bool:
    """Return whether the whole copy is in the object storage alone."""
    return bool(moved_sha256(path))


def moved_sha256(path: str) -> str:
    """Return the SHA-256 of a copy in the object storage alone, "" of any other."""
    return _moved_sha256(next(local_blocks(path), b""))


def _moved_sha256(start: bytes) -> str:
    """Return the SHA-256 in the comment of a file that was moved, else ""."""
    if not start.startswith(MOVED_START):
        return ""
    return start[len(MOVED_START) :].partition(b"\0")[0].decode("ascii", "replace")


def _refuse(path: str, sha256: str) -> Iterator[bytes]:
    raise CopyUnreachable(
        f"{path}: the whole copy is in the object storage, which is not read here"
    )


# Returns the compressed bytes of a copy that was moved, given its path and SHA-256. The
# commands set it; capture needs no more than what is here. Raises StoreFailed, and
# CopyUnreachable where it may be read later.
fetch_moved: Callable[[str, str], Iterator[bytes]] = _refuse


def local_blocks(path: str) -> Iterator[bytes]:
    """Yield the compressed bytes of a file as they are here. Raises StoreFailed."""
    try:
        with open(files.open_regular(path), "rb") as file:
            while block := file.read(BLOCK_SIZE):
                yield block
    except OSError as error:
        raise files.store_error(path, error) from error


COPY_SUFFIX = ".eml.gz"
REPORT = "outcome"  # in the name of an outcome report


def copy_name(record_id: str, variant: str = "") -> str:
    """Return the name of a copy, relative to the archive's directory."""
    day = record_id[:8]
    name = f"{record_id}.{variant}" if variant else record_id
    return f"{day[:4]}/{day[4:6]}/{day[6:]}/{name}{COPY_SUFFIX}"


def report_name(record_id: str, number: int) -> str:
    """Return the name of a record's outcome report; number starts at 1."""
    return copy_name(record_id, REPORT if number == 1 else f"{REPORT}-{number}")
