"""The store: archive copies as files, and what happened to them in the journal.

Used by front/archive_transport and settling (write) and the commands. One folder an
archive:

    <store>/<archive address>/YYYY/MM/DD/<archive id>.eml.gz      mode 0400: committed
    <store>/<archive address>/YYYY/MM/DD/<archive id>.outcome.eml.gz
    <store>/<archive address>/journal

A copy or report is kept when its file and its line in the journal are both on the disk.
Twice is harmless: the second time finds both. Nothing here can remove an archived
message.
docs/store-format.md is the public page of this format.
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
SEEN = "store-seen"  # in the witness folder
UNDATED = "undated"
SUFFIX = ".eml.gz"

ARCHIVED, SUPPLEMENT, MAILED = "archived", "supplement", "mailed"
OUTCOME = "outcome"  # events and files
OUTCOME_REPORT, OUTCOME_MAILED = "outcome-report", "outcome-mailed"


class Archive:
    """One archive of the store."""

    __slots__ = ("_store", "_witness", "address", "folder")

    def __init__(self, store: str, address: str, *, witness: str = "") -> None:
        """Name an archive; witness is a folder elsewhere that remembers the store."""
        self._store = store
        self._witness = witness
        self.address = address
        self.folder = f"{store}/{address}"

    def has(self, record_id: str) -> bool:
        """Tell whether there is a file of that id."""
        return self._has_file(place(record_id))

    def path(self, name: str) -> str:
        """Return the full path of a file named as in the journal."""
        return f"{self.folder}/{name}"

    def keep(self, piece: Piece, content: Iterable[bytes], time: str) -> set[str]:
        """Keep a copy whose bytes are content, or add the piece to the one there is.

        Returns the kinds of events that the journal now has of this capsule. Durable
        on return. Raises StoreFailed and JournalFailed.
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

    def outcomes_of(self, told: Iterable[tuple[str, Outcome]], time: str) -> int:
        """Record outcomes of many records with one fsync; return how many were new.

        What the journal has told word for word lately it does not tell twice.
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
        """Keep an outcome report beside the copy, durably; return its file's name.

        If one that covers the same is there, that stays and no other comes.
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
        """Record that an outcome report left as mail, under this queue id."""
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
        """Commit an outcome report, also one that a crash left without its line.

        packed is the SHA-256 of a new file. Returns what the report covers.
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
        """Make the archive's folder; a store that has vanished is not begun anew.

        Under the mount point of a file system that is away stands an empty folder.
        """
        drafts = f"{self.folder}/{DRAFTS}"
        if files.is_folder(drafts):
            return
        seen = f"{self._witness}/{SEEN}"
        if self._witness and files.is_there(seen) and not _has_archives(self._store):
            raise StoreFailed(
                f"{self._store} is empty and was not: is its file system mounted? If it"
                f" is to begin anew, remove {seen}"
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
        """Return the name of the file for this original.

        A second original under the same id (a stamped message came back before its
        first capsule got here) stands beside the first under a name of its own.
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
        """Tell whether there is a file of that name; nothing may lead elsewhere.

        The archive's folder may be a symlink, to another disk; below it none may.
        """
        at = name.find("/")
        while at >= 0:
            if not files.is_folder(self.path(name[:at])):
                return False
            at = name.find("/", at + 1)
        return files.is_file(self.path(name))

    def _settle(self, name: str, events: journal.Journal, time: str) -> None:
        """Give a file that a crash left without its journal line that line."""
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
    """Return the name of a record's file within its archive."""
    day = record_id[:8]
    name = f"{record_id}.{variant}" if variant else record_id
    if day == trace.UNDATED:
        return f"{UNDATED}/{name}{SUFFIX}"
    return f"{day[:4]}/{day[4:6]}/{day[6:]}/{name}{SUFFIX}"


def report_place(record_id: str, number: int) -> str:
    """Return the name of a record's outcome report of that number, from 1 on."""
    return place(record_id, OUTCOME if number == 1 else f"{OUTCOME}-{number}")


def _has_archives(store: str) -> bool:
    try:
        return any("@" in each for each in os.listdir(store))
    except OSError as problem:
        raise files.failed(store, problem) from problem


def _witnessed(path: str) -> None:
    """Note that the store is in use; where that fails, it is noted another time."""
    flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        os.close(os.open(path, flags, files.DRAFT_MODE))
    except OSError:
        pass


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
    words["envelope"] = address.as_text(piece.fields)
    if piece.above:
        words["above"] = address.as_text(piece.above)
    events.append(event, time, **words)
