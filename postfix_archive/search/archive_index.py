"""The index of one archive: a database for each year, and how far they are.

Used by indexer, as index_engine.IndexWriter, and by search and status, which read its
state. ``state.json`` has the position in the journal and for each year where its first
message is and up to where its database is committed. So a database that is missing,
damaged, of another version, or older than it was, is noticed: the journal is then read
again from there on, and what is in the other databases is skipped. Raises IndexFailed
and IndexDamaged.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

from postfix_archive.errors import IndexDamaged, IndexFailed
from postfix_archive.search import index_file, index_schema
from postfix_archive.search.index_database import IndexDatabase
from postfix_archive.search.index_engine import NewMessage
from postfix_archive.search.index_entry import ContentEntry, RecordEntry
from postfix_archive.store import journal_format, journal_reader
from postfix_archive.store.journal_reader import Line
from postfix_archive.system import files

STATE_FILE = "state.json"
STATE_MODE = 0o640
DIRECTORY_MODE = 0o750
Warn = Callable[[str], None]  # shows a warning


@dataclass
class IndexState:
    """How far the index of one archive is; offsets in its journal, in bytes.

    ``line_start`` and ``line_sha256`` are those of the last line before ``position``.
    ``first`` has for each year the offset from which its messages come, ``committed``
    the position of its last commit. ``decisions`` are the offsets of the lines of
    journal.DECISION_EVENTS, so that nobody has to read the whole journal for them.
    """

    position: int = 0
    line_start: int = 0
    line_sha256: str = ""
    first: dict[str, int] = field(default_factory=dict)
    committed: dict[str, int] = field(default_factory=dict)
    decisions: list[int] = field(default_factory=list)

    def is_of_journal(self, path: str) -> bool:
        """Tell whether the last line that was indexed is still in the journal."""
        if not self.position:
            return True
        line = next(journal_reader.lines_at(path, [self.line_start]), None)
        return (
            line is not None
            and line.end == self.position
            and journal_format.line_sha256(line.content) == self.line_sha256
        )


def read_state(directory: str) -> IndexState | None:
    """Return the state of an archive's index; None if it is missing or damaged.

    Raises IndexFailed if this user may not read it.
    """
    path = f"{directory}/{STATE_FILE}"
    try:
        descriptor = files.open_regular(path)
        with open(descriptor, encoding="ascii") as file:
            value: Any = json.load(file)
        if value.pop("version") != index_schema.VERSION:
            return None
        return IndexState(**value)
    except PermissionError as error:
        raise IndexFailed(f"{path}: {journal_reader.reason(error)}") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def database_paths(directory: str) -> list[str]:
    """Return the paths of an archive's databases, the newest year first."""
    state = read_state(directory)
    return paths_of(directory, state) if state else []


def paths_of(directory: str, state: IndexState) -> list[str]:
    """Return the paths of the databases that a state names, the newest year first."""
    return [_path(directory, year) for year in sorted(state.first, reverse=True)]


def year_of(path: str) -> str:
    """Return the year of a database."""
    return os.path.basename(path).removesuffix(index_file.SUFFIX)


class ArchiveIndex:
    """The index of one archive, open for its one writer; see IndexWriter."""

    def __init__(self, directory: str, journal_path: str, warn: Warn) -> None:
        """Open what is there; ``position`` says from where on the journal is needed."""
        self._directory = directory
        self._databases: dict[str, IndexDatabase] = {}
        self._changed: set[str] = set()
        with index_file.translated(directory):
            os.makedirs(directory, DIRECTORY_MODE, exist_ok=True)
        state = read_state(directory)
        if state is None or not state.is_of_journal(journal_path):
            if state is not None:
                warn(
                    f"{directory}: the journal is another one; building the index again"
                )
            remove_files(directory)
            state = IndexState()
        self._state = state
        try:
            for year in self._state.first:
                self._open_known(year, warn)
        except BaseException:
            self.close()
            raise

    def _open_known(self, year: str, warn: Warn) -> None:
        """Open the database of a year; go back in the journal to what it lacks."""
        path = _path(self._directory, year)
        reason = "" if os.path.exists(path) else "it is missing"
        if index_file.is_marked(path):
            reason = "a search has found it damaged"
        try:
            if reason:
                index_file.remove(path)
            self._databases[year] = IndexDatabase(path)
        except IndexDamaged as error:
            reason = str(error)
            index_file.remove(path)
            self._databases[year] = IndexDatabase(path)
        position = self._databases[year].position or self._state.first[year]
        if position < self._state.committed.get(year, 0):
            warn(f"{path}: {reason or 'it is incomplete'}; building it again")
            self._state.position = min(self._state.position, position)
            self._state.committed[year] = position

    @property
    def position(self) -> int:
        """The offset in the journal up to which all events are in the index."""
        return self._state.position

    def is_intact(self) -> bool:
        """Tell whether the files that are open are still those in the directory."""
        paths = [_path(self._directory, year) for year in self._databases]
        return (
            all(map(os.path.exists, paths))
            and not any(map(index_file.is_marked, paths))
            and (
                not self._state.committed
                or os.path.exists(f"{self._directory}/{STATE_FILE}")
            )
        )

    def close(self) -> None:
        """Close the databases, without the changes since the last commit()."""
        for database in self._databases.values():
            database.close()
        self._databases.clear()

    def offsets(self, archive_id: str) -> Sequence[int] | None:
        """Return the offsets of the lines of a message, None if it is not in here."""
        for year in sorted(self._databases, reverse=True):
            offsets = self._databases[year].offsets(archive_id)
            if offsets is not None:
                return offsets
        return None

    def add(self, messages: Sequence[NewMessage]) -> None:
        """Add messages, each to the database of the year in which it was archived."""
        for year, some in groupby(messages, _archived_year):
            if year not in self._databases:
                self._databases[year] = IndexDatabase(_path(self._directory, year))
                self._state.first[year] = self._state.position
            self._databases[year].add([*some])
            self._changed.add(year)

    def update(self, record: RecordEntry, offsets: Sequence[int]) -> None:
        """Replace what a record says about a message that is in here."""
        self._database_of(record.archive_id).update(record, offsets)

    def remove(
        self, archive_ids: Sequence[str], content_of: Callable[[str], ContentEntry]
    ) -> None:
        """Remove messages; content_of returns what was added for an archive id."""
        by_database: dict[IndexDatabase, list[str]] = {}
        for each in archive_ids:
            by_database.setdefault(self._database_of(each), []).append(each)
        for database, some in by_database.items():
            database.remove(some, content_of)

    def tidy(self) -> None:
        """Leave no word of removed messages in the files; after a commit()."""
        for database in self._databases.values():
            database.tidy()

    def add_decision(self, offset: int) -> None:
        """Add the offset of the line of a decision."""
        if offset not in self._state.decisions:  # after a position that went back
            self._state.decisions.append(offset)

    def commit(self, last_line: Line) -> None:
        """Commit all changes; last_line is the last one of the journal they are from.

        The databases first: a killed writer begins again at the old position, and finds
        in them what it had added.
        """
        for year in sorted(self._changed):
            self._databases[year].commit(last_line.end)
            self._state.committed[year] = last_line.end
        self._changed.clear()
        self._state.position = last_line.end
        self._state.line_start = last_line.offset
        self._state.line_sha256 = journal_format.line_sha256(last_line.content)
        values = {"version": index_schema.VERSION, **asdict(self._state)}
        path = f"{self._directory}/{STATE_FILE}"
        files.replace(
            path, json.dumps(values).encode(), STATE_MODE, failure=IndexFailed
        )

    def _database_of(self, archive_id: str) -> IndexDatabase:
        """Return the database that has this message, and is changed now."""
        for year in sorted(self._databases, reverse=True):
            if self._databases[year].offsets(archive_id) is not None:
                self._changed.add(year)
                return self._databases[year]
        raise KeyError(archive_id)


def remove_files(directory: str) -> None:
    """Delete the index of one archive; it can be built again."""
    with index_file.translated(directory):
        names = os.listdir(directory) if os.path.isdir(directory) else []
    # The state first: without it the databases count for nothing.
    for name in [STATE_FILE] if STATE_FILE in names else []:
        with index_file.translated(directory), contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{name}")
    for name in names:
        if name.endswith(index_file.SUFFIX):
            index_file.remove(f"{directory}/{name}")


def _archived_year(message: NewMessage) -> str:
    return time.strftime("%Y", time.gmtime(message.record.archived))


def _path(directory: str, year: str) -> str:
    return f"{directory}/{year}{index_file.SUFFIX}"
