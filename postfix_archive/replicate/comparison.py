"""Compares a bucket with one archive of the store: every line, every file, by content.

Used by cli.verify. Reads every object of the archive, and changes nothing. What the
store has and the bucket not, or otherwise, is an error; what the service has not
uploaded yet, and what the server must still keep after its removal from the store, is a
note. Raises ObjectStoreFailed, JournalFailed.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from postfix_archive.config.settings import Settings
from postfix_archive.errors import ObjectMissing
from postfix_archive.replicate import (
    journal_chunks,
    layout,
    remote_journal,
    replication_state,
    s3_client,
)
from postfix_archive.replicate.bucket import Bucket, format_day
from postfix_archive.replicate.remote_journal import ReadPart
from postfix_archive.replicate.replication_state import End
from postfix_archive.store import journal, journal_reader
from postfix_archive.store.journal_reader import Line
from postfix_archive.store.verifier import Finding


@dataclass
class Comparison:
    """What a comparison of an archive has found."""

    lines: int = 0
    files: int = 0
    findings: list[Finding] = field(default_factory=list)


def compare(bucket: Bucket, settings: Settings, archive: str) -> Comparison:
    """Compare an archive in the bucket with that of the store."""
    one = _Comparison(bucket, settings, archive)
    one.run()
    return one.result


class _Comparison:
    """The comparison of one archive."""

    def __init__(self, bucket: Bucket, settings: Settings, archive: str) -> None:
        self._bucket = bucket
        self._store = settings.archive_store_directory
        state = replication_state.read(settings)
        known = state.archives.get(archive) if state else None
        self._uploaded = known.ends if known else {}
        self._archive = archive
        self._removals: dict[str, float] = {}  # see layout.add_removals()
        self.result = Comparison()

    def run(self) -> None:
        """Compare the journals, and the files that they name."""
        ends = {
            name: journal_reader.end_offset(self._path(name))
            for name in layout.JOURNALS
        }
        path = self._path(journal.NAME)
        firsts = (
            (line.offset, line.content.partition(layout.TAB)[0])
            for line in journal_reader.lines(path)
        )
        layout.add_removals(self._removals, firsts)
        for name, end in ends.items():
            position = 0
            report = partial(self._report_gap, name)
            for read in remote_journal.read(self._bucket, self._archive, name, report):
                self._compare_part(read)
                position = read.part.end
            if position < self._uploaded.get(name, End()).position:
                self._report_gap(name, position)
            elif position < end:
                text = f"{end - position} bytes from byte {position} on not uploaded"
                self._note(self._path(name), text)
        for archive_id, offset in journal_chunks.removals(path).items():
            self._report_remains(archive_id, offset)

    def _compare_part(self, read: ReadPart) -> None:
        part, start = read.part, read.lines[0].offset
        lines = _lines(self._path(part.journal), start, part.end)
        self.result.lines += len(read.lines)
        chain, details = layout.split(lines)
        if not lines or [*layout.chained_lines(chain, start)] != read.lines:
            text = "the store and the bucket have other lines"
            self._error(f"{self._path(part.journal)}, from byte {start} on", text)
            return
        if not read.is_chained:
            self._error(part.key, "does not continue the chain of the lines before")
        named = {
            name: line
            for name, line in journal_chunks.files(lines).items()
            if not self._is_removed(journal_chunks.field(line, "id"), line.offset)
        }
        with ThreadPoolExecutor(s3_client.CONNECTIONS) as pool:
            compared = pool.map(lambda each: self._compare_file(*each), named.items())
            problems = pool.map(
                lambda each: self._compare_details(read, *each), details.items()
            )
            for problem in (*compared, *problems):
                if problem:
                    self.result.findings.append(problem)
        self.result.files += len(named)

    def _compare_file(self, name: str, line: Line) -> Finding | None:
        key = layout.file_key(self._archive, name)
        digest = hashlib.sha256()
        try:
            for chunk in self._bucket.chunks(key):
                digest.update(chunk)
        except ObjectMissing as error:
            return Finding(f"{self._store}/{key}", str(error))
        if digest.hexdigest() == journal_chunks.field(line, "file_sha256"):
            return None
        text = "the newest version of the object does not have the journal's SHA-256"
        return Finding(f"{self._store}/{key}", text)

    def _compare_details(
        self, read: ReadPart, owner: str, content: bytes
    ) -> Finding | None:
        texts = layout.parse_details(content)
        lines = [
            each
            for each in read.lines
            if each.offset in texts and not self._is_removed(owner, each.offset)
        ]
        if not lines:
            return None
        found = remote_journal.details(self._bucket, read.part, owner, lines)
        missing = [each.offset for each in lines if each.offset not in found]
        if not missing:
            return None
        place = f"{self._path(read.part.journal)}, byte {missing[0]}"
        return Finding(place, "the bucket does not have the details of this line")

    def _report_remains(self, archive_id: str, offset: int) -> None:
        """Note what the bucket still has of a record that the store has not."""
        prefix = layout.record_prefix(self._archive, archive_id)
        until = ""
        count = 0
        for version in self._bucket.versions(prefix):
            stored = self._bucket.stored(version.key, version.version_id)
            if stored and stored.offset < offset:
                count += 1
                until = max(until, format_day(stored.lock.until))
        if count:
            text = f"removed, and the bucket still has {count} objects of it"
            self._note(archive_id, text + (f", locked until {until}" if until else ""))

    def _is_removed(self, archive_id: str, offset: int) -> bool:
        """Return whether what a line says of a record is of one that was removed."""
        return offset < self._removals.get(archive_id, 0)

    def _report_gap(self, journal_name: str, position: int) -> None:
        """Report that the bucket has lost a part, once for each journal."""
        place = f"{self._path(journal_name)}, from byte {position} on"
        finding = Finding(place, "missing or damaged in the bucket")
        if finding not in self.result.findings:
            self.result.findings.append(finding)

    def _path(self, journal_name: str) -> str:
        return journal_reader.path_of(self._store, self._archive, journal_name)

    def _error(self, place: str, text: str) -> None:
        self.result.findings.append(Finding(place, text))

    def _note(self, place: str, text: str) -> None:
        self.result.findings.append(Finding(place, text, True))


def _lines(path: str, start: int, end: int) -> list[Line]:
    """Return the lines of a journal between two positions, as far as it has them."""
    if journal_reader.end_offset(path) < end:
        return []
    return list(journal_chunks.lines_between(path, start, end))
