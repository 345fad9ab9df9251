"""Claims about replicate, verify --object-store and restore, with a real radosgw."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from postfix_archive.replicate import bucket as bucket_module
from postfix_archive.replicate import replication_lag
from postfix_archive.retention import removal
from postfix_archive.store import copy_file, verifier
from postfix_archive.store.journal import Journal

from object_store import ObjectStore
from replicated_store import BOARD, MONTH, Replicated, content_of, fill
from sample_store import ARRIVAL, LEGAL, SampleStore

pytestmark = pytest.mark.live
RULE = {"rule": "archive_retention", "period": "1y", "until": "2026-11-29", "by": "x"}


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


def test_old_copies_are_in_the_bucket_alone(replicated: Replicated) -> None:
    store = replicated.store
    replicated.configure(
        archive_object_lock="governance", archive_retention=f"{LEGAL}=10y"
    )
    original = b"Subject: large\r\n\r\n" + os.urandom(9000).hex().encode()
    archive_id = store.add(original)
    store.run("replicate", "--once")
    whole = content_of(store.path)
    replicated.configure(archive_local_days="1")
    store.run("replicate", "--once")
    assert copy_file.is_moved(str(store.copy_path(archive_id)))
    assert store.run("show", "--original", archive_id).stdout_bytes == original
    store.run("replicate", "--once")
    output = store.run("verify", "--object-store").output
    assert "1 in the object storage" in output
    assert "note" not in output
    name = str(store.copy_path(archive_id).relative_to(store.path))
    assert content_of(replicated.restore())[name] == whole[name]


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


def test_an_object_can_be_neither_deleted_nor_replaced_before_its_day(
    replicated: Replicated,
) -> None:
    store = replicated.store
    archive_id = store.add(b"Subject: one\r\n\r\none\r\n")
    replicated.configure(
        archive_object_lock="compliance", archive_retention=f"{LEGAL}=10y"
    )
    store.run("replicate", "--once")
    bucket = {"Bucket": replicated.name}
    listed = replicated.client.list_object_versions(**bucket)["Versions"]
    assert len(listed) == 4  # copy, its details, those of the segment, the chain
    for each in listed:
        version = {**bucket, "Key": each["Key"], "VersionId": each["VersionId"]}
        with pytest.raises(ClientError, match="AccessDenied"):
            replicated.client.delete_object(**version)
        with pytest.raises(ClientError, match="AccessDenied"):
            replicated.client.delete_object(**version, BypassGovernanceRetention=True)
        head = replicated.client.head_object(**version)
        assert head["ObjectLockMode"] == "COMPLIANCE"
        if archive_id in each["Key"]:
            # ARRIVAL is on 2026-11-22, which is the last day ten years later.
            until = head["ObjectLockRetainUntilDate"].isoformat()
            assert until.startswith("2036-11-23T00:00:00")
        replicated.client.put_object(**bucket, Key=each["Key"], Body=b"other")
        content = replicated.client.get_object(**version)["Body"].read()
        assert len(content) == each["Size"]
    assert content_of(replicated.restore()) == content_of(store.path)


def test_a_lock_needs_a_rule(replicated: Replicated) -> None:
    replicated.store.add(b"one\r\n")
    replicated.configure(archive_object_lock="governance", archive_retention="")
    output = replicated.store.run("replicate", "--once", exit_code=1).output
    assert f"archive_retention has no period for {LEGAL}" in output
    assert replicated.keys() == []


def test_a_bucket_without_object_lock_is_refused(
    tmp_path: Path, object_store: ObjectStore
) -> None:
    replicated = Replicated(tmp_path, object_store, has_lock=False)
    store = replicated.store
    store.add(b"one\r\n")
    replicated.configure(
        archive_object_lock="governance", archive_retention=f"{LEGAL}=10y"
    )
    output = store.run("replicate", "--once", exit_code=1).output
    assert "the bucket has no Object Lock" in output
    assert replicated.keys() == []
    replicated.configure(archive_object_lock="none")
    store.run("replicate", "--once")
    assert content_of(replicated.restore()) == content_of(store.path)


def test_a_hold_sets_the_flag_of_all_objects_and_its_release_takes_it_away(
    replicated: Replicated,
) -> None:
    store = replicated.store
    held, free = store.add(b"Subject: jones\r\n\r\none\r\n"), store.add(b"two\r\n")
    replicated.configure(
        archive_object_lock="governance", archive_retention=f"{LEGAL}=10y"
    )
    store.run("replicate", "--once")
    assert replicated.held_ids() == set()
    store.run("hold", "add", "jones", "--query", "jones", "--reason", "a test")
    store.run("replicate", "--once")
    assert replicated.held_ids() == {held}
    later = store.add(b"Subject: jones\r\n\r\nthree\r\n")
    store.run("replicate", "--once")
    assert replicated.held_ids() == {held, later}
    store.run("hold", "release", "jones", "--reason", "a test")
    store.run("replicate", "--once")
    assert replicated.held_ids() == set()
    assert free not in replicated.held_ids()
    assert content_of(replicated.restore()) == content_of(store.path)


def test_a_rule_that_got_longer_makes_the_lock_longer(replicated: Replicated) -> None:
    store = replicated.store
    archive_id = store.add(b"one\r\n")
    replicated.configure(
        archive_object_lock="governance", archive_retention=f"{LEGAL}=1y"
    )
    store.run("replicate", "--once")
    assert replicated.days(archive_id) == {"2027-11-23"}
    [before] = {each[:4] for each in replicated.days(f"{LEGAL}/journal")}
    replicated.configure(archive_retention=f"{LEGAL}=30y")
    store.run("replicate", "--once")
    [after] = {each[:4] for each in replicated.days(f"{LEGAL}/journal")}
    assert int(after) == int(before) + 29
    replicated.configure(archive_retention=f"{LEGAL}=1y")
    decision = {**RULE, "period": "10y", "until": "2036-11-22"}
    with Journal(str(store.path / LEGAL)) as journal:
        journal.append("retention", "2026-11-30T00:00:00Z", id=archive_id, **decision)
    store.run("replicate", "--once")
    assert replicated.days(f"{archive_id}.eml.gz") == {"2036-11-23"}
    decision["until"] = "2028-11-22"
    with Journal(str(store.path / LEGAL)) as journal:
        journal.append("retention", "2026-11-30T00:00:00Z", id=archive_id, **decision)
    store.run("replicate", "--once")
    assert replicated.days(f"{archive_id}.eml.gz") == {"2036-11-23"}


def test_a_purge_deletes_the_objects_as_soon_as_their_lock_allows(
    replicated: Replicated,
) -> None:
    store = replicated.store
    gone = store.add(b"one\r\n", arrival=ARRIVAL - 400 * 86400)  # its day is past
    locked, kept = store.add(b"two\r\n"), store.add(b"three\r\n")
    replicated.configure(
        archive_object_lock="governance", archive_retention=f"{LEGAL}=1y"
    )
    store.run("replicate", "--once")
    for each in (gone, locked):
        store.note_retention(each)
        removal.remove(store.settings, LEGAL, each, "purged", RULE)
    store.run("replicate", "--once")
    keys = replicated.keys()
    assert not any(gone in each for each in keys)
    assert any(locked in each for each in keys)
    assert any(kept in each for each in keys)
    output = store.run("verify", "--object-store").output
    assert f"note: {locked}: removed, and the bucket still has 2 objects" in output
    assert "locked until 2027-11-23" in output
    assert replication_lag.lag(store.settings, LEGAL) == (0, 0.0, 1)
    # What was removed does not come back, though the bucket still has it.
    restored = replicated.restore()
    assert content_of(restored) == content_of(store.path)
    assert not any(locked in each for each in content_of(restored))


def test_a_message_that_is_archived_again_after_its_removal_stays(
    replicated: Replicated,
) -> None:
    store = replicated.store
    archive_id = store.add(b"one\r\n")
    store.run("replicate", "--once")
    store.note_retention(archive_id)
    removal.remove(store.settings, LEGAL, archive_id, "purged", RULE)
    again = SampleStore(store.directory / "again")
    again.path = store.path
    recipients = (b"carol@example.net",)  # of another capsule
    assert again.add(b"one\r\n", recipients=recipients) == archive_id
    store.run("replicate", "--once")
    assert sum(archive_id in each for each in replicated.keys()) == 2
    assert content_of(replicated.restore()) == content_of(store.path)
    store.run("verify", "--object-store")
    (store.directory / "fallback" / "replicated").unlink()
    store.run("replicate", "--once")
    assert sum(archive_id in each for each in replicated.keys()) == 2


def test_seals_are_in_the_bucket(replicated: Replicated) -> None:
    store = replicated.store
    store.add(b"one\r\n")
    replicated.configure(archive_seal_file=str(store.directory / "seals"))
    store.run("seal")
    store.run("replicate", "--once")
    assert any(each.startswith("seals/") for each in replicated.keys())
    assert content_of(replicated.restore()) == content_of(store.path)
