"""What the tests of this package share: an index without a process for extraction."""

from __future__ import annotations

import contextlib
import functools

import pytest

from postfix_archive.search import extraction
from postfix_archive.search.archive_index import ArchiveIndex
from postfix_archive.search.indexer import Indexer
from postfix_archive.store import journal_reader, record_reader

from sample_store import SampleStore

CONTRACT = b"From: anna@example.org\r\nSubject: the contract\r\n\r\nplease sign\r\n"
LUNCH = b"From: bob@example.org\r\nSubject: lunch\r\n\r\nat noon\r\n"


class InlineExtractor:
    """Takes the place of extraction_process.Extractor, which starts a process."""

    extract_all = functools.partial(map, extraction.extract)

    def close(self) -> None:
        """Nothing to end."""


def index(store: SampleStore) -> None:
    """Catch the indexes of all archives up."""
    path, directory = str(store.path), f"{store.directory}/index"
    for archive in record_reader.archives(path):
        journal_path = journal_reader.path_of(path, archive)
        one = ArchiveIndex(f"{directory}/{archive}", journal_path, pytest.fail)
        with contextlib.closing(one):
            extract_all = InlineExtractor.extract_all
            for _ in Indexer(path, archive, one, extract_all).catch_up():
                pass
