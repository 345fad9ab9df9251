"""Tells which of some messages a query finds, or raises an error where it cannot know.

Used by retention: what a hold covers must not be removed, so here an index that is
missing, damaged or behind is an error, and never "not found". Raises QueryInvalid,
IndexMissing, IndexFailed and JournalFailed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    IndexDamaged,
    IndexFailed,
    IndexMissing,
    JournalFailed,
)
from postfix_archive.search import (
    archive_index,
    index_entry,
    index_file,
    index_query,
    index_reader,
    query_condition,
    search,
)
from postfix_archive.search.query_condition import Condition
from postfix_archive.search.query_fields import Compiler
from postfix_archive.store import journal_reader

CHUNK_SIZE = index_query.FEW_WITH_MATCH  # ids that are looked up before all else
NEXT_STEP = "run postfix-archive index --once"


def check(query: str, now: float) -> None:
    """Raise QueryInvalid unless matching() can be asked for this query."""
    Compiler(query, "", now).conditions(search.parse(query))


class Matcher:
    """Some messages of one archive, all of which its index has as its journal does."""

    def __init__(
        self, settings: Settings, archive: str, archive_ids: Iterable[str]
    ) -> None:
        """Check the index. archive_ids are whole archive ids."""
        self._archive = archive
        directory = f"{settings.archive_index_directory}/{archive}"
        self._ids = sorted({*archive_ids})
        path = journal_reader.path_of(settings.archive_store_directory, archive)
        state = archive_index.read_state(directory)
        if state is None:
            raise IndexMissing(f"{archive} has no index; {NEXT_STEP}")
        if not state.is_of_journal(path):
            raise IndexFailed(
                f"{archive}: its index is of another journal; {NEXT_STEP}"
            )
        self._committed = state.committed
        # Read once: a state that is deleted later must not mean that nothing matches.
        self._paths = archive_index.paths_of(directory, state)
        self._require_current(path, state.position)

    def _require_current(self, path: str, position: int) -> None:
        try:
            newer = {
                line.field("id")
                for line in journal_reader.lines(path, position)
                if line.kind in index_entry.MATCHED_EVENTS
            }
        except ValueError as error:
            raise JournalFailed(
                f"{path}: {error}; run postfix-archive verify"
            ) from error
        ids = {*self._ids}
        missing = ids & newer or ids - self._found([])
        if missing:
            raise IndexFailed(
                f"{self._archive}: the index lacks {min(missing)}, or what came later"
                f" about it; {NEXT_STEP}"
            )

    def matching(self, query: str, now: float) -> set[str]:
        """Return the archive ids of those that a query finds.

        now (Unix time) is that of ages such as newer_than: and of dates without a year.
        """
        node = search.parse(query)
        return self._found(Compiler(query, self._archive, now).conditions(node))

    def _found(self, conditions: Sequence[Condition]) -> set[str]:
        return {
            each for path in self._paths for each in self._found_in(path, conditions)
        }

    def _found_in(self, path: str, conditions: Sequence[Condition]) -> Iterator[str]:
        if index_file.is_marked(path):
            raise IndexDamaged(path, f"a search has found it damaged; {NEXT_STEP}")
        with index_reader.open_database(path) as db:
            self._require_committed(db, path)
            for start in range(0, len(self._ids), CHUNK_SIZE):
                yield from _ids_in(
                    db, conditions, self._ids[start : start + CHUNK_SIZE]
                )

    def _require_committed(self, db: sqlite3.Connection, path: str) -> None:
        """Raise IndexDamaged for a database that is older than the state says."""
        row = db.execute("SELECT value FROM state WHERE name = 'position'").fetchone()
        committed = self._committed.get(archive_index.year_of(path), 0)
        if (row[0] if row else 0) < committed:
            raise IndexDamaged(path, f"it is incomplete; {NEXT_STEP}")


def _ids_in(
    db: sqlite3.Connection, conditions: Sequence[Condition], ids: list[str]
) -> Iterator[str]:
    """Yield those of some archive ids that meet all conditions."""
    marks = ", ".join("?" * len(ids))
    is_one = query_condition.of_source(
        f"SELECT number FROM message WHERE archive_id IN ({marks})", *ids
    )
    plan = index_query.make_plan(db, [*conditions, is_one])
    if plan is not None:
        query = f"SELECT m.archive_id FROM {plan.tables} WHERE {plan.where}"
        for (archive_id,) in db.execute(query, plan.values):
            yield archive_id
