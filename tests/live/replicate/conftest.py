"""One real object storage for the tests of this directory, and a store for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from object_store import ObjectStore
from replicated_store import Replicated


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """A running radosgw."""
    with ObjectStore() as store:
        yield store


@pytest.fixture
def replicated(tmp_path: Path, object_store: ObjectStore) -> Replicated:
    """A store with a bucket of its own."""
    return Replicated(tmp_path, object_store)
