"""Write one archive of the store: archive copies, outcome reports and the journal.

Used by archive_transport and outcomes. Each archive has one directory:

    <store>/<archive address>/YYYY/MM/DD/<archive id>.eml.gz      mode 0400: committed
    <store>/<archive address>/YYYY/MM/DD/<archive id>.outcome.eml.gz
    <store>/<archive address>/journal/YYYY-MM

A copy or report is stored when its file and its journal line are both durable. Every
method can run twice: the second call finds the file and the line. A file is deleted
only if the journal says that its record was removed (retention/removal). Raises
StoreFailed and JournalFailed.

docs/store-format.md specifies the format.
"""

from __future__ import annotations

import posix as os
from itertools import count

from postfix_archive.errors import StoreFailed
from postfix_archive.message import address, digest, stamp
from postfix_archive.store import copy_file, journal, journal_format, known_end
from postfix_archive.system import files
from postfix_archive.system.draft import Draft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from postfix_archive.config.settings import Settings
    from postfix_archive.store.copy_file import Capture
    from postfix_archive.store.outcome import Outcome

DRAFTS = "drafts"


class Archive:
    """The archive of one archive address."""

    __slots__ = ("_host", "_marker_directory", "_store_directory", "address") + (
        "directory",
    )

    def __init__(
        self,
        store_directory: str,
        address: str,
        *,
        marker_directory: str = "",
        host: str = "",
    ) -> None:
        """Create nothing yet.

        marker_directory is outside the store, on another file system. The file
        ``store-seen`` in it has the path of the store that has been used, the file of
        known_end where its journals ended. host is the name of this host for new
        segments of the journal.
        """
        self._host = host
        self._store_directory = store_directory
        self._marker_directory = marker_directory
        self.address = address
        self.directory = f"{store_directory}/{address}"

    def has_copy(self, record_id: str) -> bool:
        """Return whether the archive has a copy with this archive id.

        It can be removed at any time: what depends on it is decided under the lock.
        """
        return self._has_file(copy_file.copy_name(record_id))

    def path(self, name: str) -> str:
        """Return the path of a file, given its name in the journal."""
        return f"{self.directory}/{name}"

    def store_copy(
        self, capture: Capture, content: Iterable[bytes], time: str
    ) -> set[str]:
        """Store an archive copy, or add a supplement to the copy that is there.

        content is the uncompressed copy. Returns the journal events that this capsule
        now has. Durable on return. Raises StoreFailed and JournalFailed.
        """
        self._make_directory()
        draft = Draft(f"{self.directory}/{DRAFTS}")
        try:
            file_sha256 = copy_file.write_compressed(draft, content)
            name = copy_file.copy_name(capture.record_id)
            with self.open_journal(is_locked=False) as journal_file:
                # Unlocked: nobody waits for this fsync. What others see of it is what
                # a crash could have left, and they complete it in the same way.
                is_new = self._publish(draft, name)
                journal_file.lock()
                if not (is_new and self._is_uncommitted(draft, name)):
                    name, is_new = self._find_or_publish(
                        draft, capture, journal_file, time
                    )
                if not is_new:
                    return _append_supplement(journal_file, capture, time, file=name)
                fields = capture.event_fields(file=name, file_sha256=file_sha256)
                later = journal_file.append_unlocked(journal.ARCHIVED, time, **fields)
                if not _has_removal(later, capture.record_id):
                    copy_file.mark_committed(self.path(name))
                return {journal.ARCHIVED}
        finally:
            draft.discard()

    def add_supplement(self, capture: Capture, time: str) -> set[str]:
        """Add a later capture of a stored message to its record, durably.

        Returns the journal events that this capsule now has; none, and nothing is
        added, if the copy has been removed meanwhile.
        """
        with self.open_journal() as journal_file:
            name = copy_file.copy_name(capture.record_id)
            if not self._has_committed(name, capture, journal_file, time):
                return set()
            return _append_supplement(journal_file, capture, time)

    def record_mailed(self, capture: Capture, time: str, queue_ids: str) -> None:
        """Record that Postfix queued the mailed copy under these queue ids."""
        with self.open_journal() as journal_file:
            journal_file.append(
                journal.MAILED,
                time,
                id=capture.record_id,
                capsule=capture.capsule_id,
                queued_as=queue_ids,
            )

    def record_outcomes(
        self, outcomes: Iterable[tuple[str, Outcome]], time: str
    ) -> int:
        """Record outcomes by archive id with one fsync; return how many were new.

        An outcome that a recent journal line has with the same fields is skipped.
        """
        events: list[journal.Event]
        events = [
            (journal.OUTCOME, {"id": record_id, **each.event_fields()})
            for record_id, each in outcomes
        ]
        with self.open_journal() as journal_file:
            new_events = journal_file.unrecorded(events)
            journal_file.extend(time, new_events)
        return len(new_events)

    def store_outcome_report(
        self, record_id: str, content: Iterable[bytes], covers: str, time: str
    ) -> str:
        """Store an outcome report beside the copy, durably; return its file name.

        A report with the same ``covers`` is not written again.
        """
        draft = Draft(f"{self.directory}/{DRAFTS}")
        try:
            file_sha256 = copy_file.write_compressed(draft, content)
            with self.open_journal() as journal_file:
                name = copy_file.report_name(record_id, 1)
                for number in count(2):
                    if not self._has_current_file(name, record_id, journal_file):
                        break
                    if (
                        self._commit_report(record_id, name, journal_file, time)
                        == covers
                    ):
                        return name
                    name = copy_file.report_name(record_id, number)
                draft.publish(self.path(name))
                self._commit_report(record_id, name, journal_file, time, file_sha256)
                return name
        finally:
            draft.discard()

    def record_report_mailed(
        self, record_id: str, name: str, time: str, queue_id: str
    ) -> None:
        """Record that Postfix queued the mailed outcome report under this queue id."""
        with self.open_journal() as journal_file:
            journal_file.append(
                journal.OUTCOME_MAILED,
                time,
                id=record_id,
                file=name,
                queued_as=queue_id,
            )

    def open_journal(self, *, is_locked: bool = True) -> journal.Journal:
        """Open and lock the journal, unless it has lost what it had."""
        self._require_known_end()
        return journal.Journal(self.directory, host=self._host, is_locked=is_locked)

    def _require_known_end(self) -> None:
        if self._marker_directory:
            known_end.require(
                self._marker_directory, self._store_directory, self.address
            )

    def _commit_report(
        self,
        record_id: str,
        name: str,
        journal_file: journal.Journal,
        time: str,
        file_sha256: str = "",
    ) -> str:
        """Commit an outcome report, also one that a crash left without a journal line.

        file_sha256 is "" for a file that was there. Returns the report's ``covers``.
        """
        path = self.path(name)
        covers = copy_file.read_coverage(path)
        if not copy_file.is_committed(path):
            files.sync_parents(path)
            if file_sha256 or not journal_file.last_event(name, record_id):
                file_sha256 = (
                    file_sha256
                    or digest.sha256_of(copy_file.read_blocks(path)).hexdigest()
                )
                fields = {"id": record_id, "file": name, "file_sha256": file_sha256}
                journal_file.append(
                    journal.OUTCOME_REPORT, time, **fields, covers=covers
                )
            copy_file.mark_committed(path)
        return covers

    def _make_directory(self) -> None:
        """Create the archive's directory, unless the store has lost all its archives.

        An empty directory instead of a used store is a mount point without its file
        system: writing into it would fill the wrong disk.
        """
        drafts = f"{self.directory}/{DRAFTS}"
        if files.is_directory(drafts):
            return
        if (
            self._marker_directory
            and known_end.was_used(self._marker_directory, self._store_directory)
            and not _has_archives(self._store_directory)
        ):
            raise StoreFailed(
                f"{self._store_directory} is empty but was in use: is its file system"
                " mounted? To start a new store, remove"
                f" {self._marker_directory}/{known_end.STORE_MARKER} and"
                f" {known_end.FILE_NAME} beside it"
            )
        self._require_known_end()
        files.make_directory(drafts)
        if self._marker_directory:
            known_end.mark_used(self._marker_directory, self._store_directory)

    def _publish(self, draft: Draft, name: str) -> bool:
        """Give the draft its name, durably; False if there is a file of this name."""
        path = self.path(name)
        directory = files.parent_directory(path)
        if not (self._has_directories(name) and files.is_durable(directory)):
            files.make_directory(directory)
        return draft.publish_new(path)

    def _is_uncommitted(self, draft: Draft, name: str) -> bool:
        """Return whether the draft is there, not committed or deleted by another."""
        path = self.path(name)
        return draft.is_at(path) and not copy_file.is_committed(path)

    def _find_or_publish(
        self,
        draft: Draft,
        capture: Capture,
        journal_file: journal.Journal,
        time: str,
    ) -> tuple[str, bool]:
        """Return the name of the copy of this original, and whether it is the draft."""
        while True:  # others publish theirs without the lock
            name, is_there = self._find_copy(capture, journal_file, time)
            if is_there:
                return name, False
            if self._publish(draft, name):
                return name, True

    def _find_copy(
        self, capture: Capture, journal_file: journal.Journal, time: str
    ) -> tuple[str, bool]:
        """Return the file name for this original, and whether it is there, committed.

        A second original with the same archive id gets its own file name. It occurs
        when a stamped message is captured again before its first capsule arrives.
        """
        name = copy_file.copy_name(capture.record_id)
        is_there = self._has_committed(name, capture, journal_file, time)
        if (
            is_there
            and capture.verdict != stamp.VALID
            and self._original_sha256(name) != capture.sha256
        ):
            name = copy_file.copy_name(capture.record_id, capture.sha256[:12])
            is_there = self._has_committed(name, capture, journal_file, time)
        return name, is_there

    def _has_committed(
        self, name: str, capture: Capture, journal_file: journal.Journal, time: str
    ) -> bool:
        """Return whether the file exists, which is committed then."""
        if not self._has_current_file(name, capture.record_id, journal_file):
            return False
        self._complete_commit(name, capture.record_id, journal_file, time)
        return True

    def _has_current_file(
        self, name: str, record_id: str, journal_file: journal.Journal
    ) -> bool:
        """Return whether the file exists; delete it if its record was removed.

        A removal makes its files writable first: only those are looked up.
        """
        path = self.path(name)
        if not self._has_file(name):
            return False
        if (
            copy_file.is_committed(path)
            or journal_file.last_event(name, record_id) not in journal.REMOVAL_EVENTS
        ):
            return True
        copy_file.unlink(path)
        return False

    def _has_file(self, name: str) -> bool:
        """Return whether the file exists; raise StoreFailed for another type."""
        return self._has_directories(name) and files.is_file(self.path(name))

    def _has_directories(self, name: str) -> bool:
        """Return whether the directories of a file exist; refuse a symlink.

        The archive's directory may be a symlink to another disk, nothing below it.
        """
        position = name.find("/")
        while position >= 0:
            if not files.is_directory(self.path(name[:position])):
                return False
            position = name.find("/", position + 1)
        return True

    def _complete_commit(
        self, name: str, record_id: str, journal_file: journal.Journal, time: str
    ) -> None:
        """Append the journal line of a file that a crash left without one."""
        path = self.path(name)
        if copy_file.is_committed(path):
            return
        files.sync_parents(path)
        if not journal_file.last_event(name, record_id):
            capture = copy_file.read_capture(path, self.address)
            file_sha256 = digest.sha256_of(copy_file.read_blocks(path)).hexdigest()
            fields = capture.event_fields(file=name, file_sha256=file_sha256)
            journal_file.append(journal.ARCHIVED, time, **fields)
        copy_file.mark_committed(path)

    def _original_sha256(self, name: str) -> str:
        return copy_file.read_capture(self.path(name), self.address).sha256


def of_settings(settings: Settings, archive_address: str) -> Archive:
    """Return the archive of an address in the configured store."""
    return Archive(
        settings.archive_store_directory,
        archive_address,
        marker_directory=settings.archive_fallback_directory,
        host=address.as_text(settings.myhostname),
    )


def _has_archives(directory: str) -> bool:
    try:
        return any("@" in each for each in os.listdir(directory))
    except OSError as error:
        raise files.store_error(directory, error) from error


def _append_supplement(
    journal_file: journal.Journal, capture: Capture, time: str, *, file: str = ""
) -> set[str]:
    """Append a supplement, unless the journal has an event of this capsule.

    file: the copy, whose line and all after it are searched: a capsule can come again
    after days. Without it only recent lines are: whoever has a stamped message can
    send it again at any time.
    """
    recent_events = journal_file.recent_events(capture.capsule_id, since_file=file)
    if recent_events & {*journal.CAPTURE_EVENTS}:
        return recent_events
    journal_file.append_unlocked(journal.SUPPLEMENT, time, **capture.event_fields())
    return {journal.SUPPLEMENT}


def _has_removal(lines: bytes, record_id: str) -> bool:
    """Return whether one of these lines of the journal removed a record."""
    substring = b'"id":"' + record_id.encode() + b'"'
    return any(
        journal_format.string_field(line, "event") in journal.REMOVAL_EVENTS
        for line in journal_format.matching_lines(lines, substring)
    )
