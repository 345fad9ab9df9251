"""Write one archive of the store: archive copies, outcome reports and the journal.

Used by archive_transport and outcomes. Each archive has one directory:

    <store>/<archive address>/YYYY/MM/DD/<archive id>.eml.gz      mode 0400: committed
    <store>/<archive address>/YYYY/MM/DD/<archive id>.outcome.eml.gz
    <store>/<archive address>/journal

A copy or report is stored when its file and its journal line are both durable. Every
method can run twice: the second call finds the file and the line. No function removes
an archived message. Raises StoreFailed and JournalFailed.

docs/store-format.md specifies the format.
"""

from __future__ import annotations

import posix as os
from itertools import count

from postfix_archive.back import files, journal, stored
from postfix_archive.core import address, digest, stamp, trace
from postfix_archive.core.errors import StoreFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from postfix_archive.back.stored import Piece
    from postfix_archive.core.outcome import Outcome

DRAFTS = "drafts"
SEEN = "store-seen"  # file name in the marker directory
UNDATED = "undated"
SUFFIX = ".eml.gz"

ARCHIVED, SUPPLEMENT, MAILED = "archived", "supplement", "mailed"
OUTCOME = "outcome"  # journal event, and part of a file name
OUTCOME_REPORT, OUTCOME_MAILED = "outcome-report", "outcome-mailed"


class Archive:
    """The archive of one archive address."""

    __slots__ = ("_store", "_witness", "address", "folder")

    def __init__(self, store: str, address: str, *, witness: str = "") -> None:
        """Create nothing yet.

        marker_directory is outside the store, on another file system. The file
        ``store-seen`` in it records that the store has been used.
        """
        self._store = store
        self._witness = witness
        self.address = address
        self.folder = f"{store}/{address}"

    def has(self, record_id: str) -> bool:
        """Return whether the archive has a copy with this archive id."""
        return self._has_file(place(record_id))

    def path(self, name: str) -> str:
        """Return the path of a file, given its name in the journal."""
        return f"{self.folder}/{name}"

    def keep(self, piece: Piece, content: Iterable[bytes], time: str) -> set[str]:
        """Store an archive copy, or add a supplement to the copy that is there.

        content is the uncompressed copy. Returns the journal events that this capsule
        now has. Durable on return. Raises StoreFailed and JournalFailed.
        """
        self._make_folder()
        draft = files.Draft(f"{self.folder}/{DRAFTS}")
        try:
            packed = stored.packed_into(draft, content)
            with journal.Journal(self.folder) as events:
                name = self._name_for(piece, events, time)
                if not self._has_file(name):
                    self._publish(draft, piece, name, packed, events, time)
                    return {ARCHIVED}
                return _merge(events, piece, time)
        finally:
            draft.discard()

    def supplement(self, piece: Piece, time: str) -> set[str]:
        """Add a later capture of a stored message to its record, durably.

        Returns the journal events that this capsule now has.
        """
        with journal.Journal(self.folder) as events:
            self._name_for(piece, events, time)
            return _merge(events, piece, time)

    def mailed(self, piece: Piece, time: str, queue_ids: str) -> None:
        """Record that Postfix queued the mailed copy under these queue ids."""
        with journal.Journal(self.folder) as events:
            events.append(
                MAILED, time, id=piece.record_id, capsule=piece.key, queued_as=queue_ids
            )

    def outcomes_of(self, told: Iterable[tuple[str, Outcome]], time: str) -> int:
        """Record outcomes by archive id with one fsync; return how many were new.

        An outcome that a recent journal line has with the same fields is skipped.
        """
        events: list[journal.Event]
        events = [(OUTCOME, {"id": name, **each.words()}) for name, each in told]
        with journal.Journal(self.folder) as opened:
            new = opened.unsaid(events)
            opened.extend(time, new)
        return len(new)

    def outcome_report(
        self, record_id: str, content: Iterable[bytes], covers: str, time: str
    ) -> str:
        """Store an outcome report beside the copy, durably; return its file name.

        A report with the same ``covers`` is not written again.
        """
        draft = files.Draft(f"{self.folder}/{DRAFTS}")
        try:
            packed = stored.packed_into(draft, content)
            with journal.Journal(self.folder) as events:
                name = report_place(record_id, 1)
                for number in count(2):
                    if not self._has_file(name):
                        break
                    if self._reported(record_id, name, events, time) == covers:
                        return name
                    name = report_place(record_id, number)
                draft.publish(self.path(name))
                self._reported(record_id, name, events, time, packed)
                return name
        finally:
            draft.discard()

    def outcome_mailed(
        self, record_id: str, name: str, time: str, queue_id: str
    ) -> None:
        """Record that Postfix queued the mailed outcome report under this queue id."""
        with journal.Journal(self.folder) as events:
            events.append(
                OUTCOME_MAILED, time, id=record_id, file=name, queued_as=queue_id
            )

    def _reported(
        self,
        record_id: str,
        name: str,
        events: journal.Journal,
        time: str,
        packed: str = "",
    ) -> str:
        """Commit an outcome report, also one that a crash left without a journal line.

        file_sha256 is "" for a file that was there. Returns the report's ``covers``.
        """
        path = self.path(name)
        covers = stored.covered(path)
        if os.stat(path).st_mode & 0o200:
            files.sync_above(path)
            if packed or not events.has_file(name):
                packed = packed or digest.of(stored.blocks(path)).hexdigest()
                words = {"id": record_id, "file": name, "file_sha256": packed}
                events.append(OUTCOME_REPORT, time, **words, covers=covers)
            stored.commit(path)
        return covers

    def _make_folder(self) -> None:
        """Create the archive's directory, unless the store has lost all its archives.

        An empty directory instead of a used store is a mount point without its file
        system: writing into it would fill the wrong disk.
        """
        drafts = f"{self.folder}/{DRAFTS}"
        if files.is_folder(drafts):
            return
        seen = f"{self._witness}/{SEEN}"
        if self._witness and files.is_there(seen) and not _has_archives(self._store):
            raise StoreFailed(
                f"{self._store} is empty but was in use: is its file system mounted?"
                f" To start a new store, remove {seen}"
            )
        files.make_folder(drafts)
        if self._witness:
            _witnessed(seen)

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
        files.make_folder(files.above(path))
        draft.publish(path)
        _append(events, ARCHIVED, piece, time, file=name, file_sha256=packed)
        stored.commit(path)

    def _name_for(self, piece: Piece, events: journal.Journal, time: str) -> str:
        """Return the file name for this original.

        A second original with the same archive id gets its own file name. It occurs
        when a stamped message is captured again before its first capsule arrives.
        """
        name = place(piece.record_id)
        if self._has_file(name):
            self._settle(name, events, time)
            if piece.verdict != stamp.VALID and self._original(name) != piece.digest:
                name = place(piece.record_id, piece.digest[:12])
                if self._has_file(name):
                    self._settle(name, events, time)
        return name

    def _has_file(self, name: str) -> bool:
        """Return whether the file exists; raise StoreFailed for a symlink in its path.

        The archive's directory may be a symlink to another disk, nothing below it.
        """
        at = name.find("/")
        while at >= 0:
            if not files.is_folder(self.path(name[:at])):
                return False
            at = name.find("/", at + 1)
        return files.is_file(self.path(name))

    def _settle(self, name: str, events: journal.Journal, time: str) -> None:
        """Append the journal line of a file that a crash left without one."""
        path = self.path(name)
        if not os.stat(path).st_mode & 0o200:
            return
        files.sync_above(path)
        if not events.has_file(name):
            piece = stored.recovered(path, self.address)
            packed = digest.of(stored.blocks(path)).hexdigest()
            _append(events, ARCHIVED, piece, time, file=name, file_sha256=packed)
        stored.commit(path)

    def _original(self, name: str) -> str:
        return stored.recovered(self.path(name), self.address).digest


def place(record_id: str, variant: str = "") -> str:
    """Return the name of a copy, relative to the archive's directory."""
    day = record_id[:8]
    name = f"{record_id}.{variant}" if variant else record_id
    if day == trace.UNDATED:
        return f"{UNDATED}/{name}{SUFFIX}"
    return f"{day[:4]}/{day[4:6]}/{day[6:]}/{name}{SUFFIX}"


def report_place(record_id: str, number: int) -> str:
    """Return the name of a record's outcome report; number starts at 1."""
    return place(record_id, OUTCOME if number == 1 else f"{OUTCOME}-{number}")


def _has_archives(store: str) -> bool:
    try:
        return any("@" in each for each in os.listdir(store))
    except OSError as problem:
        raise files.failed(store, problem) from problem


def _witnessed(path: str) -> None:
    """Create the file that marks the store as used; the next copy retries a failure."""
    flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        os.close(os.open(path, flags, files.DRAFT_MODE))
    except OSError:
        pass


def _merge(events: journal.Journal, piece: Piece, time: str) -> set[str]:
    """Append a supplement, unless the journal has an event of this capsule."""
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
    words["envelope"] = address.as_text(piece.fields)
    if piece.above:
        words["above"] = address.as_text(piece.above)
    events.append(event, time, **words)
