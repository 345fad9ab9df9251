"""Claims about replicate, verify --object-store and restore, with a real radosgw."""

from __future__ import annotations

import hashlib
import os

import pytest

from postfix_archive.replicate import bucket as bucket_module
from postfix_archive.store import verifier

from replicated_store import BOARD, MONTH, Replicated, content_of, fill
from sample_store import ARRIVAL, LEGAL

pytestmark = pytest.mark.live


def test_a_store_restored_from_the_bucket_alone_is_the_same(
    replicated: Replicated,
) -> None:
    store = replicated.store
    fill(store)
    store.run("replicate", "--once")
    target = replicated.restore()
    assert content_of(target) == content_of(store.path)
    for archive in (LEGAL, BOARD):
        assert verifier.verify_archive(str(target / archive)).error_count == 0
    modes = {each.stat().st_mode & 0o777 for each in target.rglob("*.eml.gz")}
    assert modes == {0o400}
    store.run("verify", "--object-store")


def test_what_comes_later_is_uploaded_by_the_next_run(replicated: Replicated) -> None:
    store = replicated.store
    fill(store)
    store.run("replicate", "--once")
    before = replicated.keys()
    store.run("replicate", "--once")
    assert replicated.keys() == before
    store.add(b"five\r\n", arrival=ARRIVAL + MONTH)
    store.run("replicate", "--once")
    assert content_of(replicated.restore()) == content_of(store.path)


def test_without_the_state_the_service_asks_the_bucket(replicated: Replicated) -> None:
    store = replicated.store
    fill(store)
    store.run("replicate", "--once")
    before = replicated.keys()
    (store.directory / "fallback" / "replicated").unlink()
    store.run("replicate", "--once")
    assert replicated.keys() == before
    store.add(b"five\r\n", arrival=ARRIVAL + MONTH)
    store.run("replicate", "--once")
    assert content_of(replicated.restore()) == content_of(store.path)


def test_a_large_copy_is_uploaded_in_parts(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "PART_SIZE", 5 << 20)  # the least that S3 takes
    store = replicated.store
    archive_id = store.add(os.urandom(11 << 20).hex().encode() + b"\r\n")
    store.run("replicate", "--once")
    assert content_of(replicated.restore()) == content_of(store.path)
    path = store.copy_path(archive_id)
    key = str(path.relative_to(store.path))
    head = replicated.client.head_object(Bucket=replicated.name, Key=key)
    assert head["ETag"].strip('"').endswith("-3")  # the number of parts
    assert head["Metadata"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
