"""Imports messages into an archive, by the store's own writer.

Used by ``postfix-archive import``. A message is imported once: by the SHA-256 of its
canonical bytes, whatever it is called. So an import that was interrupted is simply run
again. Nothing is locked between two messages; mail that is captured meanwhile does not
wait. As root everything below the store is written as its owner. Raises StoreFailed,
JournalFailed, KeyMissing and RecordNotFound.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from postfix_archive.config.settings import Settings
from postfix_archive.errors import SpoolFailed
from postfix_archive.mail_import import source_message, unwrap
from postfix_archive.mail_import.source_message import SourceMessage
from postfix_archive.mail_import.sources import Sources
from postfix_archive.message import (
    address,
    archive_copy,
    dates,
    digest,
    envelope,
    smtp_data,
    stamp,
)
from postfix_archive.message.envelope import Envelope, Request
from postfix_archive.message.keyring import Keyring
from postfix_archive.store import archive, copy_file, journal, journal_reader
from postfix_archive.system import privileges
from postfix_archive.system.key_set import KeySet

ID_DIGITS = 40  # of an archive id, after the day
ID_PURPOSE = b"imported "
SOURCE_LIMIT = 500  # bytes of a path in the envelope


@dataclass
class Result:
    """How many messages were imported, were there already, or could not be read."""

    imported: int = 0
    duplicates: int = 0
    failed: int = 0


class Import:
    """One import into one archive."""

    def __init__(
        self,
        settings: Settings,
        keys: Keyring,
        archive_address: str,
        report: Callable[[str], None],
        *,
        has_reports: bool = False,
    ) -> None:
        """has_reports: the sources have journal reports, see mail_import/unwrap."""
        self._settings = settings
        self._keys = keys
        self._archive = archive.of_settings(settings, archive_address)
        self._report = report
        self._has_reports = has_reports
        status = os.stat(settings.archive_store_directory)
        self._owner = status.st_uid, status.st_gid
        self._known = KeySet()
        self.result = Result()

    def run(
        self, paths: Iterable[Path], progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """Import all messages below these paths."""
        digest.select_implementation(digest.OPENSSL_THRESHOLD)
        self._read_known()
        sources = Sources(
            paths,
            self._settings.archive_spool_directory,
            report=self._fail,
            progress=progress,
            owner=self._owner,
        )
        try:
            for message in sources:
                self._import(message, sources)
        finally:
            sources.manifests.close()
            self._known.close()

    def _read_known(self) -> None:
        """Read from the journal what the archive has."""
        path = journal_reader.path_of(
            self._settings.archive_store_directory, self._archive.address
        )
        for line in journal_reader.lines(path):
            if line.kind == journal.ARCHIVED:
                event = journal_reader.valid_event(line)
                if event is not None and "sha256" in event:
                    self._known.add(event["sha256"])

    def _import(self, message: SourceMessage, sources: Sources) -> None:
        if message.is_cut:
            self._fail(
                f"{message.source}: the file ends in the middle of this message;"
                " imported as far as it goes"
            )
        directory = self._settings.archive_spool_directory
        try:
            unwrapped = unwrap.unwrap(
                message, directory, self._keys, has_reports=self._has_reports
            )
        except SpoolFailed:
            message.content.close()
            raise
        for each in unwrapped:
            try:
                self._store_once(each, sources)
            finally:
                each.content.close()

    def _store_once(self, message: SourceMessage, sources: Sources) -> None:
        if not message.content.size:
            self._fail(f"{message.source}: an empty message")
            return
        sha256 = message.content.digests([0])[0].hex()
        if sha256 in self._known:
            self.result.duplicates += 1
            return
        message = sources.manifests.complete(message, sha256)
        now = time.time()
        source_message.complete_envelope(message, now)
        self._store(message, sha256, now)
        self._known.add(sha256)
        self.result.imported += 1

    def _store(self, message: SourceMessage, sha256: str, now: float) -> None:
        content = message.content
        head = content.head()
        sealed_envelope = self._envelope(
            message, sha256, source_message.day_of(head, now)
        )
        fields = envelope.serialise(sealed_envelope)
        capture = copy_file.Capture(
            record_id=sealed_envelope.archive_id,
            capsule_id=digest.sha256_hex(fields),
            envelope_fields=fields,
            sha256=sha256,
            size=content.size,
            verdict=stamp.ABSENT,
        )
        report = archive_copy.EnvelopeReport(
            sealed_envelope, self._archive.address, head, content.shape()
        )
        report.extra_fields += [
            (b"Archive-Capsule", capture.capsule_id.encode()),
            (b"Archive-Record-Id", capture.record_id.encode()),
        ]
        boundary = archive_copy.make_boundary(capture.record_id, sha256, self._keys)
        copy = archive_copy.build(
            report, "hybrid", sender=self._settings.archive_from, boundary=boundary
        )
        chunks = smtp_data.chain((copy.preamble,), content.chunks(), (copy.trailer,))
        with privileges.as_ids(*self._owner):
            self._archive.store_copy(capture, chunks, dates.format_rfc3339(now))

    def _envelope(self, message: SourceMessage, sha256: str, day: str) -> Envelope:
        name = digest.sha256_hex(ID_PURPOSE + sha256.encode())[:ID_DIGITS]
        source = os.fsencode(message.source)[-SOURCE_LIMIT:]
        imported = f"{message.how}; ".encode() + source
        imported += b"; cut short" if message.is_cut else b""
        return Envelope(
            archive_id=f"{day}-{name}",
            host=self._settings.myhostname,
            queue_id=message.queue_id,
            sender=message.sender or b"",
            recipients=message.recipients,
            requests=(Request(self._archive.address, "import"),),
            client=message.client,
            arrival=message.arrival,
            sha256=sha256,
            size=message.content.size,
            imported=address.escape_controls(imported),
        )

    def _fail(self, problem: str) -> None:
        self.result.failed += 1
        self._report(problem)
