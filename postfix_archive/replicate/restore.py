"""Rebuilds an archive of the store from a bucket alone.

Used by cli.restore. Copies and reports are checked against the journal, and the journal
against its chain; of several versions of an object the right one is taken. What the
journal says was removed is not restored. Files that are there already are kept, and the
journals get their names last: it can be killed and run again. Raises RestoreFailed and
ObjectStoreFailed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from postfix_archive.errors import ObjectMissing, RestoreFailed
from postfix_archive.replicate import (
    journal_chunks,
    layout,
    remote_journal,
    s3_client,
)
from postfix_archive.replicate.bucket import Bucket
from postfix_archive.replicate.layout import ChainedLine
from postfix_archive.replicate.remote_journal import ReadPart
from postfix_archive.store import archive as store_archive
from postfix_archive.store import (
    copy_file,
    journal,
    journal_event,
    journal_format,
    journal_reader,
)
from postfix_archive.system import files
from postfix_archive.system.draft import Draft

Progress = Callable[[int], None]  # gets how many more files are there
DRAFT_SUFFIX = ".restoring"


@dataclass
class Restored:
    """What was restored of an archive; ``problems`` says what is wrong with it."""

    lines: int = 0
    files: int = 0
    problems: list[str] = field(default_factory=list)


def restore(
    bucket: Bucket, directory: str, archive: str, progress: Progress
) -> Restored:
    """Restore an archive into a store directory.

    A journal that is there already is kept if it is that of the bucket. Raises
    RestoreFailed if it is another one.
    """
    path = f"{directory}/{archive}"
    restoration = _Restoration(bucket, path, archive, progress)
    try:
        restoration.run()
    except OSError as error:
        path = str(error.filename or path)
        raise RestoreFailed(f"{path}: {error.strerror}") from error
    return restoration.restored


class _Restoration:
    """The restoration of one archive into the directory ``path``."""

    def __init__(
        self, bucket: Bucket, path: str, archive: str, progress: Progress
    ) -> None:
        self._bucket = bucket
        self._path = path
        self._archive = archive
        self._progress = progress
        self._drafts = f"{path}/{store_archive.DRAFTS}"
        self._removals: dict[str, float] = {}  # see layout.add_removals()
        self.restored = Restored()

    def run(self) -> None:
        """Restore the files and write the journals, then give these their names."""
        missing = [
            name for name in layout.JOURNALS if not files.exists(f"{self._path}/{name}")
        ]
        for name in {*layout.JOURNALS}.difference(missing):
            self._require_same(name)
        for read in remote_journal.read(
            self._bucket, self._archive, journal.NAME, lambda _: None
        ):
            firsts = ((line.offset, line.first) for line in read.lines)
            layout.add_removals(self._removals, firsts)
        files.make_directory(self._drafts)
        ends = {name: self._restore_journal(name) for name in missing}
        os.sync()
        for name, (number, sha256) in ends.items():
            if number:
                path = f"{self._path}/{name}"
                journal_format.write_last(path, number, sha256)
                os.rename(path + DRAFT_SUFFIX, path)
        files.sync_directory(self._path)

    def _read(self, name: str) -> Iterator[ReadPart]:
        """Yield the parts of a journal; report if the bucket has lost one."""

        def report(position: int) -> None:
            self._report(f"{name}, from byte {position} on")

        return remote_journal.read(self._bucket, self._archive, name, report)

    def _require_same(self, name: str) -> None:
        """Raise RestoreFailed for a journal that does not have the bucket's lines."""
        path = f"{self._path}/{name}"
        position = 0
        for read in self._read(name):
            lines = journal_chunks.lines_between(path, position, read.part.end)
            chain, _ = layout.split(lines)
            if not chain or [*layout.chained_lines(chain, position)] != read.lines:
                position = -1
                break
            position = read.part.end
            self.restored.lines += len(read.lines)
        if position != journal_reader.end_offset(path):
            raise RestoreFailed(
                f"{path}: there is a journal already, with other lines than the bucket;"
                " name an empty directory, or move this one away"
            )

    def _restore_journal(self, name: str) -> tuple[int, str]:
        """Write a journal under a name of its own; return its last line's number."""
        path = f"{self._path}/{name}{DRAFT_SUFFIX}"
        if files.exists(path):
            shutil.rmtree(path)
        end = (0, "")
        for read in self._read(name):
            if not files.exists(path):
                files.make_one_directory(path)
            self._restore_part(read, path)
            end = _last_line(read.lines, end)
        return end

    def _restore_part(self, read: ReadPart, journal_path: str) -> None:
        part = read.part
        if not read.is_chained:
            place = f"{part.journal}/{part.segment}, byte {read.lines[0].offset}"
            self._report(f"{place}: the chain")
        texts = self._details(read)
        mode = files.shared_mode(journal_path, files.DRAFT_MODE)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(f"{journal_path}/{part.segment}", flags, mode)
        try:
            for line in read.lines:
                files.write_all(descriptor, line.joined(texts.get(line.offset)))
        finally:
            os.close(descriptor)
        self.restored.lines += len(read.lines)

    def _details(self, read: ReadPart) -> Mapping[int, bytes]:
        """Return the details by the offset of the line; restore the files meanwhile."""
        by_owner: dict[str, list[ChainedLine]] = {}
        for line in read.lines:
            owner = layout.owner_of(line.first)
            if line.details_size > 0 and not self._is_removed(owner, line.offset):
                by_owner.setdefault(owner, []).append(line)
        texts: dict[int, bytes] = {}
        # Not in the threads: it sets the umask of the whole process for a moment.
        for name in filter(None, map(self._file_name, read.lines)):
            files.make_directory(files.parent_directory(f"{self._path}/{name}"))
        with ThreadPoolExecutor(s3_client.CONNECTIONS) as pool:
            results = pool.map(
                lambda each: remote_journal.details(self._bucket, read.part, *each),
                by_owner.items(),
            )
            done = pool.map(self._restore_file, read.lines)
            for each in results:
                texts.update(each)
            count = sum(done)
        self.restored.files += count
        self._progress(count)
        for line in (line for lines in by_owner.values() for line in lines):
            if line.offset not in texts:
                place = f"{read.part.journal}, byte {line.offset}"
                self._report(f"{place}: the details of this line")
        return texts

    def _is_removed(self, archive_id: str, offset: int) -> bool:
        return offset < self._removals.get(archive_id, 0)

    def _file_name(self, line: ChainedLine) -> str:
        """Return the name of the file that a line names, "" if none is to be there."""
        name = _string(line, "file")
        is_removed = self._is_removed(_string(line, "id"), line.offset)
        if not _string(line, "file_sha256") or is_removed:
            return ""
        return name if journal_event.is_file_name(name) else ""

    def _restore_file(self, line: ChainedLine) -> int:
        """Restore the file that a line names; return how many it restored."""
        name, sha256 = self._file_name(line), _string(line, "file_sha256")
        path = f"{self._path}/{name}"
        if not name or files.exists(path) and _sha256_of(path) == sha256:
            return 0
        key = layout.file_key(self._archive, name)
        for version_id in self._version_ids(key):
            if self._download(key, version_id, path, sha256):
                return 1
        self._report(key)
        return 0

    def _version_ids(self, key: str) -> Iterable[str]:
        """Yield the ids of versions to try: the newest first, which is ""."""
        yield ""
        for version in remote_journal.other_versions(self._bucket, key):
            yield version.version_id

    def _download(self, key: str, version_id: str, path: str, sha256: str) -> bool:
        """Write an object to a file if it has this SHA-256; tell whether it has."""
        draft = Draft(self._drafts)
        try:
            digest = hashlib.sha256()
            for chunk in self._bucket.chunks(key, version_id):
                digest.update(chunk)
                draft.write(chunk)
            if digest.hexdigest() != sha256:
                return False
            draft.replace(path)
            copy_file.mark_committed(path)
            return True
        except ObjectMissing:
            return False
        finally:
            draft.discard()

    def _report(self, what: str) -> None:
        self.restored.problems.append(
            f"{self._archive}: {what}: missing or damaged in the bucket"
        )


def _string(line: ChainedLine, name: str) -> str:
    return journal_format.string_field(line.first, name)


def _last_line(lines: Iterable[ChainedLine], end: tuple[int, str]) -> tuple[int, str]:
    """Return number and hash of the last complete line, end if there is none."""
    for line in lines:
        number = journal_format.last_number(line.joined(None), is_whole_file=True)
        if number is not None:
            end = number, remote_journal.line_sha256(line)
    return end


def _sha256_of(path: str) -> str:
    try:
        with os.fdopen(files.open_regular(path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise files.store_error(path, error) from error
