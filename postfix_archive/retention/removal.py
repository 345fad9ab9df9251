"""Remove archived messages. No other code does.

    removal.remove(settings, "legal@example.com", archive_id, "purged", {"rule": ...})

Used by purge and by erase. In this order, so that it can be killed anywhere and be
called again:

1. under the lock of the journal: no hold covers the record; its files are marked, so
   that capture looks into the journal and stores anew what comes with this id; the
   event is durable; the details of all its other lines are struck out, durably;
2. the index forgets it, for which it reads the copy once more; while it cannot read
   one that is in the object storage alone, the files stay, marked;
3. under the lock again: copies and outcome reports are unlinked, durably;
4. the database of recent captures, if there is one, forgets it.

finish() completes what a killed process or such an index has left. Raises
RecordNotFound, RecordHeld, RecordDamaged, StoreFailed, JournalFailed, and what
holds.covering() raises.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping

from postfix_archive.archive_transport.recent_captures import RecentCaptures
from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    ArchiveError,
    RecordDamaged,
    RecordHeld,
    RecordNotFound,
    StoreFailed,
)
from postfix_archive.message import dates
from postfix_archive.retention import holds
from postfix_archive.search import index_update
from postfix_archive.store import archive as store_archive
from postfix_archive.store import (
    copy_file,
    journal,
    journal_format,
    journal_reader,
    strike_out,
)
from postfix_archive.store.archive import Archive
from postfix_archive.store.journal_reader import Line
from postfix_archive.system import files, privileges

# Records that are removed together, with one pass over the journal. Their lines are
# struck out within a second, for which mail waits.
BATCH_SIZE = 2000
FILE_EVENTS = (journal.ARCHIVED, journal.OUTCOME_REPORT)

Details = Mapping[str, str]  # of the event: keys and values
Warn = Callable[[str], None]
Exclude = Callable[[], Container[str]]


class _Lines:
    """What the journal has of one archive id.

    ``offsets`` are those of lines with details, also of torn ones, which are no events;
    ``files`` are the names of its files;
    ``old_offsets`` and ``old_files`` are likewise of what was removed: of a record
    that was, or of one that came too late. A message can be archived again.
    """

    __slots__ = ("files", "is_removed", "offsets", "old_files", "old_offsets")

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.old_offsets: list[int] = []
        self.files: set[str] = set()
        self.old_files: set[str] = set()
        self.is_removed = False

    def add(self, line: Line, archive_id: str) -> None:
        """Add a line about it."""
        kind = line.kind if line.is_complete else ""
        if kind in journal.REMOVAL_EVENTS:
            self._remove()
            return
        if kind == journal.ARCHIVED:
            self.is_removed = False
        if not line.is_wholly_struck_out:
            (self.old_offsets if self.is_removed else self.offsets).append(line.offset)
        if kind in FILE_EVENTS:
            name = line.field("file")
            _require_own_name(archive_id, name)
            (self.old_files if self.is_removed else self.files).add(name)

    def _remove(self) -> None:
        """Make all that is here something that was removed."""
        self.old_offsets += self.offsets
        self.old_files |= self.files
        self.offsets, self.files, self.is_removed = [], set(), True

    @property
    def has_record(self) -> bool:
        """True if there is a record that can be removed."""
        return bool(self.files)


LinesById = dict[str, _Lines]


def remove(
    settings: Settings,
    archive: str,
    archive_id: str,
    event: str,
    details: Details,
    exclude: Exclude = lambda: (),
) -> None:
    """Remove one record: append the event (journal.REMOVAL_EVENTS), remove all else.

    exclude as for remove_all().

    A record that was removed already gets no second event: what is left of it goes. Its
    files are gone and their directories durable on return.
    """
    held = remove_all(settings, archive, {archive_id: details}, event, exclude=exclude)
    for names in held.values():
        raise RecordHeld(
            f"{archive_id} is held by {', '.join(names)}; see postfix-archive hold list"
        )


def remove_all(
    settings: Settings,
    archive: str,
    details: Mapping[str, Details],
    event: str,
    warn: Warn = lambda text: None,
    *,
    exclude: Exclude = lambda: (),
) -> dict[str, tuple[str, ...]]:
    """Remove records of one archive, by archive id; return the holds of those held.

    warn gets what the user should know. exclude is called with the journal locked: it
    returns the archive ids of those that must not go after all, or raises an error.
    Raises RecordNotFound before anything is removed, if the journal does not have one
    of them.
    """
    with privileges.as_owner(settings.archive_store_directory):
        removal = _Removal(settings, archive, warn, exclude)
        held = {}
        ids = list(details)
        for start in range(0, len(ids), BATCH_SIZE):
            batch = {each: details[each] for each in ids[start : start + BATCH_SIZE]}
            held.update(removal.run(batch, event))
        return held


def finish(settings: Settings, archive: str, since: float, warn: Warn) -> int:
    """Complete removals that were interrupted since a Unix time; return how many.

    Also strikes out what came later about records that were removed, such as outcomes.
    """
    with privileges.as_owner(settings.archive_store_directory):
        ids = _unfinished_ids(settings, archive, since)
        if ids:
            _Removal(settings, archive, warn).run({each: {} for each in ids}, "")
        return len(ids)


def _unfinished_ids(settings: Settings, archive: str, since: float) -> set[str]:
    """Return the ids of which something may be left that should have been removed."""
    store = settings.archive_store_directory
    path = journal_reader.path_of(store, archive)
    ids: set[str] = set()
    seen: dict[str, bool] = {}  # whether the journal has archived it since
    for line in journal_reader.lines_between(path, since):
        archive_id = _archive_id(line)
        if line.kind in journal.REMOVAL_EVENTS:
            ids.add(archive_id)
        elif archive_id:
            seen[archive_id] = seen.get(archive_id, False) or (
                line.kind == journal.ARCHIVED and line.is_complete
            )
    late = {
        each
        for each, is_archived in seen.items()
        if not is_archived
        and not files.exists(f"{store}/{archive}/{copy_file.copy_name(each)}")
    }
    lines = _read_lines(path, ids | late)
    return {
        archive_id
        for archive_id, each in lines.items()
        if each.old_offsets
        or any(
            files.exists(f"{store}/{archive}/{name}")
            for name in each.old_files - each.files
        )
    }


class _Removal:
    """The removal of records from one archive."""

    def __init__(
        self,
        settings: Settings,
        archive: str,
        warn: Warn,
        exclude: Exclude = lambda: (),
    ) -> None:
        self._exclude = exclude
        self._settings = settings
        self._name = archive
        self._warn = warn
        self._archive: Archive = store_archive.of_settings(settings, archive)
        self._path = journal_reader.path_of(settings.archive_store_directory, archive)

    def run(
        self, details: Mapping[str, Details], event: str
    ) -> dict[str, tuple[str, ...]]:
        """Remove a batch; with event "" only what is left of earlier removals.

        Returns the names of the holds of those that are held.
        """
        end = journal_reader.end_offset(self._path)
        lines = _read_lines(self._path, details)
        with self._archive.open_journal() as journal_file:
            end = _add_lines(lines, self._path, end)
            held = self._append(journal_file, lines, details, event) if event else {}
            end = _add_lines(lines, self._path, end)
            struck_out = [
                offset for each in lines.values() for offset in each.old_offsets
            ]
            strike_out.strike_out(self._path, struck_out)
        failure = self._tell_index()
        with self._archive.open_journal():
            _add_lines(lines, self._path, end)
            if failure:
                self._require_whole(lines, failure)
            self._unlink(lines)
        gone = [each for each in lines if lines[each].is_removed]
        if gone:
            recent_captures = RecentCaptures(self._settings)
            recent_captures.forget(self._name, gone, int(time.time()))
        return held

    def _append(
        self,
        journal_file: journal.Journal,
        lines: LinesById,
        details: Mapping[str, Details],
        event: str,
    ) -> dict[str, tuple[str, ...]]:
        """Append the events of all that no hold covers; return the holds of others."""
        for archive_id in details:
            if archive_id not in lines:
                raise RecordNotFound(f"no record {archive_id} in {self._path}")
        excluded = self._exclude()
        ids = [e for e in details if lines[e].has_record and e not in excluded]
        covering = holds.covering(self._settings, self._name, ids) if ids else {}
        held = {archive_id: names for archive_id, names in covering.items() if names}
        events: list[journal.Event] = [
            (event, {"id": archive_id, **details[archive_id]})
            for archive_id in ids
            if archive_id not in held
        ]
        names = [
            each for _, fields in events for each in lines[str(fields["id"])].files
        ]
        copy_file.mark_removable(map(self._archive.path, sorted(names)))
        journal_file.extend(dates.format_rfc3339(time.time()), events)
        return held

    def _tell_index(self) -> ArchiveError | None:
        """Let the index read the events, while it can read the copies.

        An index that does not, builds the databases anew when it finds no copy. Returns
        the error that it had.
        """
        try:
            if index_update.has_index(self._settings, self._name):
                index_update.catch_up(self._settings, self._name, self._warn)
        except ArchiveError as error:
            self._warn(f"{self._name}: its index lags behind what was removed: {error}")
            return error
        return None

    def _require_whole(self, lines: LinesById, failure: ArchiveError) -> None:
        """Raise StoreFailed if a copy to unlink is in the object storage alone.

        There it goes as soon as nothing marked is here any more: to build the databases
        anew all copies of a year would have to be read from there.
        """
        for path in self._recorded(lines):
            if files.exists(path) and copy_file.is_moved(path):
                raise StoreFailed(
                    f"{path}: removed, but the index has not forgotten it yet, so this"
                    f" file stays until the same command is run again: {failure}"
                ) from failure

    def _recorded(self, lines: LinesById) -> list[str]:
        """Return the paths of the files to unlink of which the journal has a line."""
        names = {name for each in lines.values() for name in each.old_files}
        names -= {name for each in lines.values() for name in each.files}
        return [self._archive.path(each) for each in sorted(names)]

    def _unlink(self, lines: LinesById) -> None:
        recorded = dict.fromkeys(self._recorded(lines))
        gone = [each for each in lines if lines[each].is_removed]
        unrecorded = [e for e in self._uncommitted(gone) if e not in recorded]
        # Those with a line last: by them finish() knows that something is left.
        paths = [*unrecorded, *recorded]
        for path in paths:
            copy_file.unlink(path)
        for directory in sorted(set(map(files.parent_directory, paths))):
            if files.is_directory(directory):
                files.sync_directory(directory)

    def _uncommitted(self, archive_ids: Iterable[str]) -> Iterator[str]:
        """Yield the paths of files that are marked or have no line, by a crash."""
        by_directory: dict[str, set[str]] = {}
        for each in archive_ids:
            path = self._archive.path(copy_file.copy_name(each))
            by_directory.setdefault(files.parent_directory(path), set()).add(each)
        for directory, ids in by_directory.items():
            if not files.is_directory(directory):
                continue
            try:
                names = sorted(os.listdir(directory))
            except OSError as error:
                raise files.store_error(directory, error) from error
            for name in names:
                archive_id, _, suffix = name.partition(".")
                is_own = archive_id in ids and suffix.endswith(
                    copy_file.COPY_SUFFIX[1:]
                )
                if is_own and not copy_file.is_committed(f"{directory}/{name}"):
                    yield f"{directory}/{name}"


def _read_lines(path: str, ids: Container[str]) -> LinesById:
    """Return what a whole journal has of these archive ids; others have nothing."""
    lines: LinesById = {}
    for line in journal_reader.lines(path):
        _add_line(lines, line, ids)
    return lines


def _add_lines(lines: LinesById, path: str, start: int) -> int:
    """Add the lines of these archive ids from a position on; return the new end."""
    ids = {*lines}
    for line in journal_reader.lines(path, start):
        _add_line(lines, line, ids)
        start = line.end
    return start


def _add_line(lines: LinesById, line: Line, ids: Container[str]) -> None:
    archive_id = _archive_id(line)
    if archive_id and archive_id in ids:
        lines.setdefault(archive_id, _Lines()).add(line, archive_id)


def _archive_id(line: Line) -> str:
    """Return the archive id in a line, "" if it has none or is no journal line.

    Also in a line that a crash has torn in its details: they have addresses. Lines that
    are damaged otherwise are passed over; verify reports them.
    """
    chained, tab, _ = line.content.partition(journal_format.TAB)
    is_line = tab and chained.startswith(journal_format.LINE_START)
    return journal_format.string_field(chained, "id") if is_line else ""


def _require_own_name(archive_id: str, name: str) -> None:
    """Raise RecordDamaged if a file is not one of this record."""
    own = copy_file.copy_name(archive_id).removesuffix(copy_file.COPY_SUFFIX)
    rest = name.removeprefix(own)
    if rest == name or "/" in rest or rest[:1] != "." or "\0" in name:
        raise RecordDamaged(
            f"{archive_id}: the journal gives it the file {name!r}; run postfix-archive"
            " verify"
        )
