"""The shortest beginnings of archive ids that are still unique in the index.

Used by the lists of the commands. Raises StoreFailed.
"""

from __future__ import annotations

import contextlib
import os.path
from collections.abc import Iterable

from postfix_archive.config.settings import Settings
from postfix_archive.errors import IndexFailed
from postfix_archive.search.index_reader import ArchiveReader
from postfix_archive.store import record_reader

MIN_LENGTH = 13  # characters: the day, a dash and four digits
# Without an index: 48 bits, enough for millions of messages on one day.
DEFAULT_LENGTH = 21


def shorten(settings: Settings, archive_ids: Iterable[str]) -> dict[str, str]:
    """Return for each archive id a beginning of it that no other id in an index has."""
    ids = list(archive_ids)
    with contextlib.suppress(IndexFailed):
        return _shorten_by_index(settings, ids)
    return {each: each[:DEFAULT_LENGTH] for each in ids}


def _shorten_by_index(settings: Settings, archive_ids: list[str]) -> dict[str, str]:
    """Raises IndexFailed for an index that is missing or cannot be read."""
    archives = record_reader.archives(settings.archive_store_directory)
    lengths = dict.fromkeys(archive_ids, MIN_LENGTH)
    for archive in archives:
        reader = ArchiveReader(settings.archive_index_directory, archive)
        if reader.position is None:
            raise IndexFailed(f"{archive} has no index")
        for each in lengths:
            for other in reader.neighbours(each):
                common = os.path.commonprefix([each, other])
                lengths[each] = max(lengths[each], len(common) + 1)
    return {each: each[:length] for each, length in lengths.items()}
