"""A message as one user of the web page may see it.

Made by archives alone, which has recorded the access. What a user may not see
is in nothing that leaves this module. Raises AccessRefused, RecordDamaged, StoreFailed
and SpoolFailed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cached_property

from postfix_archive.config.settings import Settings
from postfix_archive.errors import AccessRefused, RecordDamaged
from postfix_archive.export import redaction
from postfix_archive.export.redaction import Redaction
from postfix_archive.export.stored_message import StoredMessage, of_record
from postfix_archive.store import record_reader
from postfix_archive.store.record import Pass, Record
from postfix_archive.system.spool import Spool
from postfix_archive.web.user import User


class VisibleMessage:
    """One message as a user may see it.

    ``is_whole`` is true for who may see all of it: the envelope, the archive copy, the
    outcomes. Otherwise blind recipients are left out of everything, and the original is
    without the header fields that name them. ``record`` is for who may see all of it.
    """

    def __init__(
        self,
        settings: Settings,
        user: User,
        record: Record,
        offsets: Sequence[int] = (),
    ) -> None:
        """offsets are those of the record's lines in the journal."""
        self.settings = settings
        self.offsets = offsets
        self._user = user
        self._record = record
        self.size = int(record.events[0]["size"])  # bytes, as received: not to be shown
        self.archive = record.archive
        self.archive_id = record.archive_id
        self.is_whole = user.may_read_all(record.archive)

    @property
    def record(self) -> Record:
        """The record. Raises AccessRefused for who may not see all of it."""
        if not self.is_whole:
            raise AccessRefused("only auditors see the whole envelope")
        return self._record

    @cached_property
    def stored(self) -> StoredMessage:
        """The first copy of the message. Raises RecordDamaged if there is none."""
        for each in of_record(self._record):
            return each
        raise RecordDamaged(f"{self.archive_id}: the journal names no copy")

    @property
    def is_moved(self) -> bool:
        """True if all but the header is in the object storage alone: slow to read."""
        return self.stored.is_moved(self._directories[0])

    @cached_property
    def original(self) -> bytes:
        """The original; see original_chunks()."""
        return b"".join(self.original_chunks())

    def original_chunks(self) -> Iterator[bytes]:
        """Yield the original as this user may see it.

        All of it is compared with its SHA-256 before. Raises RecordDamaged, StoreFailed
        and SpoolFailed.
        """
        with closing(self.stored.read_original(*self._directories)) as content:
            if self.is_whole:
                yield from content.chunks()
                return
            hidden = redaction.others(self.stored.recipients, self._user.addresses)
            yield from Redaction(content, hidden).content(content)

    def head(self) -> bytes:
        """Return the header as this user may see it; needs no object storage.

        Its SHA-256 is not compared. Raises as original_chunks().
        """
        store, spool_directory = self._directories
        with closing(Spool()) as head:
            head.add(record_reader.original_head(store, self._record), spool_directory)
            if self.is_whole:
                return b"".join(head.chunks())
            hidden = redaction.others(self.stored.recipients, self._user.addresses)
            return b"".join(Redaction(head, hidden).content(head))

    def copy_chunks(self) -> Iterator[bytes]:
        """Yield the archive copy, compared likewise; for who may see all of it."""
        stored = StoredMessage(self.record, self.stored.event)
        with closing(stored.read_copy(*self._directories)) as content:
            yield from content.chunks()

    def report_chunks(self) -> Iterator[bytes]:
        """Yield the latest outcome report; for who may see all of it.

        Raises RecordNotFound if there is none.
        """
        yield from record_reader.outcome_report(self._directories[0], self.record)

    def named_recipients(self) -> set[tuple[bytes, bytes]]:
        """Return (final, original) of those recipients that To: or Cc: names.

        For who may see all of it. Raises RecordDamaged, also for a header that is too
        long to tell.
        """
        store, spool_directory = self._directories
        with closing(Spool()) as head:
            head.add(record_reader.original_head(store, self.record), spool_directory)
            return {*Redaction(head, self.stored.recipients).recipients}

    @property
    def _directories(self) -> tuple[str, str]:
        settings = self.settings
        return settings.archive_store_directory, settings.archive_spool_directory

    @property
    def passes(self) -> list[Pass]:
        """The passes of the message, for who may see all of it."""
        return self.record.passes
