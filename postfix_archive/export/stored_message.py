"""One archived message as it is exported: read from its copy, and checked.

Used by export/run and export/replay. The bytes are compared with the journal's SHA-256
before the first of them is used: a damaged copy raises RecordDamaged, and nothing of it
is exported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from postfix_archive.errors import RecordDamaged
from postfix_archive.message import digest
from postfix_archive.message.envelope import Envelope, Recipient
from postfix_archive.store import copy_file, journal, journal_event
from postfix_archive.store.journal_event import Event
from postfix_archive.store.record import Record
from postfix_archive.system import spool
from postfix_archive.system.spool import Spool

# The name of a copy without ".eml.gz": the archive id, and the variant of a second
# original (store/archive).
STEM = re.compile(r"\d{8}-[0-9a-f]{40}(\.[0-9a-f]{12})?")


class StoredMessage:
    """One copy of a record. A record has a second one if its id has two originals.

    ``event`` is the journal's event about the copy, ``envelope`` that of its capture.
    """

    def __init__(self, record: Record, event: Event) -> None:
        self.record = record
        self.event = event
        is_first = event is record.events[0]
        self.envelope: Envelope = (
            record.envelope if is_first else journal_event.parse_envelope(event)
        )

    @property
    def stem(self) -> str:
        """The name of the copy without directory and suffix. Raises RecordDamaged."""
        name = self.event["file"].rpartition("/")[2]
        stem = name.removesuffix(copy_file.COPY_SUFFIX)
        if not STEM.fullmatch(stem) or self.event["id"] != stem[:49]:
            raise RecordDamaged(
                f"{self.event['id']}: the journal has no valid file name; run"
                " postfix-archive verify"
            )
        return stem

    @property
    def recipients(self) -> list[Recipient]:
        """The recipients of all passes of the record."""
        return [e for one in self.record.passes for e in one.recipients.values()]

    @property
    def key(self) -> str:
        """What tells this copy from all others of the store."""
        return f"{self.record.archive} {self.event['file']}"

    def is_moved(self, store_directory: str) -> bool:
        """Return whether the whole copy is in the object storage alone."""
        return copy_file.is_moved(self._path(store_directory))

    def read_original(self, store_directory: str, spool_directory: str) -> Spool:
        """Return the original, exactly as received; the caller closes it.

        Raises RecordDamaged if it is not what the journal says, StoreFailed and
        SpoolFailed.
        """
        path, name = self._path(store_directory), self.event["file"]
        chunks = copy_file.original(path, name, self.event["size"])
        return self._read(chunks, self.event["sha256"], spool_directory)

    def read_copy(self, store_directory: str, spool_directory: str) -> Spool:
        """Return the archive copy, as it is in the store; the caller closes it."""
        path = self._path(store_directory)
        file_sha256 = digest.sha256_of(copy_file.read_blocks(path)).hexdigest()
        if file_sha256 != self.event["file_sha256"]:
            raise self._damaged()
        return self._read(self._copy(store_directory), "", spool_directory)

    def _read(
        self, chunks: Iterator[bytes], sha256: str, spool_directory: str
    ) -> Spool:
        message = Spool()
        content_hash = digest.sha256()
        try:
            for chunk in chunks:
                content_hash.update(chunk)
                spool.append(message, chunk, spool_directory)
            if sha256 and content_hash.hexdigest() != sha256:
                raise self._damaged()
        except BaseException:
            message.close()
            raise
        return message

    def _copy(self, store_directory: str) -> Iterator[bytes]:
        limit = copy_file.copy_limit(self.event["size"])
        return copy_file.decompress(self._path(store_directory), limit)

    def _path(self, store_directory: str) -> str:
        return f"{store_directory}/{self.record.archive}/{self.event['file']}"

    def _damaged(self) -> RecordDamaged:
        return RecordDamaged(
            f"{self.record.archive}/{self.event['file']}: the copy is damaged: its"
            " SHA-256 is not that of the journal; restore it from a backup"
        )


def of_record(record: Record) -> Iterator[StoredMessage]:
    """Yield the copies of a record: one, or one for each original of its id."""
    for event in record.events:
        if event["event"] == journal.ARCHIVED and "envelope" in event:
            yield StoredMessage(record, event)
