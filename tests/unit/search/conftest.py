"""Stores with the mails of corpus, made once: the tests that change one copy it."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.search import corpus, index_helpers


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with all mails, and its index, made at one time."""
    store = tmp_path_factory.mktemp("fresh") / "store"
    store.mkdir()
    corpus.store_all(store)
    assert index_helpers.catch_up(store) == []
    return store


@pytest.fixture(scope="session")
def caught_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with all mails whose index was caught up after each of them."""
    store = tmp_path_factory.mktemp("caught-up") / "store"
    store.mkdir()
    for mail in corpus.MAILS:
        mail.store_in(store)
        assert index_helpers.catch_up(store) == []
    return store
