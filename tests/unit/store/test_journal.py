"""Claims about the journal: a chain that only grows, whatever a crash does to it."""

from __future__ import annotations

import resource
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.errors import JournalFailed
from postfix_archive.store import (
    journal,
    journal_format,
    journal_reader,
    journal_segment,
)

import journal_lines

TIME = "2026-11-22T11:53:00Z"


def append_event(directory: Path, event: str = "archived", **fields: str | int) -> None:
    with journal.Journal(str(directory)) as events:
        events.append(event, TIME, **fields)


def recent_values(directory: Path, key: str) -> set[str]:
    with journal.Journal(str(directory)) as events:
        return events.recent_events(key)


def lines(directory: Path) -> list[bytes]:
    segments = journal_lines.segments(directory)
    content = b"".join(each.read_bytes() for each in segments)
    return content.removesuffix(b"\n").split(b"\n")


def all_events(directory: Path) -> list[dict[str, Any]]:
    """The events in the lines that can be read, but those that begin segments."""
    parsed = []
    for line in lines(directory):
        try:
            parsed.append(journal_lines.parse(line))
        except ValueError:
            continue
    return [each for each in parsed if each["event"] != journal.SEGMENT]


def assert_chained(directory: Path) -> None:
    """Each whole line holds the hash of the line above, and the numbers go up."""
    prev = journal_segment.FIRST_PREV
    number = 0
    for line in lines(directory):
        try:
            event = journal_lines.parse(line)
        except ValueError:
            event = None
        if event is not None:
            assert event["prev"] == prev
            assert event["seq"] > number
            number = event["seq"]
        prev = journal_lines.line_sha256(line)


def test_events_are_numbered_and_chained(tmp_path: Path) -> None:
    for number in range(12):
        append_event(tmp_path, f"event{number}", id=f"x{number}", size=number)
    assert_chained(tmp_path)
    assert [each["seq"] for each in all_events(tmp_path)] == list(range(2, 14))
    assert all_events(tmp_path)[3]["event"] == "event3"
    assert all_events(tmp_path)[3]["time"] == TIME
    assert all_events(tmp_path)[3]["size"] == 3


def test_the_first_line_follows_nothing(tmp_path: Path) -> None:
    append_event(tmp_path)
    assert journal_lines.parse(lines(tmp_path)[0])["prev"] == "0" * 64


def test_the_journal_is_for_its_owner_alone(tmp_path: Path) -> None:
    append_event(tmp_path)
    assert journal_lines.segment(tmp_path).stat().st_mode & 0o777 == 0o600


@given(st.text(max_size=40), st.integers())
def test_any_values_read_the_same_and_stay_on_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str, number: int
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    append_event(directory, envelope=text, size=number)
    _, line = lines(directory)
    assert line.isascii()
    event = journal_lines.parse(line)
    assert (event["envelope"], event["size"]) == (text, number)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_utf8_are_decoded_back(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    append_event(directory, above=raw.decode("utf-8", "surrogateescape"))
    text = all_events(directory)[0]["above"]
    assert text.encode("utf-8", "surrogateescape") == raw


def test_appending_never_changes_what_is_there(tmp_path: Path) -> None:
    append_event(tmp_path)
    before = journal_lines.segment(tmp_path).read_bytes()
    append_event(tmp_path)
    assert journal_lines.segment(tmp_path).read_bytes().startswith(before)


@pytest.mark.parametrize("earlier", [0, 1, 9, 10, 100])
def test_a_torn_line_is_closed_off_and_the_numbers_go_on(
    tmp_path: Path, earlier: int
) -> None:
    """A crash may tear the last line at any byte."""
    for number in range(earlier + 1):
        append_event(tmp_path, id=f"id{number}", capsule="c" * 64)
    content = journal_lines.segment(tmp_path).read_bytes()
    last = content.rfind(b"\n", 0, -1) + 1
    complete_count = len(content[:last].splitlines())
    failures = []
    for length in range(last, len(content)):
        journal_lines.segment(tmp_path).write_bytes(content[:length])
        try:
            append_event(tmp_path, "after")
            assert_chained(tmp_path)
            assert lines(tmp_path)[:complete_count] == content[:last].splitlines()
            assert all_events(tmp_path)[-1]["event"] == "after"
        except (AssertionError, JournalFailed) as problem:
            failures.append((content[last:length], str(problem).splitlines()[0]))
    assert not failures


def test_zeroes_that_a_crash_left_at_the_end_are_closed_off(tmp_path: Path) -> None:
    append_event(tmp_path)
    with open(journal_lines.segment(tmp_path), "ab") as file:
        file.write(bytes(5000))
    append_event(tmp_path, "after")
    assert_chained(tmp_path)
    assert all_events(tmp_path)[-1]["seq"] == 3


@pytest.mark.parametrize("length", [100, 65300, 65536, 70000, 300000])
def test_long_lines_are_chained_too(tmp_path: Path, length: int) -> None:
    append_event(tmp_path, envelope="x" * length)
    append_event(tmp_path, envelope="y" * length)
    append_event(tmp_path)
    assert_chained(tmp_path)
    assert [each["seq"] for each in all_events(tmp_path)] == [2, 3, 4]


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    journal_lines.segment(tmp_path).parent.mkdir()
    journal_lines.segment(tmp_path).write_bytes(b"Dear diary,\n")
    with pytest.raises(JournalFailed, match="not a journal"):
        append_event(tmp_path)
    assert journal_lines.segment(tmp_path).read_bytes() == b"Dear diary,\n"


def test_the_recent_events_of_a_capsule_are_found(tmp_path: Path) -> None:
    append_event(tmp_path, "archived", capsule="aa")
    append_event(tmp_path, "archived", capsule="bb")
    append_event(tmp_path, "mailed", capsule="aa")
    assert recent_values(tmp_path, "aa") == {"archived", "mailed"}
    assert recent_values(tmp_path, "bb") == {"archived"}
    assert recent_values(tmp_path, "cc") == set()
    assert recent_values(tmp_path, "a") == set()


def test_an_envelope_cannot_pretend_to_be_an_event(tmp_path: Path) -> None:
    append_event(tmp_path, "archived", envelope='","capsule":"aa"', capsule="bb")
    append_event(tmp_path, 'x","event":"mailed', capsule="aa")
    assert "archived" not in recent_values(tmp_path, "aa")
    assert "mailed" not in recent_values(tmp_path, "aa")


def test_a_torn_event_is_no_event(tmp_path: Path) -> None:
    """Nobody was promised it, and nobody can read it."""
    append_event(tmp_path, "first", capsule="bb")
    append_event(
        tmp_path, "archived", id="x", capsule="aa", file="1.eml.gz", envelope="x"
    )
    path = journal_lines.segment(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    assert recent_values(tmp_path, "aa") == set()
    with journal.Journal(str(tmp_path)) as events:
        assert not events.last_event("1.eml.gz", "x")
    append_event(tmp_path, "other", capsule="cc")
    assert recent_values(tmp_path, "aa") == set()
    assert recent_values(tmp_path, "cc") == {"other"}


def test_a_file_is_found_however_long_ago_it_was(tmp_path: Path) -> None:
    append_event(tmp_path, id="x", file="2026/11/22/a.eml.gz")
    for _ in range(200):
        append_event(tmp_path, envelope="x" * 60000)
    with journal.Journal(str(tmp_path)) as events:
        assert events.last_event("2026/11/22/a.eml.gz", "x")
        assert not events.last_event("2026/11/22/a", "x")


@pytest.mark.parametrize("free_bytes", [0, 1, 10, 200])
def test_a_line_that_could_not_be_written_completely_is_removed(
    tmp_path: Path, free_bytes: int
) -> None:
    append_event(tmp_path, id="first")
    before = journal_lines.segment(tmp_path).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + free_bytes, hard))
    try:
        with pytest.raises(JournalFailed, match="too large"):
            append_event(tmp_path, envelope="x" * 300)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert journal_lines.segment(tmp_path).read_bytes() == before
    append_event(tmp_path, id="second")
    assert_chained(tmp_path)


# --- several events at once ---------------------------------------------------------


def make_events(count: int, first: int = 0) -> list[journal.Event]:
    return [("outcome", {"id": f"x{first + n}", "tries": n}) for n in range(count)]


def append_all(directory: Path, new_events: list[journal.Event]) -> None:
    with journal.Journal(str(directory)) as events:
        events.extend(TIME, new_events)


@pytest.mark.parametrize("earlier", [0, 1, 9])
def test_several_events_are_chained_with_one_fsync(
    tmp_path: Path, earlier: int, synced_paths: list[str]
) -> None:
    for _ in range(earlier):
        append_event(tmp_path)
    synced_paths.clear()
    append_all(tmp_path, make_events(12))
    assert synced_paths.count(str(journal_lines.segment(tmp_path))) == 1
    assert_chained(tmp_path)
    assert [each["seq"] for each in all_events(tmp_path)] == list(
        range(2, earlier + 14)
    )
    assert journal_format.read_last_number(f"{tmp_path}/journal") == earlier + 13


def test_no_events_write_nothing(tmp_path: Path) -> None:
    append_all(tmp_path, [])
    assert journal_lines.segments(tmp_path) == []
    assert journal_format.read_last_number(f"{tmp_path}/journal") == 0


@pytest.mark.parametrize("free_bytes", [0, 1, 100, 400])
def test_several_events_that_could_not_all_be_written_are_all_taken_back(
    tmp_path: Path, free_bytes: int
) -> None:
    append_event(tmp_path, id="first")
    before = journal_lines.segment(tmp_path).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + free_bytes, hard))
    try:
        with pytest.raises(JournalFailed, match="too large"):
            append_all(tmp_path, make_events(5))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert journal_lines.segment(tmp_path).read_bytes() == before
    assert journal_format.read_last_number(f"{tmp_path}/journal") == 2


def test_a_crash_among_several_events_leaves_the_first_of_them(tmp_path: Path) -> None:
    append_event(tmp_path)
    first_content = journal_lines.segment(tmp_path).read_bytes()
    append_all(tmp_path, make_events(3))
    content = journal_lines.segment(tmp_path).read_bytes()
    for length in range(len(first_content), len(content), 7):
        journal_lines.segment(tmp_path).write_bytes(content[:length])
        (tmp_path / "journal.last").unlink()
        complete_count = content[:length].count(b"\n") - 1
        append_all(tmp_path, make_events(2, first=10))
        assert_chained(tmp_path)
        ids = [each.get("id") for each in all_events(tmp_path)]
        if content[length : length + 1] == b"\n":  # its line end alone is missing
            complete_count += 1
        assert ids == [None, "x0", "x1", "x2"][:complete_count] + ["x10", "x11"], length


def test_what_the_recent_lines_record_is_not_new(
    tmp_path: Path, synced_paths: list[str]
) -> None:
    append_all(tmp_path, make_events(3))
    append_event(tmp_path, "other", id="x7", tries=0)
    with journal.Journal(str(tmp_path)) as events:
        synced_paths.clear()
        assert events.unrecorded(make_events(5)) == make_events(5)[3:]
        assert synced_paths == [str(journal_lines.segment(tmp_path))]
        assert events.unrecorded(make_events(1, first=7)) == make_events(1, first=7)
        assert events.unrecorded([("outcome", {"id": "x1"})]) == [
            ("outcome", {"id": "x1"})
        ]
        assert events.unrecorded([]) == []


def test_a_torn_line_gives_nothing(tmp_path: Path) -> None:
    append_all(tmp_path, make_events(2))
    path = journal_lines.segment(tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    with journal.Journal(str(tmp_path)) as events:
        assert events.unrecorded(make_events(2)) == make_events(2)[1:]


def test_many_writers_make_one_chain(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        for number in range(20):
            append_event(tmp_path, id=f"{writer}-{number}")

    writers = [threading.Thread(target=write, args=(each,)) for each in range(5)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert len(all_events(tmp_path)) == 100
    assert len(lines(tmp_path)) == 101
    assert_chained(tmp_path)


def test_a_journal_in_no_directory_defers(tmp_path: Path) -> None:
    with pytest.raises(JournalFailed, match="none/journal"):
        append_event(tmp_path / "none")


def test_a_journal_that_is_a_symlink_is_not_followed(tmp_path: Path) -> None:
    journal_lines.segment(tmp_path).parent.mkdir()
    journal_lines.segment(tmp_path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalFailed):
        append_event(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_no_journal_has_no_lines(tmp_path: Path) -> None:
    assert list(journal_reader.lines(f"{tmp_path}/none")) == []
    assert list(journal_reader.lines(str(tmp_path))) == []
    (tmp_path / "file").touch()
    with pytest.raises(JournalFailed, match="format 1"):
        list(journal_reader.lines(f"{tmp_path}/file"))


@pytest.mark.parametrize("number", [b"9" * 5000, b"9" * 19, b"-1"])
def test_a_line_whose_number_is_none_is_passed_over(
    tmp_path: Path, number: bytes
) -> None:
    append_event(tmp_path)
    _, line = lines(tmp_path)
    with open(journal_lines.segment(tmp_path), "ab") as file:
        file.write(line.replace(b'"seq":2', b'"seq":' + number) + b"\n")
    append_event(tmp_path, "after")
    assert all_events(tmp_path)[-1]["seq"] == 3


def test_a_journal_that_stays_locked_is_named(tmp_path: Path) -> None:
    with journal.Journal(str(tmp_path)):
        reason = f"{tmp_path}/journal: locked for 0 s by another process.*; fuser -v"
        with pytest.raises(JournalFailed, match=reason):
            journal.Journal(str(tmp_path), lock_timeout=0.0)
    with journal.Journal(str(tmp_path), lock_timeout=0.0) as events:
        events.append("archived", TIME)
    assert len(lines(tmp_path)) == 2
