"""Builds indexes for the tests of this package; nothing here is a test."""

from __future__ import annotations

import contextlib
from pathlib import Path

from postfix_archive.config.settings import Settings
from postfix_archive.search import extraction, indexer, search
from postfix_archive.search.archive_index import ArchiveIndex
from postfix_archive.store import journal_reader, record_reader

from unit.examples import make_settings
from unit.search import corpus


def settings_of(store: Path) -> Settings:
    """The settings of a store with its index beside it."""
    return make_settings(
        f"archive_store_directory = {store}\narchive_index_directory = {store}-index\n"
    )


def catch_up(store: Path, extract: indexer.Extract = extraction.extract) -> list[str]:
    """Catch the indexes of all archives up; return the warnings."""
    warnings: list[str] = []
    for archive in record_reader.archives(str(store)):
        path = journal_reader.path_of(str(store), archive)
        index = ArchiveIndex(f"{store}-index/{archive}", path, warnings.append)
        with contextlib.closing(index):
            for _ in indexer.Indexer(str(store), archive, index, extract).catch_up():
                pass
    return warnings


def names_found(store: Path, query: str, sort: str = "newest") -> list[str]:
    """The names of the mails that a query finds, in order."""
    found = search.Search(settings_of(store), query, sort=sort)
    names = [corpus.BY_ID[each.archive_id].name for each in found.hits()]
    assert not found.notices, found.notices
    return names
