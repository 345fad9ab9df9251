"""Claims about replicate, verify --object-store, restore: with a bucket in memory."""

from __future__ import annotations

import datetime
import errno
import os
import posix
import re
import signal
import threading
from pathlib import Path

import pytest

from postfix_archive.cli import main
from postfix_archive.replicate import (
    layout,
    replication_service,
    replication_state,
    s3_client,
)
from postfix_archive.replicate.bucket import Bucket
from postfix_archive.retention import removal
from postfix_archive.store import copy_file, journal_format, verifier
from postfix_archive.store.journal_format import Segments
from postfix_archive.store.journal_reader import Line
from postfix_archive.store.outcome import Outcome
from postfix_archive.system.draft import Draft

import journal_lines
from memory_store import MemoryStore, Object
from replicated_store import BOARD, Replicated, content_of, fill
from sample_store import LEGAL, SampleStore
from unit import kills

RULE = {"rule": "archive_retention", "period": "1y", "until": "2026-11-29", "by": "x"}


@pytest.fixture
def replicated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replicated:
    """A store with a bucket of its own."""
    store = MemoryStore()
    monkeypatch.setattr(s3_client, "connect", lambda *_: store.client())
    return Replicated(tmp_path, store)


def test_a_store_restored_from_the_bucket_alone_is_the_same(
    replicated: Replicated,
) -> None:
    store = replicated.store
    fill(store)
    store.run("replicate", "--once")
    assert content_of(replicated.restore()) == content_of(store.path)
    store.run("verify", "--object-store")


def parts_of(replicated: Replicated) -> list[Object]:
    """Return the chained parts of the journal in the bucket, oldest first."""
    prefix = f"{LEGAL}/journal/"
    return [each for each in replicated.client.objects if each.key.startswith(prefix)]


def replicate_three(replicated: Replicated) -> list[Object]:
    """Archive three messages, each of which becomes a part of the journal."""
    for number in range(3):
        replicated.store.add(b"%d\r\n" % number)
        replicated.store.run("replicate", "--once")
    return parts_of(replicated)


def test_a_part_that_is_lost_or_damaged_is_an_error(replicated: Replicated) -> None:
    """A journal that ends before it would look whole."""
    store = replicated.store
    parts = replicate_three(replicated)
    contents = [each.content for each in parts]
    for number, damage in [(0, b""), (1, b""), (1, contents[1][:-9]), (2, b"")]:
        lost = parts[number]
        lost.content = damage
        position = int(lost.key[-37:-19])
        text = f"from byte {position} on: missing or damaged in the bucket"
        output = store.run("verify", "--object-store", exit_code=2).output
        assert output.count(text) == 1
        target = replicated.restore(exit_code=2)
        output = store.run("restore", target, exit_code=2).output  # and again
        assert output.count(text) == 1
        lost.content = contents[number]
    # Its last part is gone: only the service knows that it was there.
    replicated.client.objects.remove(parts[2])
    output = store.run("verify", "--object-store", exit_code=2).output
    assert "missing or damaged in the bucket" in output


def plant(replicated: Replicated, part: Object, end: int, content: bytes) -> None:
    """Put another part that begins where this one does."""
    key = f"{part.key[:-18]}{end:018d}"
    replicated.client.put_object(Key=key, Body=content)


def test_a_forged_part_does_not_take_the_place_of_an_older_one(
    replicated: Replicated,
) -> None:
    store = replicated.store
    first = replicate_three(replicated)[0]
    last = list(layout.chained_lines(first.content, 0))[-1]
    event = {"seq": 3, "time": "2026-11-22T11:53:00Z", "event": "mailed"}
    prev = journal_format.line_sha256(last.first)
    line = Line(last.end, journal_lines.make_line(event, prev))
    forged, _ = layout.split([line])
    plant(replicated, first, line.end, first.content + forged)
    assert content_of(replicated.restore()) == content_of(store.path)
    store.run("verify", "--object-store")


def test_a_part_of_an_absurd_size_is_no_part(replicated: Replicated) -> None:
    store = replicated.store
    store.add(b"one\r\n")
    end = 10**18 - 1
    event = {"seq": 1, "time": "2026-11-22T11:53:00Z", "event": "segment"}
    text = journal_lines.make_line(event).partition(b"\t")[0]
    size = str(end - len(text) - 2 - 16).encode()
    text = re.sub(rb'"details_size":\d+', b'"details_size":' + size, text)
    size = str(end - len(text) - 2).encode()
    text = re.sub(rb'"details_size":\d+', b'"details_size":' + size, text)
    key = f"{LEGAL}/journal/2026-11/{0:018d}-{end}"
    replicated.client.put_object(Key=key, Body=text + b"\t" + size + b"\n")
    store.run("replicate", "--once")
    assert content_of(replicated.restore()) == content_of(store.path)


def test_parts_that_overlap_after_a_crash_are_one_journal(
    replicated: Replicated,
) -> None:
    """An older state comes back: what it does not know is uploaded again."""
    store = replicated.store
    state = store.directory / "fallback" / "replicated"
    store.add(b"one\r\n")
    store.run("replicate", "--once")
    before = state.read_bytes()
    for number in range(2):
        store.add(b"two%d\r\n" % number)
        store.run("replicate", "--once")
    state.write_bytes(before)
    store.add(b"three\r\n")
    store.run("replicate", "--once")
    store.add(b"four\r\n")
    store.run("replicate", "--once")
    assert content_of(replicated.restore()) == content_of(store.path)
    store.run("verify", "--object-store")


def test_a_restored_journal_has_what_the_seals_have(replicated: Replicated) -> None:
    store = replicated.store
    replicated.configure(archive_seal_file=str(store.directory / "seal-file"))
    replicate_three(replicated)
    store.run("seal")
    store.run("replicate", "--once")
    assert content_of(replicated.restore()) == content_of(store.path)
    # Who has all credentials can leave a bucket whose journal ends before the seal.
    for part in parts_of(replicated)[1:]:
        replicated.client.objects.remove(part)
    target = store.directory / "target"
    output = store.run("restore", target, exit_code=2).output
    assert "000001-" in output and "ERROR" in output


def test_an_interrupted_restore_goes_on(replicated: Replicated) -> None:
    """Killed before each change of the file system, each time by a new process."""
    store = replicated.store
    fill(store)
    store.run("replicate", "--once")
    target = store.directory / "target"

    def restore() -> None:
        main.main(["-c", str(store.directory), "restore", str(target)])

    step = 1
    while kills.is_killed_at(step, restore, only_changes=True):
        step += 1
    assert step > 10
    store.run("restore", target)
    for draft in target.glob("*/.*.last.*"):  # which the next writer removes
        draft.unlink()
    assert content_of(target) == content_of(store.path)
    # Nor does another store get the bucket's lines, or lose its own.
    store.add(b"later\r\n")
    before = content_of(store.path)
    output = store.run("restore", store.path, exit_code=1).output
    assert "there is a journal already" in output
    assert content_of(store.path) == before


def test_the_umask_is_changed_by_one_thread_only(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of the process: two threads could leave it open for all files."""
    fill(replicated.store)
    replicated.store.run("replicate", "--once")
    threads, umask = set(), posix.umask

    def recording_umask(mask: int) -> int:
        threads.add(threading.current_thread())
        return umask(mask)

    monkeypatch.setattr(posix, "umask", recording_umask)
    replicated.restore()
    assert threads == {threading.main_thread()}


def test_a_draft_that_a_killed_restore_leaves_is_no_file_of_the_archive(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = replicated.store
    archive_id = store.add(b"one\r\n")
    store.run("replicate", "--once")
    key = f"{LEGAL}/{copy_file.copy_name(archive_id)}"
    replicated.client.put_object(Key=key, Body=b"other")
    monkeypatch.setattr(Draft, "discard", lambda _: None)
    assert content_of(replicated.restore()) == content_of(store.path)


def test_what_comes_after_a_removal_is_not_missed(replicated: Replicated) -> None:
    """The details of a late outcome are not uploaded."""
    store = replicated.store
    archive_id = store.add(b"one\r\n")
    store.run("replicate", "--once")
    store.note_retention(archive_id)
    removal.remove(store.settings, LEGAL, archive_id, "purged", RULE)
    outcome = Outcome("bob@example.net", "delivered", "4Z1", "4Z1", "2026-11-22")
    store.add_outcome(archive_id, outcome)
    store.run("replicate", "--once")
    replicated.restore()
    store.run("verify", "--object-store")
    archive_again(store, b"one\r\n")
    store.run("replicate", "--once")
    replicated.restore()
    store.run("verify", "--object-store")


def test_details_after_a_removal_in_the_same_part_are_compared(
    replicated: Replicated,
) -> None:
    store = replicated.store
    archive_id = store.add(b"one\r\n")
    store.run("replicate", "--once")
    store.note_retention(archive_id)
    removal.remove(store.settings, LEGAL, archive_id, "purged", RULE)
    archive_again(store, b"one\r\n")
    store.run("replicate", "--once")
    store.run("verify", "--object-store")
    [details] = [
        each
        for each in replicated.client.objects
        if f"{archive_id}.details/" in each.key
    ]
    replicated.client.objects.remove(details)
    output = store.run("verify", "--object-store", exit_code=2).output
    assert "the bucket does not have the details of this line" in output


def archive_again(store: SampleStore, content: bytes) -> str:
    """Archive the first message of a store again, after its removal; return its id."""
    again = SampleStore(store.directory / "again")
    again.path = store.path
    return again.add(content, recipients=(b"carol@example.net",))  # another capsule


@pytest.mark.parametrize("mode", ["none", "governance"])
def test_a_file_that_cannot_be_read_is_uploaded_once_it_can(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Missing or damaged, it does not keep others from the bucket; else it does."""
    store = replicated.store
    replicated.configure(archive_object_lock=mode, archive_retention=f"{LEGAL}=10y")
    damaged, missing = store.add(b"one\r\n"), store.add(b"two\r\n")
    contents = {}
    for archive_id in (damaged, missing):
        contents[archive_id] = store.copy_path(archive_id).read_bytes()
        store.copy_path(archive_id).unlink()
    store.copy_path(damaged).write_bytes(b"damaged")
    output = store.run("replicate", "--once").output
    assert "does not have the SHA-256 in the journal; not replicated" in output
    assert "No such file or directory" in output
    assert len(parts_of(replicated)) == 1
    assert store.run("replicate", "--once").output == ""  # said once
    for archive_id, content in contents.items():
        store.copy_path(archive_id).unlink(missing_ok=True)
        store.copy_path(archive_id).write_bytes(content)
        store.copy_path(archive_id).chmod(0o400)
    store.run("replicate", "--once")
    assert content_of(replicated.restore()) == content_of(store.path)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    archive_id = store.add(b"three\r\n")
    with monkeypatch.context() as context:
        context.setattr(Bucket, "put_file", fail)
        output = store.run("replicate", "--once", exit_code=1).output
    assert f"{archive_id}.eml.gz: Input/output error" in output
    assert len(parts_of(replicated)) == 1
    store.run("replicate", "--once")
    assert content_of(replicated.restore()) == content_of(store.path)


def test_a_removed_record_with_a_damaged_file_is_forgotten(
    replicated: Replicated,
) -> None:
    store = replicated.store
    archive_id = store.add(b"one\r\n")
    store.copy_path(archive_id).chmod(0o600)
    store.copy_path(archive_id).write_bytes(b"damaged")
    store.run("replicate", "--once")
    store.note_retention(archive_id)
    removal.remove(store.settings, LEGAL, archive_id, "purged", RULE)
    store.run("replicate", "--once")
    assert content_of(replicated.restore()) == content_of(store.path)
    state = replication_state.read(store.settings)
    assert state and not state.archives[LEGAL].damaged


def test_a_line_that_is_not_durable_is_not_uploaded(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = replicated.store
    store.add(b"one\r\n")

    def fail(self: Segments) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(Segments, "sync", fail)
        output = store.run("replicate", "--once", exit_code=1).output
    assert "line 2 cannot be made durable, so it is not uploaded" in output
    assert not replicated.client.objects
    store.run("replicate", "--once")
    assert content_of(replicated.restore()) == content_of(store.path)


def test_seals_are_locked_as_long_as_any_journal(replicated: Replicated) -> None:
    """Only when all archives have run: an archive that failed may need the longest."""
    store = replicated.store
    replicated.configure(
        archive_object_lock="governance",
        archive_retention=f"{LEGAL}=1y",
        archive_seal_file=str(store.directory / "seal-file"),
    )
    store.add(b"one\r\n")
    store.add(b"two\r\n", archive=BOARD)
    store.run("seal")
    store.run("replicate", "--once", exit_code=1)  # no period for BOARD
    assert not any(each.startswith("seals/") for each in replicated.keys())
    for period, days in (("10y", 10), ("1y", 10), ("20y", 20), ("1y", 20), ("20y", 20)):
        replicated.configure(archive_retention=f"{LEGAL}=1y, {BOARD}={period}")
        store.add(b"%d\r\n" % days, archive=BOARD)
        store.run("replicate", "--once")
        this_year = datetime.datetime.now(datetime.UTC).year
        for name in ("seals/", f"{BOARD}/journal"):
            years = {int(each[:4]) - this_year for each in replicated.days(name)}
            if period != "1y":
                assert years == {days}, (name, period)


def test_a_seal_that_is_none_is_one_line(replicated: Replicated) -> None:
    store = replicated.store
    store.add(b"one\r\n")
    replicated.configure(archive_seal_file=str(store.directory / "seal-file"))
    store.run("seal")
    [seal] = (store.path / "seals").glob("*.json")
    os.truncate(seal, verifier.SEAL_LIMIT + 1)
    output = store.run("replicate", "--once", exit_code=1).output
    assert output.splitlines()[-1].endswith(
        f"{seal}: not a seal: too large; run postfix-archive verify"
    )


def test_a_record_that_was_archived_again_is_held(replicated: Replicated) -> None:
    store = replicated.store
    replicated.configure(
        archive_object_lock="governance", archive_retention=f"{LEGAL}=10y"
    )
    content = b"Subject: jones\r\n\r\none\r\n"
    archive_id = store.add(content)
    store.note_retention(archive_id)
    removal.remove(store.settings, LEGAL, archive_id, "purged", RULE)
    assert archive_again(store, content) == archive_id
    store.run("replicate", "--once")
    store.run("hold", "add", "jones", "--query", "jones", "--reason", "a test")
    store.run("replicate", "--once")
    assert replicated.held_ids() == {archive_id}


def test_a_hold_ends_in_archives_that_were_made_after_it_began(
    replicated: Replicated,
) -> None:
    """Their journals have no event about it."""
    store = replicated.store
    replicated.configure(
        archive_object_lock="governance",
        archive_retention=f"{LEGAL}=10y, {BOARD}=10y",
    )
    store.add(b"Subject: smith\r\n\r\none\r\n")
    store.run("hold", "add", "jones", "--query", "jones", "--reason", "a test")
    archive_id = store.add(b"Subject: jones\r\n\r\ntwo\r\n", archive=BOARD)
    store.run("replicate", "--once")
    assert replicated.held_ids() == {archive_id}
    store.run("hold", "release", "jones", "--reason", "a test")
    store.run("replicate", "--once")
    assert replicated.held_ids() == set()


def test_new_credentials_are_read_while_the_service_runs(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also such that come while it reads the old ones."""
    store = replicated.store
    credentials = store.directory / "credentials"
    read = []

    def connect(*_: object) -> object:
        read.append(credentials.read_text())
        if len(read) < 3:
            credentials.write_text("new" * len(read))
        else:
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        return replicated.client

    monkeypatch.setattr(s3_client, "connect", connect)
    monkeypatch.setattr(replication_service, "POLL_SECONDS", 0.0)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        store.run("replicate", "--follow")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert read[1:] == ["new", "newnew"]
