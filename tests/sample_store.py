"""Stores for tests: archives with the messages that a test gives.

    store = sample_store.SampleStore(directory)
    store.add(b"Subject: hello\\r\\n\\r\\nhello\\r\\n")
    store.run("export", "--format", "eml", ...)

The store is that of an instance whose configuration directory is ``directory``.
"""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path

from click.testing import CliRunner, Result

from postfix_archive.cli import main
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.message import archive_copy, dates, envelope, smtp_data
from postfix_archive.message.envelope import Envelope, Recipient, Request
from postfix_archive.message.keyring import Key, Keyring
from postfix_archive.replicate import moved_copies
from postfix_archive.retention import notes
from postfix_archive.retention.rules import Decision
from postfix_archive.store import copy_file
from postfix_archive.store.archive import Archive
from postfix_archive.store.outcome import Outcome

LEGAL = "legal@example.com"
ARRIVAL = 1795348380  # 2026-11-22 11:53:00 UTC
KEYS = Keyring((Key("k2026", bytes(range(32))),))


class SampleStore:
    """A store in a directory, with archive.cf and a key beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "store"
        self.path.mkdir(parents=True, exist_ok=True)
        (directory / "fallback").mkdir(exist_ok=True)
        (directory / "archive.cf").write_text(
            f"archive_store_directory = {self.path}\n"
            f"archive_fallback_directory = {directory}/fallback\n"
            f"archive_index_directory = {directory}/index\n"
            f"archive_spool_directory = {directory}\n"
            f"archive_key_file = {directory}/archive.key\n"
        )
        (directory / "archive.key").write_text(f"k2026 {bytes(range(32)).hex()}\n")
        (directory / "archive.key").chmod(0o600)
        self._count = 0

    @property
    def settings(self) -> Settings:
        """The settings of the instance."""
        return archive_cf.load(str(self.directory))

    def run(self, *arguments: str | Path, exit_code: int = 0) -> Result:
        """Run a command; it ends with this exit code and never with a traceback."""
        words = ["-c", str(self.directory), *map(str, arguments)]
        result = CliRunner().invoke(main.main, words)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert result.exit_code == exit_code, result.output
        return result

    def add(
        self,
        original: bytes,
        *,
        sender: bytes = b"alice@example.org",
        recipients: tuple[bytes | tuple[bytes, bytes], ...] = (b"bob@example.net",),
        archive: str = LEGAL,
        arrival: int = ARRIVAL,
    ) -> str:
        """Archive a message; a recipient is (final, original) if it was mapped.

        Returns the archive id.
        """
        self._count += 1
        queue_id = b"4Z%010d" % self._count
        digits = hashlib.sha1(queue_id + original).hexdigest()
        archive_id = f"{dates.format_rfc3339(arrival)[:10].replace('-', '')}-{digits}"
        pairs = [e if isinstance(e, tuple) else (e, b"") for e in recipients]
        message_envelope = Envelope(
            archive_id=archive_id,
            host=b"mail.example.com",
            queue_id=queue_id,
            sender=sender,
            recipients=tuple(Recipient(*each) for each in pairs),
            requests=(Request(archive, "nexthop"),),
            arrival=arrival,
            sha256=hashlib.sha256(original).hexdigest(),
            size=len(original),
        )
        fields = envelope.serialise(message_envelope)
        capture = copy_file.Capture(
            record_id=archive_id,
            capsule_id=hashlib.sha256(fields).hexdigest(),
            envelope_fields=fields,
            sha256=message_envelope.sha256,
            size=len(original),
            verdict="absent",
        )
        properties = smtp_data.ContentProperties()
        properties.update(original)
        report = archive_copy.EnvelopeReport(
            message_envelope, archive, original, properties
        )
        boundary = archive_copy.make_boundary(archive_id, message_envelope.sha256, KEYS)
        copy = archive_copy.build(
            report, "hybrid", sender=b"archive@example.com", boundary=boundary
        )
        chunks = (copy.preamble, original, copy.trailer)
        self._archive(archive).store_copy(
            capture, chunks, dates.format_rfc3339(arrival)
        )
        return archive_id

    def move(self, archive_id: str) -> None:
        """Let a copy be in an object storage alone, which is not there."""
        path = self.copy_path(archive_id)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        content = moved_copies.header_file(str(path), sha256)
        path.chmod(0o600)
        path.write_bytes(content)
        path.chmod(0o400)

    def add_outcome(
        self, archive_id: str, outcome: Outcome, archive: str = LEGAL
    ) -> None:
        """Record an outcome."""
        time = dates.format_rfc3339(ARRIVAL)
        self._archive(archive).record_outcomes([(archive_id, outcome)], time)

    def note_retention(self, archive_id: str, archive: str = LEGAL) -> None:
        """Note that a record is due, as purge does before it removes one."""
        decision = Decision("archive_retention", "1d", datetime.date(2026, 11, 23))
        notes.append(self.settings, archive, {archive_id: decision}, by="timer")

    def copy_path(self, archive_id: str, archive: str = LEGAL) -> Path:
        """Return the file of a copy."""
        return self.path / archive / copy_file.copy_name(archive_id)

    def _archive(self, address: str) -> Archive:
        return Archive(str(self.path), address)
