"""The shortest beginnings of archive ids that are still unique in the index.

Used by the lists of the commands. Raises StoreFailed.
"""

from __future__ import annotations

import contextlib
import os.path
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain

from postfix_archive.config.settings import Settings
from postfix_archive.errors import IndexFailed
from postfix_archive.search import archive_index, search
from postfix_archive.store import record_reader

MIN_LENGTH = 13  # characters: the day, a dash and four digits
# Without an index: 48 bits, enough for millions of messages on one day.
DEFAULT_LENGTH = 21
NEIGHBOURS = (
    "SELECT max(archive_id) FROM message WHERE archive_id < ?",
    "SELECT min(archive_id) FROM message WHERE archive_id > ?",
)


def shorten(settings: Settings, archive_ids: Iterable[str]) -> dict[str, str]:
    """Return for each archive id a beginning of it that no other id in an index has."""
    ids = list(archive_ids)
    with contextlib.suppress(IndexFailed):
        return _shorten_by_index(settings, ids)
    return {each: each[:DEFAULT_LENGTH] for each in ids}


def _shorten_by_index(settings: Settings, archive_ids: list[str]) -> dict[str, str]:
    """Raises IndexFailed for an index that is missing or cannot be read."""
    archives = record_reader.archives(settings.archive_store_directory)
    directories = [f"{settings.archive_index_directory}/{each}" for each in archives]
    if not all(map(archive_index.read_state, directories)):
        raise IndexFailed("an archive has no index")
    lengths = dict.fromkeys(archive_ids, MIN_LENGTH)
    for path in chain(*map(archive_index.database_paths, directories)):
        with search.open_database(path) as db:
            for each in lengths:
                for other in _neighbours(db, each):
                    common = os.path.commonprefix([each, other])
                    lengths[each] = max(lengths[each], len(common) + 1)
    return {each: each[:length] for each, length in lengths.items()}


def _neighbours(db: sqlite3.Connection, archive_id: str) -> Iterator[str]:
    for query in NEIGHBOURS:
        [other] = db.execute(query, (archive_id,)).fetchone()
        if other:
            yield other
