"""Claims about store format 2: monthly segments, and details that can be struck out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.cli import main
from postfix_archive.config import archive_cf
from postfix_archive.doctor import check_store, inspection
from postfix_archive.errors import JournalFailed, RecordNotFound
from postfix_archive.store import (
    copy_file,
    journal,
    journal_format,
    journal_reader,
    journal_segment,
    known_end,
    record_reader,
    tally_cache,
    verifier,
)
from postfix_archive.store.known_end import KnownEnd

import journal_lines
from unit.doctor.test_checks import STOCK
from unit.examples import HR, LEGAL
from unit.store.test_archive import Capture, archived_files
from unit.store.test_verifier import notes, problems

OCTOBER, NOVEMBER = "2026-10-31T23:59:59Z", "2026-11-01T00:00:00Z"
DECEMBER = "2026-12-24T12:00:00Z"
ID = "20261122-" + "a1" * 20


def append(directory: Path, time: str, event: str = "x", **fields: str | int) -> None:
    with journal.Journal(str(directory), host="mail.example.com") as events:
        events.append(event, time, **fields)


def remove(directory: Path, time: str, event: str, record_id: str) -> None:
    """Append that a record was removed, and what such an event needs before it."""
    fields: dict[str, str | int] = {"by": "root"}
    is_record = record_id in journal_lines.segment(directory).read_text()
    if event == journal.PURGED and is_record:
        append(directory, time, journal.RETENTION, id=record_id, until="2026-11-22")
    if event == journal.ERASED:
        who: dict[str, str | int] = {"person": "anna", "person_uid": 1001}
        append(directory, time, journal.ERASE_REQUESTED, id=record_id, **who)
        [*_, last] = journal_lines.segment(directory).read_bytes().splitlines()
        fields = {
            "requested_by": "anna",
            "requested_uid": "1001",
            "request": str(journal_lines.parse(last)["seq"]),
            "approved_by": "bert",
            "approved_uid": "1002",
        }
        for step in ("erase request", "erase approve"):
            entry = {"action": "erase", "reason": step, "ids": record_id}
            with journal.Journal(str(directory), name="access") as access:
                access.append("access", time, **entry)
    append(directory, time, event, id=record_id, **fields)


def names(directory: Path) -> list[str]:
    return [each.name for each in journal_lines.segments(directory)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An archive whose journal has three segments of two events each."""
    archive = tmp_path / LEGAL
    archive.mkdir()
    for time in (OCTOBER, NOVEMBER, DECEMBER):
        append(archive, time, id=ID)
        append(archive, time, id=ID)
    return archive


# --- writing ------------------------------------------------------------------------


def test_each_month_has_a_segment_that_names_archive_and_host(directory: Path) -> None:
    assert names(directory) == ["2026-10", "2026-11", "2026-12"]
    prev = journal_segment.FIRST_PREV
    for number, path in enumerate(journal_lines.segments(directory)):
        assert path.stat().st_mode & 0o777 == 0o600
        first, *rest = path.read_bytes().splitlines()
        event = journal_lines.parse(first)
        assert (event["event"], event["format"]) == ("segment", 2)
        assert (event["archive"], event["host"]) == (LEGAL, "mail.example.com")
        assert (event["segment"], event["seq"]) == (path.name, 3 * number + 1)
        assert event["prev"] == prev
        prev = journal_lines.line_sha256(rest[-1])
    assert problems(directory) == []


def test_the_first_part_of_a_line_names_nobody(tmp_path: Path) -> None:
    Capture().store_in(tmp_path)
    [_, line] = journal_lines.segment(tmp_path / LEGAL).read_bytes().splitlines()
    chained, _, details = line.partition(b"\t")
    assert b"bob@example.com" in details and b"envelope" in details
    for text in (b"@", b"envelope", b"mail.example.com", b"4Zx1Yk2Pp7z9Qw"):
        assert text not in chained


def test_the_same_details_have_another_hash_each_time(directory: Path) -> None:
    lines = journal_lines.segment(directory).read_bytes().splitlines()[-2:]
    assert len({journal_lines.parse(each)["details_sha256"] for each in lines}) == 2


def test_a_clock_that_goes_back_begins_no_segment(directory: Path) -> None:
    append(directory, OCTOBER, "late")
    assert names(directory) == ["2026-10", "2026-11", "2026-12"]
    events = journal_lines.events(directory)
    assert (events[-1]["event"], events[-1]["seq"]) == ("late", 10)
    assert problems(directory) == []


def test_a_new_segment_costs_its_fsyncs_once_a_month(
    tmp_path: Path, synced_paths: list[str]
) -> None:
    append(tmp_path, OCTOBER)
    synced_paths.clear()
    append(tmp_path, OCTOBER)
    path = f"{tmp_path}/journal"
    assert synced_paths == [f"{path}/2026-10"]
    synced_paths.clear()
    append(tmp_path, NOVEMBER)
    assert synced_paths == [f"{path}/2026-10", path, f"{path}/2026-11"]
    synced_paths.clear()
    append(tmp_path, NOVEMBER)
    assert synced_paths == [f"{path}/2026-11"]


def test_a_line_torn_at_the_end_of_a_month_gets_its_line_end_first(
    tmp_path: Path,
) -> None:
    archive = tmp_path / LEGAL
    archive.mkdir()
    append(archive, OCTOBER)
    path = journal_lines.segment(archive)
    before = path.read_bytes()
    append(archive, OCTOBER)
    content = path.read_bytes()
    for size in range(len(before), len(content)):
        shutil.rmtree(archive)
        path.parent.mkdir(parents=True)
        path.write_bytes(content[:size])
        path.chmod(0o600)
        append(archive, NOVEMBER)
        line_end = b"" if content[:size].endswith(b"\n") else b"\n"
        assert path.read_bytes() == content[:size] + line_end
        assert names(archive) == ["2026-10", "2026-11"]
        assert problems(archive) == [], content[:size]
        lines = list(journal_reader.lines(f"{archive}/journal"))
        assert lines[-1].end == journal_reader.end_offset(f"{archive}/journal")


def test_a_segment_that_a_crash_has_torn_begins_again(directory: Path) -> None:
    path = journal_lines.segment(directory)
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    (directory / "journal.last").unlink()
    for size in range(len(content) - len(lines[-1])):
        path.write_bytes(content[:size])
        append(directory, DECEMBER, "after")
        assert problems(directory) == [], content[:size]
        assert journal_lines.parse(path.read_bytes().splitlines()[-1])["seq"] > 7
        (directory / "journal.last").unlink()


def test_a_first_line_torn_twice_is_no_foreign_file(tmp_path: Path) -> None:
    append(tmp_path, OCTOBER)
    path = journal_lines.segment(tmp_path)
    path.write_bytes(b'{"seq":1,"time":"2026\n{"seq":1,"ti')
    append(tmp_path, OCTOBER, "after")
    assert [each["event"] for each in all_valid(tmp_path)] == ["segment", "after"]


def all_valid(directory: Path) -> list[dict[str, object]]:
    lines = journal_reader.lines(f"{directory}/journal")
    events = map(journal_reader.valid_event, lines)
    return [dict(each) for each in events if each is not None]


def test_what_was_recorded_last_month_is_not_recorded_again(tmp_path: Path) -> None:
    events: list[journal.Event] = [("outcome", {"id": ID, "tries": 3})]
    with journal.Journal(str(tmp_path)) as opened:
        opened.extend(OCTOBER, events)
        opened.append("archived", OCTOBER, id=ID, capsule="aa", file="a.eml.gz")
        opened.append("other", NOVEMBER)
        assert opened.unrecorded(events) == []
        assert opened.recent_events("aa") == {"archived"}
        assert opened.recent_events("aa", since_file="a.eml.gz") == {"archived"}
        assert opened.last_event("a.eml.gz", ID) == "archived"
        assert opened.last_event("b.eml.gz", ID) == ""


def test_a_journal_of_another_name_is_one_of_its_own(directory: Path) -> None:
    before = journal_lines.segment(directory).read_bytes()
    with journal.Journal(str(directory), name="access") as opened:
        opened.append("search", DECEMBER, query="x")
    assert (directory / "access" / "2026-12").exists()
    path = journal_reader.path_of(str(directory.parent), LEGAL, "access")
    kinds = [each["event"] for _, each in journal_reader.events_after(path)]
    assert kinds == ["segment", "search"]
    assert journal_format.read_last_number(path) == 2
    assert journal_lines.segment(directory).read_bytes() == before


# --- reading ------------------------------------------------------------------------


def test_segments_are_read_as_one_file_with_positions_that_stay(
    directory: Path,
) -> None:
    path = f"{directory}/journal"
    content = b"".join(each.read_bytes() for each in journal_lines.segments(directory))
    lines = list(journal_reader.lines(path))
    assert b"".join(each.content for each in lines) == content
    assert [each.offset for each in lines] == [
        len(b"".join(content.splitlines(keepends=True)[:n])) for n in range(9)
    ]
    append(directory, "2027-01-01T00:00:00Z", "new")
    offsets = [each.offset for each in lines]
    assert list(journal_reader.lines_at(path, offsets)) == lines
    assert list(journal_reader.lines_at(path, offsets[::-1])) == lines[::-1]
    for line in lines:
        assert next(journal_reader.lines(path, line.offset)) == line
    with journal_format.Segments(path) as segments:
        for start in range(0, len(content), 7):
            for stop in (start, start + 1, len(content)):
                assert segments.read_range(start, stop) == content[start:stop]


def test_events_after_a_position_are_the_new_ones(directory: Path) -> None:
    path = f"{directory}/journal"
    first = list(journal_reader.events_after(path))
    assert len(first) == 9
    position = journal_reader.end_offset(path)
    assert position == first[-1][0]
    assert list(journal_reader.events_after(path, position)) == []
    assert list(journal_reader.events_after(path, first[4][0])) == first[5:]
    append(directory, DECEMBER, "new")
    [(end, event)] = journal_reader.events_after(path, position)
    assert (event["event"], end) == ("new", journal_reader.end_offset(path))
    with open(journal_lines.segment(directory), "ab") as file:
        file.write(b'{"seq":')
    assert journal_reader.end_offset(path) == end
    assert journal_reader.end_offset(f"{directory}/none") == 0


def test_a_record_is_read_by_the_offsets_of_its_lines(tmp_path: Path) -> None:
    Capture().store_in(tmp_path)
    other = Capture(message=b"Subject: x\r\n\r\n", archive_id="20261122-" + "b" * 40)
    other.store_in(tmp_path)
    append(tmp_path / LEGAL, DECEMBER, "mailed", id=ID, capsule="c", queued_as="4Z")
    lines = list(journal_reader.lines(f"{tmp_path}/{LEGAL}/journal"))
    own = [each.offset for each in lines if each.field("id") == ID]
    record = record_reader.record_at(str(tmp_path), LEGAL, own)
    assert record.archive_id == ID
    assert [each["event"] for each in record.events] == ["archived", "mailed"]
    all_offsets = [each.offset for each in lines]
    for offsets in ([], all_offsets, own[1:], [own[0] + 1], [10**9]):
        with pytest.raises(RecordNotFound):
            record_reader.record_at(str(tmp_path), LEGAL, offsets)


# --- store format 1 -----------------------------------------------------------------


@pytest.fixture
def old_store(tmp_path: Path) -> Path:
    """A store of format 1, and a configuration that names it."""
    (tmp_path / "store" / LEGAL / "drafts").mkdir(parents=True)
    (tmp_path / "fallback").mkdir()
    (tmp_path / "store" / LEGAL / "journal").write_text('{"seq":1,"prev":"x"}\n')
    (tmp_path / "archive.cf").write_text(
        f"archive_store_directory = {tmp_path}/store\n"
        f"archive_fallback_directory = {tmp_path}/fallback\n"
    )
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (("list",), 1),
        (("show", ID), 1),
        (("search", "x"), 1),
        (("history",), 1),
        (("verify",), 2),
    ],
)
def test_a_store_of_format_1_is_refused_in_one_line(
    old_store: Path, arguments: tuple[str, ...], exit_code: int
) -> None:
    command = ["-c", str(old_store.parent), *arguments]
    result = CliRunner().invoke(main.main, command)
    assert result.exit_code == exit_code
    [line] = [e for e in result.output.splitlines() if "format 1" in e]
    assert arguments[0] == "verify" or result.output.splitlines() == [line]
    assert f"{old_store}/{LEGAL}/journal" in line


def test_a_store_of_format_1_is_not_written(old_store: Path) -> None:
    with pytest.raises(JournalFailed, match="store format 1"):
        Capture().store_in(old_store)
    assert archived_files(old_store) == []


def test_status_and_doctor_name_a_store_of_format_1(old_store: Path) -> None:
    _, errors = tally_cache.current_tallies(str(old_store), [LEGAL], str(old_store))
    assert "store format 1" in errors[LEGAL]
    settings = archive_cf.load(str(old_store.parent))
    paths = inspection._old_journals(settings)
    host = STOCK.__class__(STOCK.config, settings, old_journals=paths)
    [finding] = check_store.check_store_format(host)
    assert finding.place == f"{old_store}/{LEGAL}/journal"


# --- verify -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pristine_content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    store = tmp_path_factory.mktemp("store")
    Capture().store_in(store)
    append(store / LEGAL, "2026-11-23T00:00:00Z", "mailed", id=ID, queued_as="4Zx")
    return journal_lines.segment(store / LEGAL).read_bytes()


@given(st.data())
def test_a_flipped_bit_of_any_line_is_found(
    tmp_path_factory: pytest.TempPathFactory,
    pristine_content: bytes,
    data: st.DataObject,
) -> None:
    """Of its chained part as of its details, without a look at the files."""
    directory = tmp_path_factory.mktemp("x") / LEGAL
    (directory / "journal").mkdir(parents=True)
    content = bytearray(pristine_content)
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    lines = pristine_content.splitlines()
    number, sha256 = len(lines), journal_lines.line_sha256(lines[-1])
    journal_format.write_last(f"{directory}/journal", number, sha256)
    path = directory / "journal" / "2026-11"
    path.write_bytes(pristine_content)
    path.chmod(0o600)
    result = verifier._read_journal(f"{directory}/journal", ())
    assert not result.findings
    path.write_bytes(bytes(content))
    result = verifier._read_journal(f"{directory}/journal", ())
    assert result.error_count


def test_changed_details_are_named_with_their_line(directory: Path) -> None:
    path = journal_lines.segments(directory)[1]
    lines = path.read_bytes().splitlines(keepends=True)
    salt = journal_lines.SALT.encode()
    start = lines[1].index(b'"salt":"') + 8
    lines[1] = lines[1][:start] + salt + lines[1][start + len(salt) :]
    path.write_bytes(b"".join(lines))
    [problem] = problems(directory)
    assert f"{path}, line 2: details changed" in problem
    for offset, line in enumerate(journal_reader.lines(f"{directory}/journal")):
        assert line.has_intact_details == (offset != 4)


@pytest.mark.parametrize("event", journal.REMOVAL_EVENTS)
def test_details_struck_out_need_a_later_event(directory: Path, event: str) -> None:
    path = journal_lines.segments(directory)[1]
    journal_lines.strike_out(path, 1)
    [problem] = problems(directory)
    assert f"{path}, line 2: details struck out" in problem and ID in problem
    remove(directory, DECEMBER, event, ID)
    assert problems(directory) == []
    append(directory, DECEMBER, "x", id=ID)  # came too late
    journal_lines.strike_out(journal_lines.segment(directory), -1)
    assert problems(directory) == []


@pytest.mark.parametrize("event", journal.REMOVAL_EVENTS)
def test_a_removal_of_no_record_is_an_error(directory: Path, event: str) -> None:
    other = "20261122-" + "b" * 40
    remove(directory, DECEMBER, event, other)
    *first, problem = problems(directory)
    # There is no request either, or no period; a period can be noted once more.
    counts = {journal.ERASED: (2, 6), journal.PURGED: (1, 3)}[event]
    assert len(first) == counts[0]
    assert f"removes {other}, of which there is no earlier line" in problem
    remove(directory, DECEMBER, event, ID)
    remove(directory, DECEMBER, event, ID)
    assert len(problems(directory)) == counts[1]


def test_a_line_about_no_record_is_never_struck_out(directory: Path) -> None:
    journal_lines.strike_out(journal_lines.segments(directory)[2], 0)
    [*_, problem] = problems(directory)
    assert "details struck out, which no event explains" in str(problems(directory))
    remove(directory, DECEMBER, "purged", ID)
    assert problem in problems(directory)


def test_half_struck_out_is_changed(directory: Path) -> None:
    path = journal_lines.segment(directory)
    path.write_bytes(path.read_bytes()[:-10] + b" " * 9 + b"\n")
    remove(directory, DECEMBER, "purged", ID)
    [problem] = problems(directory)
    assert "details changed" in problem


def erase(store: Path) -> None:
    """Strike out the first message of a store, as an erasure does, and say so."""
    remove(store / LEGAL, "2026-11-30T00:00:00Z", "erased", ID)
    for number in (1, -2):  # the message, the request
        journal_lines.strike_out(journal_lines.segment(store / LEGAL), number)
    (store / LEGAL / copy_file.copy_name(ID)).unlink()


def test_an_erased_message_is_shown_nowhere_and_no_error(tmp_path: Path) -> None:
    Capture().store_in(tmp_path)
    other = Capture(message=b"Subject: x\r\n\r\n", archive_id="20261122-" + "b" * 40)
    other.store_in(tmp_path)
    erase(tmp_path)
    assert problems(tmp_path / LEGAL) == [] == notes(tmp_path / LEGAL)
    [record] = record_reader.records(str(tmp_path), LEGAL)
    assert record.archive_id == other.capture.record_id
    with pytest.raises(RecordNotFound, match=f"{ID} was erased 2026-11-30"):
        record_reader.find_record(str(tmp_path), ID, None)
    tallies, errors = tally_cache.current_tallies(str(tmp_path), [LEGAL], str(tmp_path))
    counts = tallies[LEGAL]
    assert (counts.messages, counts.removed, counts.damaged, errors) == (2, 1, 0, {})


def test_a_message_struck_out_without_an_event_is_an_error_for_readers(
    tmp_path: Path,
) -> None:
    Capture().store_in(tmp_path)
    journal_lines.strike_out(journal_lines.segment(tmp_path / LEGAL), 1)
    with pytest.raises(JournalFailed, match="line 2: details struck out"):
        record_reader.find_record(str(tmp_path), ID, None)


def test_the_file_of_an_erased_message_that_is_left_is_a_note(tmp_path: Path) -> None:
    Capture().store_in(tmp_path)
    remove(tmp_path / LEGAL, "2026-11-30T00:00:00Z", "purged", ID)
    assert problems(tmp_path / LEGAL) == []
    details, file = notes(tmp_path / LEGAL)
    assert f"removes {ID}, whose details are still there: seq 3" in details
    assert "the file is still there" in file


def rename(directory: Path) -> Path:
    return directory.rename(directory.with_name(HR))


def take_foreign_segment(directory: Path) -> Path:
    other = directory.parent / "other" / HR
    other.mkdir(parents=True)
    append(other, DECEMBER)
    shutil.copy2(journal_lines.segment(other), journal_lines.segment(directory))
    return directory


def rename_segment(directory: Path) -> Path:
    journal_lines.segment(directory).rename(directory / "journal" / "2027-01")
    return directory


def lose_middle_segment(directory: Path) -> Path:
    journal_lines.segments(directory)[1].unlink()
    return directory


def lose_first_segment(directory: Path) -> Path:
    journal_lines.segments(directory)[0].unlink()
    return directory


def link_segment(directory: Path) -> Path:
    path = journal_lines.segments(directory)[1]
    path.rename(directory.parent / "aside")
    path.symlink_to(directory.parent / "aside")
    return directory


def link_segment_twice(directory: Path) -> Path:
    path = journal_lines.segments(directory)[1]
    os.link(path, directory.parent / "second")
    return directory


def add_file(directory: Path) -> Path:
    (directory / "journal" / "2026-11.bak").write_bytes(b"x")
    return directory


def cut_line_end(directory: Path) -> Path:
    path = journal_lines.segments(directory)[1]
    os.truncate(path, path.stat().st_size - 1)
    return directory


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (rename, f"of the archive {LEGAL}, not {HR}"),
        (take_foreign_segment, f"of the archive {HR}, not {LEGAL}"),
        (rename_segment, "2027-01, line 1: of the segment 2026-12"),
        (lose_middle_segment, "seq 4 to 6 missing before this line"),
        (lose_first_segment, "seq 1 to 3 missing before this line"),
        (link_segment, "2026-11: not a regular file"),
        (link_segment_twice, "2026-11: a hard link"),
        (add_file, "2026-11.bak: not a segment of the journal"),
        (cut_line_end, "2026-11: the last line has no line end"),
    ],
)
def test_a_segment_that_is_not_as_it_was_is_named(
    directory: Path, change: Callable[[Path], Path], finding: str
) -> None:
    changed = change(directory)
    assert any(finding in each for each in problems(changed)), problems(changed)


def test_an_auditors_copy_of_one_archive_may_have_any_name(directory: Path) -> None:
    assert problems(directory.rename(directory.with_name("copy"))) == []


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_a_file_that_no_line_names_is_counted_and_named(
    tmp_path: Path, mode: int
) -> None:
    Capture().store_in(tmp_path)
    path = tmp_path / LEGAL / copy_file.copy_name("20261122-" + "c" * 40)
    shutil.copy2(tmp_path / LEGAL / copy_file.copy_name(ID), path)
    path.chmod(mode)
    result = verifier.verify_archive(f"{tmp_path}/{LEGAL}")
    [finding] = result.findings
    assert finding.location == str(path)
    assert finding.is_note == (mode == 0o600)
    assert result.unnamed_count == 1
    assert "1 files, 1 more in no line, 2 lines" in verifier.summary(result)


# --- what is known from outside -----------------------------------------------------


def last_end(directory: Path) -> KnownEnd:
    [*_, line] = journal_reader.lines(f"{directory}/journal")
    sha256 = journal_lines.line_sha256(line.content)
    return known_end.KnownEnd(line.offset, line.end, 9, sha256)


def test_a_lost_segment_is_a_loss_and_an_erasure_is_none(directory: Path) -> None:
    end = last_end(directory)
    append(directory, "2027-01-01T00:00:00Z", "erased", id=ID)
    journal_lines.strike_out(journal_lines.segments(directory)[2], 2)
    assert end.loss(str(directory)) == ""
    lose_middle_segment(directory)
    assert "line 9 is missing" in end.loss(str(directory))
