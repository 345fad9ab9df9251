"""Builds indexes for the tests of this package; nothing here is a test."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path

from postfix_archive.config.settings import Settings
from postfix_archive.search import extraction, search
from postfix_archive.search.archive_index import ArchiveIndex
from postfix_archive.search.content import MessageContent
from postfix_archive.search.indexer import Indexer
from postfix_archive.store import journal_reader, record_reader

from unit.examples import make_settings
from unit.search import corpus

Extract = Callable[[bytes], MessageContent]


def settings_of(store: Path) -> Settings:
    """The settings of a store with its index beside it."""
    return make_settings(
        f"archive_store_directory = {store}\narchive_index_directory = {store}-index\n"
    )


def catch_up(store: Path, extract: Extract = extraction.extract) -> list[str]:
    """Catch the indexes of all archives up; return the warnings."""
    warnings: list[str] = []
    extract_all = functools.partial(map, extract)
    for archive in record_reader.archives(str(store)):
        path = journal_reader.path_of(str(store), archive)
        index = ArchiveIndex(f"{store}-index/{archive}", path, warnings.append)
        with contextlib.closing(index):
            for _ in Indexer(str(store), archive, index, extract_all).catch_up():
                pass
    return warnings


def names_found(store: Path, query: str, sort: str = "newest") -> list[str]:
    """The names of the mails that a query finds, in order."""
    found = search.Search(settings_of(store), query, sort=sort)
    names = [corpus.BY_ID[each.archive_id].name for each in found.hits()]
    assert not found.notices, found.notices
    return names
