"""The store: archive copies as files, and what happened to them in the journal.

Used by front/archive_transport (writes) and the commands (read). One folder an archive:

    <store>/<archive address>/YYYY/MM/DD/<archive id>.eml.gz      mode 0400: committed
    <store>/<archive address>/journal

A copy is kept when its file and its line in the journal are both on the disk. Twice is
harmless: the second time finds both. Nothing here can remove an archived message.
docs/store-format.md is the public page of this format.
"""

from __future__ import annotations

import os
import zlib

from postfix_archive.back import files, journal
from postfix_archive.core import digest, envelope, report, stamp, trace
from postfix_archive.core.errors import CapsuleBroken, RecordDamaged, StoreFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DRAFTS = "drafts"
UNDATED = "undated"
SUFFIX = ".eml.gz"
GZIP = 31  # zlib's wbits for a gzip file (RFC 1952) without name and time
BLOCK = 1 << 16
PREAMBLE_LIMIT = 16 << 20  # bytes before the original: two addresses, 20,000 times

ARCHIVED, SUPPLEMENT, MAILED = "archived", "supplement", "mailed"


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


class Archive:
    """One archive of the store."""

    __slots__ = ("address", "folder")

    def __init__(self, store: str, address: str) -> None:
        self.address = address
        self.folder = f"{store}/{address}"

    def has(self, record_id: str) -> bool:
        """Tell whether there is a file of that id."""
        return os.path.exists(self.path(place(record_id)))

    def path(self, name: str) -> str:
        """Return the full path of a file named as in the journal."""
        return f"{self.folder}/{name}"

    def keep(self, piece: Piece, content: Iterable[bytes], time: str) -> set[str]:
        """Keep a copy whose bytes are content, or add the piece to the one there is.

        Returns the kinds of events that the journal now has of this capsule. Durable
        on return. Raises StoreFailed and JournalFailed.
        """
        files.make_folder(f"{self.folder}/{DRAFTS}")
        draft = files.Draft(f"{self.folder}/{DRAFTS}")
        try:
            packed = _compress_into(draft, content)
            with journal.Journal(self.folder) as events:
                name = self._name_for(piece, events, time)
                if not os.path.exists(self.path(name)):
                    self._publish(draft, piece, name, packed, events, time)
                    return {ARCHIVED}
                return _merge(events, piece, time)
        finally:
            draft.discard()

    def supplement(self, piece: Piece, time: str) -> set[str]:
        """Add a later pass of a message that the store has to its record, durably.

        Returns the kinds of events that the journal now has of this capsule.
        """
        with journal.Journal(self.folder) as events:
            self._name_for(piece, events, time)
            return _merge(events, piece, time)

    def mailed(self, piece: Piece, time: str, queue_ids: str) -> None:
        """Record that the copy left as mail, under these queue ids."""
        with journal.Journal(self.folder) as events:
            events.append(
                MAILED, time, id=piece.record_id, capsule=piece.key, queued_as=queue_ids
            )

    def _publish(
        self,
        draft: files.Draft,
        piece: Piece,
        name: str,
        packed: str,
        events: journal.Journal,
        time: str,
    ) -> None:
        path = self.path(name)
        files.make_folder(os.path.dirname(path))
        draft.publish(path)
        _append(events, ARCHIVED, piece, time, file=name, file_sha256=packed)
        _commit(path)

    def _name_for(self, piece: Piece, events: journal.Journal, time: str) -> str:
        """Return the name of the file for this original.

        A second original under the same id (a stamped message came back before its
        first capsule got here) stands beside the first under a name of its own.
        """
        name = place(piece.record_id)
        if os.path.exists(self.path(name)):
            self._settle(name, events, time)
            if piece.verdict != stamp.VALID and self._original(name) != piece.digest:
                name = place(piece.record_id, piece.digest[:12])
                if os.path.exists(self.path(name)):
                    self._settle(name, events, time)
        return name

    def _settle(self, name: str, events: journal.Journal, time: str) -> None:
        """Give a file that a crash left without its journal line that line."""
        path = self.path(name)
        if not os.stat(path).st_mode & 0o200:
            return
        if not events.has_file(name):
            piece = recovered(path, self.address)
            packed = digest.of(_blocks(path)).hexdigest()
            _append(events, ARCHIVED, piece, time, file=name, file_sha256=packed)
        _commit(path)

    def _original(self, name: str) -> str:
        return recovered(self.path(name), self.address).digest


def place(record_id: str, variant: str = "") -> str:
    """Return the name of a record's file within its archive."""
    day = record_id[:8]
    name = f"{record_id}.{variant}" if variant else record_id
    if day == trace.UNDATED:
        return f"{UNDATED}/{name}{SUFFIX}"
    return f"{day[:4]}/{day[4:6]}/{day[6:]}/{name}{SUFFIX}"


def unpacked(path: str) -> Iterator[bytes]:
    """Give the copy in a file of the store; raises RecordDamaged, StoreFailed."""
    unpacker = zlib.decompressobj(GZIP)
    try:
        for block in _blocks(path):
            while block:
                yield unpacker.decompress(block, BLOCK)
                block = unpacker.unconsumed_tail
        yield unpacker.flush()
    except zlib.error as problem:
        raise RecordDamaged(f"{path}: {problem}; run gzip -t on it") from problem
    if not unpacker.eof:
        raise RecordDamaged(f"{path}: its end is cut off; run gzip -t on it")


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


def _read_back(path: str, address: str) -> Piece:
    head = b""
    for block in unpacked(path):
        head += block
        if report.original_start(head) >= 0 or len(head) > PREAMBLE_LIMIT:
            break
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


def _merge(events: journal.Journal, piece: Piece, time: str) -> set[str]:
    """Add a piece to the record there is, unless this very capsule has been here."""
    seen = events.recent(piece.key)
    if seen & {ARCHIVED, SUPPLEMENT}:
        return seen
    _append(events, SUPPLEMENT, piece, time)
    return {SUPPLEMENT}


def _append(
    events: journal.Journal, event: str, piece: Piece, time: str, **more: str
) -> None:
    words: dict[str, str | int] = {"id": piece.record_id, "capsule": piece.key}
    words.update(more)
    words["sha256"] = piece.digest
    words["size"] = piece.size
    words["stamp"] = piece.verdict
    words["envelope"] = _text(piece.fields)
    if piece.above:
        words["above"] = _text(piece.above)
    events.append(event, time, **words)


def _text(content: bytes) -> str:
    """Bytes as JSON text; those that are no UTF-8 become lone surrogates and back."""
    return content.decode("utf-8", "surrogateescape")


def _compress_into(draft: files.Draft, content: Iterable[bytes]) -> str:
    """Write content as gzip, durably; return the SHA-256 of the file."""
    packer = zlib.compressobj(6, zlib.DEFLATED, GZIP)
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


def _blocks(path: str) -> Iterator[bytes]:
    """Give the bytes of a file of the store, as they are on the disk."""
    try:
        with open(path, "rb") as opened:
            while block := opened.read(BLOCK):
                yield block
    except OSError as problem:
        raise files.failed(path, problem) from problem


def _commit(path: str) -> None:
    """Say with the file's mode that its line stands in the journal."""
    try:
        os.chmod(path, files.KEPT_MODE)
    except OSError as problem:
        raise files.failed(path, problem) from problem
