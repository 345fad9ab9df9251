"""A removal that is killed between any two steps is completed by the next run."""

from __future__ import annotations

import functools
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_archive.message import dates
from postfix_archive.retention import clock, removal
from postfix_archive.search import index_service, index_update
from postfix_archive.search.search import Search
from postfix_archive.store import copy_file, record_reader, verifier
from postfix_archive.store.archive import Archive
from postfix_archive.store.outcome import Outcome

import journal_lines
from sample_store import ARRIVAL, LEGAL, SampleStore
from unit.kills import is_killed_at
from unit.retention.stores import InlineExtractor

TIME = dates.format_rfc3339(ARRIVAL)
YEAR = 365 * 86400
OUTCOME = Outcome("bob@example.net", "delivered", "4Z1", "4Z1", TIME)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two records and their index; the first has a report."""
    store = SampleStore(tmp_path_factory.mktemp("template"))
    recipients = tuple(b"zoe%d@example.net" % number for number in range(200))
    first = store.add(b"Subject: apricot\r\n\r\nx\r\n", recipients=recipients)
    store.add(b"Subject: banana\r\n\r\nx\r\n")
    store.note_retention(first)
    report = [*copy_file.decompress(str(store.copy_path(first)), 1 << 20)]
    Archive(str(store.path), LEGAL).store_outcome_report(first, report, "c", TIME)
    index_update.catch_up(store.settings, LEGAL, print)
    return store.directory


@pytest.fixture
def store(template: Path, tmp_path: Path) -> SampleStore:
    return copied(template, tmp_path / "copy")


def copied(template: Path, directory: Path) -> SampleStore:
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(template, directory)
    return SampleStore(directory)


def ids(store: SampleStore) -> list[str]:
    events = journal_lines.events(store.path / LEGAL)
    return [each["id"] for each in events if each["event"] == "archived"]


def found(store: SampleStore, query: str) -> list[str]:
    return [each.archive_id for each in Search(store.settings, query).hits()]


def errors(store: SampleStore) -> list[str]:
    result = verifier.verify_archive(str(store.path / LEGAL))
    return [str(each) for each in result.findings if not each.is_note]


def all_files(store: SampleStore) -> Iterator[tuple[Path, bytes]]:
    for path in store.directory.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def remove(store: SampleStore, archive_id: str) -> None:
    removal.remove(store.settings, LEGAL, archive_id, "purged", {"rule": "x"})


def assert_removed(store: SampleStore, first: str, second: str) -> None:
    result = verifier.verify_archive(str(store.path / LEGAL))
    assert [str(each) for each in result.findings] == []
    assert [each.name for each in store.path.rglob("*.eml.gz")] == [f"{second}.eml.gz"]
    assert found(store, "apricot") == found(store, "rcpt:zoe7@example.net") == []
    assert found(store, "*") == [second]
    for path, content in all_files(store):
        assert b"zoe7@" not in content and b"apricot" not in content, path


def test_a_removal_that_is_killed_anywhere_is_completed(
    template: Path, tmp_path: Path
) -> None:
    first, second = ids(copied(template, tmp_path / "copy"))
    step, states = 0, set()
    while True:
        step += 1
        store = copied(template, tmp_path / "copy")
        if not is_killed_at(
            step, functools.partial(remove, store, first), only_changes=True
        ):
            break
        assert errors(store) == []
        record = record_reader.find_record(str(store.path), second, LEGAL)
        assert b"".join(record_reader.original(str(store.path), record))
        finished = removal.finish(store.settings, LEGAL, 0.0, print)
        segment = journal_lines.segment(store.path / LEGAL)
        if b'"event":"purged"' not in segment.read_bytes():
            assert store.copy_path(first).exists()
            remove(store, first)
        store.run("index", "--once")
        states.add(finished)
        assert_removed(store, first, second)
    assert states == {0, 1} and step > 15
    assert_removed(store, first, second)


def test_a_purge_that_is_killed_anywhere_ends_the_same_when_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the steps of the whole run: completing, indexing, noting, removing."""
    monkeypatch.setattr(index_service, "Extractor", InlineExtractor)
    original = SampleStore(tmp_path / "original")
    left, longer, over, held = (
        original.add(b"Subject: %b\r\n\r\nx\r\n" % word, arrival=ARRIVAL - 2 * YEAR)
        for word in (b"left", b"longer", b"over", b"held")
    )
    young = original.add(b"Subject: young\r\n\r\nx\r\n")
    original.note_retention(longer)
    original.note_retention(left)
    remove(original, left)
    original.add_outcome(left, OUTCOME)  # came too late: the run begins with it
    original.run("hold", "add", "jones", "--ids", held, "--reason", "a test")
    rules = original.directory / "archive.retention"
    rules.write_text("subject:longer 9y\n* 1y\n")
    noted = {longer: 2, left: 1, over: 1, held: 1, young: 1}
    step, sizes = 0, set()
    is_killed = True
    while is_killed:
        step += 1
        store = copied(original.directory, tmp_path / "copy")
        run = functools.partial(store.run, "purge", "--really", "--clock-is-right")
        is_killed = is_killed_at(step, run, only_changes=True)
        assert errors(store) == []
        sizes.add(journal_lines.segment(store.path / LEGAL).stat().st_size)
        run()
        assert Counter(event_ids(store, "retention")) == noted
        assert sorted(event_ids(store, "purged")) == sorted([left, over])
        result = verifier.verify_archive(str(store.path / LEGAL))
        assert [str(each) for each in result.findings] == []
        assert set(found(store, "*")) == {longer, held, young}
        assert (store.directory / "fallback" / clock.LAST_RUN_FILE).exists()
    assert run().output == f"{held}  stays: held by jones\n"
    assert (
        len(sizes) == 4 and step > 40
    )  # nothing, and each of the three kinds of events


def event_ids(store: SampleStore, name: str) -> list[str]:
    events = journal_lines.events(store.path / LEGAL)
    return [each["id"] for each in events if each["event"] == name]


def read_capture(store: SampleStore, archive_id: str) -> copy_file.Capture:
    """The capture of a record, as it comes again in another capsule."""
    capture = copy_file.read_capture(str(store.copy_path(archive_id)), LEGAL)
    capture.record_id, capture.capsule_id = archive_id, "cd" * 32
    return capture


@pytest.mark.parametrize("kind", ["stamped", "second original"])
def test_what_comes_during_a_removal_is_kept_wherever_that_is_killed(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(index_update, "has_index", lambda *_: False)  # many steps
    first, _ = ids(copied(template, tmp_path / "copy"))
    step, results = 0, set()
    while True:
        step += 1
        store = copied(template, tmp_path / "copy")
        capture = read_capture(store, first)
        content = [*copy_file.decompress(str(store.copy_path(first)), 1 << 20)]
        capture.verdict = "valid" if kind == "stamped" else "absent"
        if kind == "second original":
            capture.sha256 = "ab" * 32
        killed = is_killed_at(
            step, functools.partial(remove, store, first), only_changes=True
        )
        archive = Archive(str(store.path), LEGAL)
        events = set()
        if kind == "stamped" and archive.has_copy(first):
            events = archive.add_supplement(capture, TIME)
        if not events:
            events = archive.store_copy(capture, content, TIME)
        results |= events
        removal.finish(store.settings, LEGAL, 0.0, print)
        record = record_reader.find_record(str(store.path), first, LEGAL)
        assert record.files[0] == copy_file.copy_name(first)
        assert capture.capsule_id in [each.get("capsule") for each in record.events]
        assert b"apricot" in b"".join(record_reader.original(str(store.path), record))
        if kind != "second original":
            assert errors(store) == []
        if not killed:
            break
    monkeypatch.undo()
    store.run("index", "--once")
    assert found(store, "apricot") == [first]
    supplement = {"second original": "archived"}.get(kind, "supplement")
    assert results == {"archived", supplement}


def test_a_report_of_a_removed_record_is_not_the_one_of_the_new_record(
    store: SampleStore,
) -> None:
    first, _ = ids(store)
    capture = read_capture(store, first)
    content = [*copy_file.decompress(str(store.copy_path(first)), 1 << 20)]
    step = 0
    while (
        b'"event":"purged"'
        not in journal_lines.segment(store.path / LEGAL).read_bytes()
    ):
        step += 1
        is_killed_at(step, functools.partial(remove, store, first), only_changes=True)
    archive = Archive(str(store.path), LEGAL)
    assert archive.store_copy(capture, content, TIME) == {"archived"}
    name = archive.store_outcome_report(first, content, "c", TIME)
    removal.finish(store.settings, LEGAL, 0.0, print)
    assert (store.path / LEGAL / name).exists() and errors(store) == []


def test_details_that_a_crash_has_left_in_part_count_as_struck_out(
    store: SampleStore,
) -> None:
    first, second = ids(store)
    segment, *_ = journal_lines.segments(store.path / LEGAL)  # of its arrival
    content = segment.read_bytes()
    remove(store, first)
    struck_out = segment.read_bytes()
    start = content.index(b"\t{", content.index(b'"archived"')) + 1
    end = content.index(b"\n", start)
    torn = struck_out[:start] + b" " + content[start + 1 : end] + struck_out[end:]
    segment.write_bytes(torn)
    result = verifier.verify_archive(str(store.path / LEGAL))
    [note] = result.findings
    assert note.is_note and "details struck out in part" in str(note)
    assert [e.archive_id for e in record_reader.records(str(store.path), LEGAL)] == [
        second
    ]
    assert removal.finish(store.settings, LEGAL, 0.0, print) == 1
    assert_removed(store, first, second)


def test_a_copy_name_is_in_the_first_part_for_ever(store: SampleStore) -> None:
    first, _ = ids(store)
    file_sha256 = [
        each["file_sha256"]
        for each in journal_lines.events(store.path / LEGAL)
        if each.get("file") == copy_file.copy_name(first)
    ]
    remove(store, first)
    [event] = [
        each
        for each in journal_lines.events(store.path / LEGAL)
        if each.get("file") == copy_file.copy_name(first)
    ]
    assert [event["file_sha256"]] == file_sha256
    assert "envelope" not in event
