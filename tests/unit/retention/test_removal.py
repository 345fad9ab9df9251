"""Claims about removal: what goes, what stays, whatever interrupts it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from postfix_archive.errors import RecordDamaged, RecordHeld, RecordNotFound
from postfix_archive.message import dates
from postfix_archive.retention import holds, removal
from postfix_archive.search import index_update
from postfix_archive.search.search import Search
from postfix_archive.store import copy_file, journal, record_reader, verifier
from postfix_archive.store.archive import Archive
from postfix_archive.store.copy_file import Capture
from postfix_archive.store.outcome import Outcome

import journal_lines
from sample_store import ARRIVAL, LEGAL, SampleStore

DETAILS = {"rule": "archive_retention", "until": "2036-11-22", "by": "postfix"}
TIME = dates.format_rfc3339(ARRIVAL)


def mail(word: str) -> bytes:
    return b"From: anna@example.org\r\nSubject: %b\r\n\r\n%b\r\n" % (
        word.encode(),
        word.encode(),
    )


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    """Two records, the first one with an outcome and a report, and their index."""
    made = SampleStore(tmp_path)
    first = made.add(mail("apricot"), recipients=(b"zoe@example.net",))
    made.add(mail("banana"))
    for archive_id in ids(made):
        made.note_retention(archive_id)
    add_outcome(made, first)
    Archive(str(made.path), LEGAL).store_outcome_report(first, [b"x"], "c", TIME)
    catch_up(made)
    return made


def add_outcome(store: SampleStore, archive_id: str) -> None:
    store.add_outcome(
        archive_id,
        Outcome(
            recipient="zoe@example.net",
            kind="relayed",
            capture_queue_id="4Z0000000001",
            queue_id="4Z0000000009",
            time=TIME,
        ),
    )


def catch_up(store: SampleStore) -> None:
    index_update.catch_up(store.settings, LEGAL, print)


def ids(store: SampleStore) -> list[str]:
    events = journal_lines.events(store.path / LEGAL)
    return [each["id"] for each in events if each["event"] == "archived"]


def found(store: SampleStore, query: str) -> list[str]:
    return [each.archive_id for each in Search(store.settings, query).hits()]


def stored_files(store: SampleStore) -> set[str]:
    return {each.name.partition(".")[0] for each in store.path.rglob("*.eml.gz")}


def findings(store: SampleStore) -> list[str]:
    result = verifier.verify_archive(str(store.path / LEGAL))
    return [str(each) for each in result.findings]


def journal_text(store: SampleStore) -> bytes:
    return b"".join(
        each.read_bytes() for each in journal_lines.segments(store.path / LEGAL)
    )


def test_a_removed_record_leaves_its_event_and_nothing_else(store: SampleStore) -> None:
    first, second = ids(store)
    size = len(journal_text(store))
    removal.remove(store.settings, LEGAL, first, "purged", DETAILS)
    assert stored_files(store) == {second}
    *_, event = journal_lines.events(store.path / LEGAL)
    assert (event["event"], event["id"]) == ("purged", first)
    assert DETAILS.items() <= event.items()
    text = journal_text(store)
    assert b"zoe@example.net" not in text and b"bob@example.net" in text
    assert len(text) > size
    assert findings(store) == []
    assert found(store, "apricot") == found(store, "rcpt:zoe@example.net") == []
    assert found(store, "*") == [second]
    for path in (store.directory / "index").rglob("*"):
        if path.is_file():
            assert b"apricot" not in path.read_bytes()
            assert b"zoe" not in path.read_bytes()


def test_a_second_original_goes_with_the_first(store: SampleStore) -> None:
    first, second = ids(store)
    add_second_original(store, first)
    assert len(list(store.path.rglob(f"{first}*.eml.gz"))) == 3
    removal.remove(store.settings, LEGAL, first, "purged", DETAILS)
    assert stored_files(store) == {second}
    assert findings(store) == []


def read_copy(store: SampleStore, archive_id: str) -> tuple[Capture, bytes]:
    """What store_copy() gets, to archive the message once more."""
    path = str(store.copy_path(archive_id))
    capture = copy_file.read_capture(path, LEGAL)
    capture.record_id = archive_id
    return capture, b"".join(copy_file.decompress(path, 1 << 20))


def store_copy(store: SampleStore, capture: Capture, content: bytes) -> None:
    Archive(str(store.path), LEGAL).store_copy(capture, [content], TIME)


def add_second_original(store: SampleStore, archive_id: str) -> None:
    capture, content = read_copy(store, archive_id)
    capture.sha256, capture.capsule_id = "ab" * 32, "cd" * 32
    store_copy(store, capture, content)


def test_removing_twice_is_harmless(store: SampleStore) -> None:
    first, _ = ids(store)
    removal.remove(store.settings, LEGAL, first, "purged", DETAILS)
    text = journal_text(store)
    removal.remove(store.settings, LEGAL, first, "erased", DETAILS)
    assert journal_text(store) == text


def test_an_unknown_record_removes_nothing(store: SampleStore) -> None:
    text, names = journal_text(store), stored_files(store)
    details = dict.fromkeys([*ids(store), "20261122-" + "0" * 40], DETAILS)
    with pytest.raises(RecordNotFound):
        removal.remove_all(store.settings, LEGAL, details, "purged")
    assert (journal_text(store), stored_files(store)) == (text, names)


def test_a_held_record_stays_though_others_go(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ids(store)
    hold(monkeypatch, first)
    with pytest.raises(RecordHeld, match="smith, jones"):
        removal.remove(store.settings, LEGAL, first, "erased", DETAILS)
    details = {first: DETAILS, second: DETAILS}
    held = removal.remove_all(store.settings, LEGAL, details, "purged")
    assert held == {first: ("smith", "jones")}
    assert stored_files(store) == {first}
    assert found(store, "*") == [first]


def hold(monkeypatch: pytest.MonkeyPatch, archive_id: str) -> None:
    def covering(
        _: object, archive: str, some: list[str]
    ) -> dict[str, tuple[str, ...]]:
        return {e: ("smith", "jones") if e == archive_id else () for e in some}

    monkeypatch.setattr(holds, "covering", covering)


def test_what_came_too_late_goes_at_the_next_run(store: SampleStore) -> None:
    first, _ = ids(store)
    removal.remove(store.settings, LEGAL, first, "purged", DETAILS)
    add_outcome(store, first)
    Archive(str(store.path), LEGAL).store_outcome_report(first, [b"x"], "c", TIME)
    assert b"zoe@example.net" in journal_text(store)
    assert removal.finish(store.settings, LEGAL, 0.0, print) == 1
    assert b"zoe@example.net" not in journal_text(store)
    assert first not in stored_files(store)
    assert removal.finish(store.settings, LEGAL, 0.0, print) == 0
    assert findings(store) == []


@pytest.fixture
def month_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all that is written now go into the segment of the records."""
    monkeypatch.setattr("time.time", lambda: float(ARRIVAL))


@pytest.mark.usefixtures("month_of_arrival")
@pytest.mark.parametrize("is_at_the_end", [False, True])
def test_addresses_in_a_torn_line_go_with_the_record(
    store: SampleStore, is_at_the_end: bool
) -> None:
    """In the newest segment: no older one has a torn line."""
    first, _ = ids(store)
    segment = journal_lines.segment(store.path / LEGAL)
    lines = segment.read_bytes().splitlines()
    [line] = [each for each in lines if b'"archived"' in each and b"zoe@" in each]
    torn = line[: line.rindex(b"zoe@") + len(b"zoe@example")]
    with segment.open("ab") as file:
        file.write(torn)
    if not is_at_the_end:
        add_outcome(store, first)
    removal.remove(store.settings, LEGAL, first, "purged", DETAILS)
    assert b"zoe@" not in journal_text(store)
    assert len(findings(store)) == 1 and "torn by a crash" in findings(store)[0]
    assert removal.finish(store.settings, LEGAL, 0.0, print) == 0


def test_a_torn_line_is_no_event(store: SampleStore) -> None:
    first, second = ids(store)
    removal.remove(store.settings, LEGAL, first, "purged", DETAILS)
    segment = journal_lines.segment(store.path / LEGAL)
    *_, event = segment.read_bytes().splitlines()
    with segment.open("ab") as file:
        file.write(event.replace(first.encode(), second.encode())[:-9] + b"\n")
    removal.finish(store.settings, LEGAL, 0.0, print)
    assert stored_files(store) == {second}


@pytest.mark.parametrize(
    "garbage",
    [bytes(100), b"text", b'\xff\t\xff,"event":"purged","id":"x"'],
    ids=["NUL", "text", "event"],
)
def test_a_line_that_is_none_stops_no_removal(
    store: SampleStore, garbage: bytes
) -> None:
    first, second = ids(store)
    with journal_lines.segment(store.path / LEGAL).open("ab") as file:
        file.write(garbage + b"\n")
    assert removal.finish(store.settings, LEGAL, 0.0, print) == 0
    removal.remove(store.settings, LEGAL, first, "purged", DETAILS)
    add_outcome(store, first)
    assert removal.finish(store.settings, LEGAL, 0.0, print) == 1
    assert stored_files(store) == {second}
    assert found(store, "*") == [second]
    assert b"zoe@example.net" not in journal_text(store)
    assert journal_text(store).count(garbage) == 1


@pytest.mark.parametrize("variant", ["outcome-2", "ab" * 6])
def test_a_file_without_its_line_goes_with_the_record(
    store: SampleStore, variant: str
) -> None:
    first, second = ids(store)
    paths = [
        store.path / LEGAL / copy_file.copy_name(e, variant) for e in (first, second)
    ]
    for path in paths:
        path.write_bytes(b"x")
        path.chmod(0o600)
    removal.remove(store.settings, LEGAL, first, "purged", DETAILS)
    assert [path.exists() for path in paths] == [False, True]
    assert stored_files(store) == {second}


def test_a_message_that_is_archived_again_stays(store: SampleStore) -> None:
    first, second = ids(store)
    capture, content = read_copy(store, first)
    removal.remove(store.settings, LEGAL, first, "purged", DETAILS)
    store_copy(store, capture, content)
    assert removal.finish(store.settings, LEGAL, 0.0, print) == 0
    catch_up(store)
    assert stored_files(store) == {first, second}
    assert sorted(found(store, "*")) == sorted([first, second])
    assert findings(store) == []
    removal.remove(store.settings, LEGAL, first, "purged", DETAILS)
    assert stored_files(store) == {second}
    [problem] = findings(store)  # its period was noted before it was another record
    assert f"purges {first}, and no earlier line has its period" in problem


def test_a_line_that_came_too_late_is_not_of_the_new_record(store: SampleStore) -> None:
    first, _ = ids(store)
    capture, content = read_copy(store, first)
    removal.remove(store.settings, LEGAL, first, "purged", DETAILS)
    add_outcome(store, first)
    store_copy(store, capture, content)
    catch_up(store)
    assert removal.finish(store.settings, LEGAL, 0.0, print) == 1
    [hit] = Search(store.settings, f"id:{first}").hits()
    record = record_reader.record_at(str(store.path), LEGAL, hit.offsets)
    assert record.archive_id == first


def test_a_file_of_another_record_is_never_unlinked(store: SampleStore) -> None:
    first, second = ids(store)
    fields = {"id": first, "file": copy_file.copy_name(second), "file_sha256": "0" * 64}
    with journal.Journal(str(store.path / LEGAL)) as journal_file:
        journal_file.append("outcome-report", TIME, **fields, covers="d")
    with pytest.raises(RecordDamaged, match="verify"):
        removal.remove(store.settings, LEGAL, first, "purged", DETAILS)
    assert stored_files(store) == {first, second}


@pytest.mark.parametrize("is_indexed", [True, False])
def test_an_index_that_was_told_too_late_ends_right(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch, is_indexed: bool
) -> None:
    first, second = ids(store)
    if not is_indexed:
        removal_index = store.directory / "index" / LEGAL
        for each in removal_index.iterdir():
            each.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(index_update, "catch_up", lambda *_: None)
        removal.remove(store.settings, LEGAL, first, "purged", DETAILS)
    assert stored_files(store) == {second}
    assert first not in store.run("list").output
    assert f"{first} was purged" in store.run("show", first, exit_code=1).output
    if is_indexed:
        out = store.directory / "out"
        store.run("export", "--query", "*", "--format", "eml", out)
        assert len(list(out.rglob("*.eml"))) == 1
    catch_up(store)
    assert found(store, "apricot") == []
    assert found(store, "banana") == [second]


# --- while verify runs ---------------------------------------------------------------


def remove_first(store: SampleStore) -> None:
    removal.remove(store.settings, LEGAL, ids(store)[0], "purged", DETAILS)


def test_details_that_are_struck_out_before_verify_reads_them_are_no_error(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_segments = verifier._list_segments

    def list_then_remove(*arguments: Any) -> list[tuple[str, int]]:
        segments = list_segments(*arguments)
        monkeypatch.undo()
        remove_first(store)  # its event is behind the size that was read
        return segments

    monkeypatch.setattr(verifier, "_list_segments", list_then_remove)
    assert findings(store) == []
    assert len(stored_files(store)) == 1


def test_details_that_are_struck_out_between_two_reads_are_no_error(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long line is read in blocks: the first ones before, the others after."""
    segment, *_ = journal_lines.segments(store.path / LEGAL)  # of its arrival
    old_lines = segment.read_bytes().splitlines(keepends=True)
    read_lines = verifier._lines

    def mixed_lines(file: BinaryIO, size: int) -> Iterator[bytes]:
        is_first = os.path.sameopenfile(file.fileno(), descriptor)
        before = old_lines if is_first else []
        for old, new in zip_longest(before, read_lines(file, size), fillvalue=b""):
            middle = old.find(b"\t") + 9
            yield old[:middle] + new[middle:] if old else new

    remove_first(store)
    with monkeypatch.context() as context, segment.open() as opened:
        descriptor = opened.fileno()
        context.setattr(verifier, "_lines", mixed_lines)
        assert findings(store) == []
    segment.write_bytes(
        segment.read_bytes().replace(b"bob@example.net", b"bib@example.net")
    )
    assert "details changed" in " ".join(findings(store))


def test_files_that_are_removed_before_verify_reads_them_are_no_error(
    store: SampleStore,
) -> None:
    """The files of the first record are listed, then removed, one after another."""
    directory = str(store.path / LEGAL)
    add_second_original(store, ids(store)[0])
    read: list[int] = []

    def remove_once(done: int, total: int) -> None:
        if not read:
            remove_first(store)
        read.append(done)

    result = verifier.verify_archive(directory, remove_once)
    assert result.findings == [] and len(read) == 4
    assert len(stored_files(store)) == 1
    # Without such an event it is one, also where others are removed meanwhile.
    store.copy_path(ids(store)[1]).unlink()
    read.clear()
    assert "the file is missing" in " ".join(findings(store))


def test_files_that_are_removed_while_they_are_listed_are_no_error(
    store: SampleStore,
) -> None:
    listing = verifier._list_files(str(store.path / LEGAL))
    next(listing)
    for path in store.path.rglob("*.eml.gz"):
        path.unlink()
    assert list(listing) == []
