"""Claims about archive_local_days: copies that are in the bucket alone."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from postfix_archive.cli import main
from postfix_archive.errors import StoreFailed
from postfix_archive.replicate import s3_client
from postfix_archive.retention import removal
from postfix_archive.store import copy_file, verifier
from postfix_archive.store.archive import of_settings
from postfix_archive.system.draft import Draft

import journal_lines
from memory_store import MemoryStore, Object
from replicated_store import BOARD, Replicated
from sample_store import ARRIVAL, LEGAL, SampleStore
from unit import kills

BODY = random.Random(17).randbytes(9000).hex().encode()
LINES = b"\r\n".join(BODY[start : start + 72] for start in range(0, len(BODY), 72))
ORIGINAL = b"Subject: the contract\r\nTo: bob@example.net\r\n\r\nzebra\r\n" + LINES
RULE = {"rule": "archive_retention", "period": "1d", "until": "2026-11-23", "by": "x"}
COMMANDS = [
    ("show", "--original"),
    ("show", "--raw"),
    ("show", "--json"),
]


@pytest.fixture
def replicated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replicated:
    """A store with a message in its bucket, of which no copy was moved yet."""
    bucket = MemoryStore()
    monkeypatch.setattr(s3_client, "connect", lambda *_: bucket.client())
    replicated = Replicated(tmp_path, bucket)
    replicated.configure(
        archive_object_lock="governance", archive_retention=f"{LEGAL}=10y"
    )
    replicated.store.add(ORIGINAL)
    replicated.store.run("replicate", "--once")
    replicated.configure(archive_local_days="1")
    return replicated


def path_of(store: SampleStore) -> Path:
    """Return the path of the first copy."""
    return min((store.path / LEGAL).glob("????/??/??/*.eml.gz"))


def id_of(store: SampleStore) -> str:
    return path_of(store).name.partition(".")[0]


def move(replicated: Replicated) -> bytes:
    """Let the copies go; return what the first one was."""
    path = path_of(replicated.store)
    content = path.read_bytes()
    replicated.store.run("replicate", "--once")
    assert copy_file.is_moved(str(path))
    return content


def object_of(replicated: Replicated) -> Object:
    """Return the object of the first copy."""
    [found] = [e for e in replicated.client.objects if e.key.endswith(".eml.gz")]
    assert isinstance(found, Object)
    return found


def test_the_header_stays_and_the_rest_is_read_from_the_bucket(
    replicated: Replicated, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = replicated.store
    archive_id = id_of(store)

    def outputs() -> list[str]:
        target = tmp_path_factory.mktemp("export") / "mails"
        outputs = [store.run(*words, archive_id).output for words in COMMANDS]
        outputs += [store.run(*each).output for each in (["list"], ["search", "zebra"])]
        store.run("export", "--format", "eml", target)
        outputs += [e.read_text() for e in sorted(target.rglob("*.eml"))]
        return outputs

    before = outputs()
    move(replicated)
    path = path_of(store)
    assert path.stat().st_mode & 0o777 == 0o400
    head = gzip.decompress(path.read_bytes())
    assert b"Final-Recipient: rfc822; bob@example.net" in head
    assert head.endswith(b"Subject: the contract\r\nTo: bob@example.net\r\n\r\n")
    assert outputs() == before
    store.run("index", "--rebuild")
    assert outputs() == before
    assert "object storage alone: s3://bucket-" in store.run("show", archive_id).output


def test_verify_counts_what_is_in_the_bucket_alone(replicated: Replicated) -> None:
    store = replicated.store
    move(replicated)
    output = store.run("verify", "--object-store").output
    assert "1 files, 1 in the object storage, " in output
    [archive] = json.loads(store.run("verify", "--json").output)["archives"]
    assert (archive["moved_files"], archive["findings"]) == (1, [])
    script = Path(verifier.__file__)
    command = [sys.executable, "-I", str(script), str(store.path)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 in the object storage" in process.stdout
    found = object_of(replicated)
    found.content = found.content[:-1]
    store.run("verify", "--object-store", exit_code=2)


def test_verify_finds_a_header_file_that_is_another_one(
    replicated: Replicated,
) -> None:
    store = replicated.store
    whole = move(replicated)
    path = path_of(store)
    header_file = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(header_file.replace(b"SHA-256 ", b"SHA-255 "))
    assert "SHA-256 differs" in store.run("verify", exit_code=2).output
    # The whole copy is right, after a restore or before a kill; its file alone is not.
    path.write_bytes(whole)
    path.chmod(0o400)
    store.run("verify")
    archive_id = store.add(ORIGINAL)
    other = store.copy_path(archive_id)
    other.chmod(0o600)
    other.write_bytes(header_file)
    assert "SHA-256 differs" in store.run("verify", exit_code=2).output


def test_a_copy_that_is_moved_while_verify_runs_is_no_error(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_digests = verifier._read_digests

    def move_before(
        path: str, size: int, file: verifier.StoredFile
    ) -> tuple[str, int, str, str]:
        move(replicated)
        return read_digests(path, size, file)

    monkeypatch.setattr(verifier, "_read_digests", move_before)
    assert "1 in the object storage" in replicated.store.run("verify").output


def test_a_kill_at_any_step_loses_nothing(replicated: Replicated) -> None:
    store = replicated.store
    archive_id = id_of(store)
    path = path_of(store)

    def run() -> None:
        store.run("replicate", "--once")

    for step in count(1):
        is_killed = kills.is_killed_at(step, run, only_changes=True)
        store.run("verify")
        chunks = copy_file.original(str(path), path.name, len(ORIGINAL))
        assert b"".join(chunks) == ORIGINAL
        if not is_killed:
            break
    assert step > 5
    assert copy_file.is_moved(str(path))
    assert store.run("show", "--json", archive_id).exit_code == 0


def test_what_takes_its_place_is_committed_at_once(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Draft.replace
    found = []

    def look_after(draft: Draft, path: str) -> None:
        replace(draft, path)
        found.append(copy_file.is_committed(path))

    monkeypatch.setattr(Draft, "replace", look_after)
    move(replicated)
    assert found == [True]


def test_a_restored_store_has_whole_copies(replicated: Replicated) -> None:
    whole = move(replicated)
    store = replicated.store
    store.run("replicate", "--once")
    target = replicated.restore()
    assert (target / path_of(store).relative_to(store.path)).read_bytes() == whole


def test_what_comes_again_is_a_supplement(replicated: Replicated) -> None:
    store = replicated.store
    move(replicated)
    path = path_of(store)
    archive = of_settings(store.settings, LEGAL)
    capture = copy_file.read_capture(str(path), LEGAL)
    header_file = path.read_bytes()
    events = journal_lines.events(store.path / LEGAL)
    line_count = len(events)
    capture.record_id = events[0]["id"]
    for capsule_id, added in ((events[0]["capsule"], 0), ("0" * 64, 1), ("0" * 64, 1)):
        capture.capsule_id = capsule_id
        archive.store_copy(capture, (b"copy",), "2026-11-23T00:00:00Z")
        assert path.read_bytes() == header_file
        events = journal_lines.events(store.path / LEGAL)
        assert len(events) - line_count == added
    assert events[-1]["event"] == "supplement"
    store.run("verify")
    assert store.run("show", "--json", id_of(store)).exit_code == 0


def test_a_removal_takes_it_from_store_index_and_bucket(
    replicated: Replicated,
) -> None:
    store = replicated.store
    archive_id = id_of(store)
    path = path_of(store)
    move(replicated)
    store.note_retention(archive_id)
    removal.remove(store.settings, LEGAL, archive_id, "purged", RULE)
    assert not path.exists()
    assert "the contract" not in store.run("search", "zebra").output
    store.run("verify")
    store.run("replicate", "--once")
    assert "still has" in store.run("verify", "--object-store").output  # it is locked
    for each in replicated.client.objects:
        each.until = None
    (store.directory / "fallback" / "replicated").unlink()
    store.run("replicate", "--once")
    assert not [e for e in replicated.keys() if archive_id in e]
    line = journal_lines.events(store.path / LEGAL)
    assert "copy" not in [each for each in line if each["event"] == "moved"][0]


def unlock(replicated: Replicated) -> None:
    for each in replicated.client.objects:
        each.until = None


def test_its_object_stays_until_the_index_has_forgotten_it(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the index would have to read all copies of its year."""
    store = replicated.store
    move(replicated)
    store.add(b"Subject: small\r\n\r\nsmall\r\n")
    store.run("index")
    store.run("replicate", "--once")
    archive_id = id_of(store)
    path = path_of(store)
    unlock(replicated)
    tell_index = removal._Removal._tell_index

    def tell_later(self: Any) -> Any:
        store.run("replicate", "--once")
        return tell_index(self)

    monkeypatch.setattr(removal._Removal, "_tell_index", tell_later)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replicated.client, "get_object", _refused)
        with pytest.raises(StoreFailed, match="the index has not forgotten it yet"):
            removal.remove(store.settings, LEGAL, archive_id, "purged", RULE)
    main._moved_copies.cache_clear()
    assert path.exists()
    assert f"{LEGAL}/{path.relative_to(store.path / LEGAL)}" in replicated.keys()
    assert removal.finish(store.settings, LEGAL, 0.0, pytest.fail) == 1
    assert not path.exists()
    assert "the contract" not in store.run("search", "zebra").output
    assert "small" in store.run("search", "small").output
    store.run("replicate", "--once")
    assert not [e for e in replicated.keys() if archive_id in e]


def test_a_header_file_that_was_changed_is_not_shown_as_right(
    replicated: Replicated,
) -> None:
    store = replicated.store
    whole = move(replicated)
    path = path_of(store)
    sha256 = hashlib.sha256(whole).hexdigest()
    content = gzip.decompress(whole)
    for forged in (content.replace(b"bob@", b"eve@"), content + b"longer"):
        path.chmod(0o600)
        tail = gzip.compress(forged)[10:]  # after the header of gzip
        path.write_bytes(copy_file.MOVED_START + sha256.encode() + b"\0" + tail)
        output = store.run("show", "--raw", id_of(store), exit_code=1).output
        assert "its beginning is not that of the whole copy" in output


def test_what_no_lock_protects_stays(replicated: Replicated) -> None:
    store = replicated.store
    unlock(replicated)
    replicated.configure(archive_retention=f"{LEGAL}=1d")
    store.run("replicate", "--once")
    assert not copy_file.is_moved(str(path_of(store)))


def test_a_hold_of_the_bucket_itself_stays(replicated: Replicated) -> None:
    object_of(replicated).hold = "ON"
    move(replicated)
    assert object_of(replicated).hold == "ON"


def test_another_bucket_gets_no_journal_without_its_copies(
    replicated: Replicated,
) -> None:
    store = replicated.store
    move(replicated)
    replicated.client.objects.clear()
    (store.directory / "fallback" / "replicated").unlink()
    output = store.run("replicate", "--once", exit_code=1).output
    assert "the whole copy is in another bucket alone; copy all versions" in output
    assert not [e for e in replicated.keys() if e.startswith(f"{LEGAL}/journal/")]


def test_a_copy_that_the_bucket_does_not_have_stays(replicated: Replicated) -> None:
    store = replicated.store
    path = path_of(store)
    found = object_of(replicated)
    whole, found.content = found.content, found.content[:-1]
    output = store.run("replicate", "--once").output
    assert f"{path}: not in the bucket as it is here, so it stays" in output
    assert path.read_bytes() == whole
    assert store.run("replicate", "--once").output == ""  # said once


def test_the_end_of_a_journal_is_looked_at_once(replicated: Replicated) -> None:
    store = replicated.store
    store.note_retention(id_of(store))
    move(replicated)
    store.run("replicate", "--once")
    state = json.loads((store.directory / "fallback" / "replicated").read_text())
    archive = state["archives"][LEGAL]
    assert archive["moved"] == archive["ends"]["journal"]["position"] > 0


def test_an_archive_that_fails_does_not_keep_others_from_it(
    replicated: Replicated,
) -> None:
    store = replicated.store
    periods = f"{LEGAL}=10y, {BOARD}=10y"
    replicated.configure(archive_local_days="0", archive_retention=periods)
    other = store.copy_path(store.add(ORIGINAL, archive=BOARD), BOARD)
    store.run("replicate", "--once")
    replicated.configure(archive_local_days="1")
    other.unlink()
    other.mkdir()
    output = store.run("replicate", "--once", exit_code=1).output
    assert str(other) in output
    assert copy_file.is_moved(str(path_of(store)))


def test_what_is_too_young_or_small_stays(replicated: Replicated) -> None:
    store = replicated.store
    move(replicated)
    small = store.add(b"Subject: small\r\n\r\nsmall\r\n")
    young = store.add(ORIGINAL, arrival=ARRIVAL + (1 << 31))
    old = store.add(ORIGINAL)
    for _ in range(2):
        store.run("replicate", "--once")
    assert not copy_file.is_moved(str(store.copy_path(small)))
    assert not copy_file.is_moved(str(store.copy_path(young)))
    assert not copy_file.is_moved(str(store.copy_path(old)))  # its line comes after
    store.run("verify", "--object-store")


def test_the_right_version_is_read(replicated: Replicated) -> None:
    store = replicated.store
    move(replicated)
    found = object_of(replicated)
    replicated.client.put_object(Key=found.key, Body=b"another")
    assert store.run("show", "--original", id_of(store)).stdout_bytes == ORIGINAL
    replicated.client.delete_object(Key=found.key)
    assert "zebra" in store.run("show", "--original", id_of(store)).output


def test_a_bucket_that_cannot_be_read_is_one_line(replicated: Replicated) -> None:
    store = replicated.store
    move(replicated)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replicated.client, "get_object", _refused)
        output = store.run("show", "--original", id_of(store), exit_code=1).stderr
        assert output.startswith("postfix-archive: CopyUnreachable: ")
        assert output.count("\n") == 1
        # Nothing is indexed without its text.
        rebuilt = store.run("index", "--rebuild", exit_code=1).output
        assert "CopyUnreachable" in rebuilt
        assert "the contract" in store.run("list").output
    # Another copy is not tried at once.
    failed = store.run("show", "--original", id_of(store), exit_code=1).stderr
    assert failed == output
    main._moved_copies.cache_clear()
    store.run("index", "--rebuild")
    assert "the contract" in store.run("search", "zebra").output
    replicated.client.objects.clear()
    output = store.run("show", "--original", id_of(store), exit_code=1).stderr
    assert output.count("\n") == 1
    assert "in the object storage, which has none with its SHA-256" in output


def _refused(**_: object) -> None:
    raise ClientError({"Error": {"Code": "AccessDenied"}}, "get")


def test_a_moved_event_of_another_record_is_an_error(replicated: Replicated) -> None:
    store = replicated.store
    move(replicated)
    archive_id = store.add(ORIGINAL)
    with of_settings(store.settings, LEGAL).open_journal() as journal_file:
        journal_file.append(
            "moved",
            "2026-11-23T00:00:00Z",
            id=archive_id,
            copy=str(path_of(store).relative_to(store.path / LEGAL)),
            local_sha256="0" * 64,
            bucket="s3://bucket/",
        )
    output = store.run("verify", exit_code=2).output
    assert "which no earlier line has as a copy of this record" in output


def test_the_only_copy_must_be_locked(replicated: Replicated) -> None:
    replicated.configure(archive_object_lock="none")
    output = replicated.store.run("replicate", "--once", exit_code=1).output
    assert "archive_local_days is set: the only copy of a message must be" in output
