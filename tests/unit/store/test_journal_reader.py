"""Claims about reading journals: in bounded memory, and as the verifier reads them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from postfix_archive.errors import RecordDamaged, RecordNotFound
from postfix_archive.message import dates, envelope
from postfix_archive.store import journal, journal_reader, record_reader, verifier
from postfix_archive.store.journal_event import Event

import journal_lines
from journal_lines import make_line
from unit.examples import HR, LEGAL, NOW, make_envelope

Fields = dict[str, str | int]


def archive_id(number: int) -> str:
    return f"20261122-{number:040x}"


def capture(number: int, kind: str = journal.ARCHIVED) -> Fields:
    text = envelope.serialise(make_envelope(archive_id=archive_id(number))).decode()
    fields: Fields = {"event": kind, "id": archive_id(number), "sha256": "0" * 64}
    fields |= {"size": 5, "stamp": "absent", "envelope": text}
    if kind == journal.ARCHIVED:
        fields["file"] = f"2026/11/22/{archive_id(number)}.eml.gz"
    return fields


def write(store: Path, events: list[Fields], archive: str = LEGAL) -> Path:
    """Write a journal, chained, with one event a second."""
    path = journal_lines.segment(store / archive)
    path.parent.mkdir(parents=True, exist_ok=True)
    numbered = [
        {"seq": number, "time": dates.format_rfc3339(NOW + number - 1), **fields}
        for number, fields in enumerate(events, 1)
    ]
    path.write_bytes(journal_lines.make_lines(numbered))
    return path


def outcome(number: int) -> Fields:
    fields: Fields = {"event": journal.OUTCOME, "id": archive_id(number)}
    fields |= {"recipient": "bob@example.net", "outcome": "delivered"}
    return fields | {"of": "4Zx", "queue_id": "4Zy", "at": dates.format_rfc3339(NOW)}


def ids(store: Path, **options: float) -> list[int]:
    records = record_reader.records(str(store), LEGAL, **options)  # type: ignore
    return [int(each.archive_id[9:], 16) for each in records]


# --- records ------------------------------------------------------------------------


def test_a_record_has_the_later_events_from_anywhere_in_the_journal(
    tmp_path: Path,
) -> None:
    supplement = capture(1, journal.SUPPLEMENT)
    write(tmp_path, [outcome(1), capture(1), capture(2), supplement, outcome(1)])
    first, second = record_reader.records(str(tmp_path), LEGAL)
    kinds = [each["event"] for each in first.events]
    assert kinds == ["archived", "supplement", "outcome"]
    assert (second.archive_id, len(second.events)) == (archive_id(2), 1)
    record = record_reader.find_record(str(tmp_path), archive_id(1), None)
    assert record.events == first.events


def test_a_record_with_a_damaged_line_is_not_taken_for_a_whole_one(
    tmp_path: Path,
) -> None:
    write(tmp_path, [capture(1), capture(2), capture(1, journal.SUPPLEMENT)])
    path = journal_lines.segment(tmp_path / LEGAL)
    path.write_bytes(path.read_bytes()[:-10] + b"x" * 9 + b"\n")
    with pytest.raises(RecordDamaged, match="line 3: "):
        record_reader.find_record(str(tmp_path), archive_id(1), None)
    assert record_reader.find_record(str(tmp_path), archive_id(2), None)


def test_records_of_a_time_are_those_first_archived_then(tmp_path: Path) -> None:
    later = capture(0, journal.SUPPLEMENT)
    write(tmp_path, [*map(capture, range(5)), later, capture(5, journal.SUPPLEMENT)])
    assert ids(tmp_path) == [0, 1, 2, 3, 4, 5]
    assert ids(tmp_path, since=-1e9) == [0, 1, 2, 3, 4, 5]
    assert ids(tmp_path, since=NOW + 3) == [3, 4, 5]
    assert ids(tmp_path, since=NOW + 2.5, until=NOW + 4) == [3]
    assert ids(tmp_path, last=2) == [3, 4]  # 5 has no first line
    assert ids(tmp_path, last=2, until=NOW + 4) == [2, 3]
    assert ids(tmp_path, last=9, since=NOW + 3) == [3, 4, 5]


def test_the_last_records_are_read_from_the_end_and_are_whole(tmp_path: Path) -> None:
    second_original = capture(2) | {"file": f"2026/11/22/{archive_id(2)}.2.eml.gz"}
    purged: Fields = {"event": journal.PURGED, "id": archive_id(4), "by": "root"}
    events = [*map(capture, range(5)), outcome(3), capture(1, journal.SUPPLEMENT)]
    events += [second_original, purged, outcome(1)]
    segment = write(tmp_path, events)
    journal_lines.strike_out(segment, 4)
    assert ids(tmp_path) == [0, 1, 2, 3]
    for last in range(1, 6):
        expected = [*record_reader.records(str(tmp_path), LEGAL)][-last:]
        found = [*record_reader.records(str(tmp_path), LEGAL, last=last)]
        assert [each.events for each in found] == [each.events for each in expected]
    # A damaged line that is not needed.
    segment.write_bytes(segment.read_bytes().replace(b"{", b"x", 1))
    warnings: list[str] = []
    [one] = record_reader.records(str(tmp_path), LEGAL, last=1, warn=warnings.append)
    assert (one.archive_id, warnings) == (archive_id(3), [])


def test_an_ambiguous_prefix_is_refused_with_some_ids(tmp_path: Path) -> None:
    write(tmp_path, [capture(number) for number in range(3)])
    write(tmp_path, [capture(1)], HR)
    with pytest.raises(RecordNotFound, match="matches 2 records: .*longer prefix"):
        record_reader.find_record(str(tmp_path), archive_id(1), None)
    assert record_reader.find_record(str(tmp_path), archive_id(1), HR).archive == HR
    write(tmp_path, [capture(number) for number in range(30)])
    with pytest.raises(RecordNotFound, match="matches more than 5 records"):
        record_reader.find_record(str(tmp_path), "2026", LEGAL)


# --- memory -------------------------------------------------------------------------

PROGRAM = """
import sys
from postfix_archive.config import settings
from postfix_archive.outcomes import follower
from postfix_archive.reconcile import archive_lookup
from postfix_archive.store import record_reader, tally_cache
store, last = sys.argv[1], sys.argv[3]
text = f"archive_store_directory = {store}\\n"
found = settings.parse(text, path="x", config_directory="/", myhostname="m.x")
exec(sys.argv[2])
# Not of getrusage(2): that begins with the peak of the process that has started this.
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""
READERS = {
    "list": "for each in record_reader.records(store, 'legal@example.com'): pass",
    "last": "[_] = record_reader.records(store, 'legal@example.com', last=1)",
    "since": "[*record_reader.records(store, 'legal@example.com', since=9e9)]",
    "show": "record_reader.find_record(store, last, None)",
    "prefix": "record_reader.find_record(store, last[:-1], None)",
    "bypasses": "record_reader.bypass_periods(store, 'legal@example.com')",
    "lookup": "archive_lookup.ids_in_journals(found, [last], 0.0)",
    "tally": "tally_cache.current_tallies(store, ['legal@example.com'], store)",
}
GROWTH_LIMIT = 10 << 10  # KB: caches of SQLite; 20,000 records in memory are 120 MB


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    """Stores with 1,000 and 20,000 records, each with the id of the last one."""
    stores_and_ids = []
    for count in (1000, 20_000):
        directory = tmp_path_factory.mktemp("store")
        events = [
            fields
            for number in range(count)
            for fields in (capture(16 * number), outcome(16 * number))
        ]
        write(directory, events)
        stores_and_ids.append((directory, archive_id(16 * (count - 1))))
    return stores_and_ids


@pytest.mark.parametrize("reader", READERS)
def test_memory_does_not_grow_with_the_journal(
    stores: list[tuple[Path, str]], reader: str
) -> None:
    peaks = []
    for store, last in stores:
        command = [sys.executable, "-c", PROGRAM, str(store), READERS[reader], last]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(process.stdout))
    assert peaks[1] - peaks[0] < GROWTH_LIMIT, peaks


# --- the same as the verifier -------------------------------------------------------


def _torn_in_the_middle(lines: list[bytes]) -> bytes:
    return b"".join([lines[0], lines[1][:70], b"\n", *lines[1:]])


def _cut(part: int, lines: list[bytes]) -> bytes:
    content = b"".join(lines)
    return content[: len(content) * part // 40]


DAMAGES: dict[str, Callable[[list[bytes]], bytes]] = {
    "none": b"".join,
    "empty": lambda lines: b"",
    "without the last line": lambda lines: b"".join(lines[:-1]),
    "without the first line": lambda lines: b"".join(lines[1:]),
    "torn at the end": lambda lines: b"".join(lines)[:-50],
    "without the last line end": lambda lines: b"".join(lines)[:-1],
    "torn in the middle": _torn_in_the_middle,
    "empty lines": lambda lines: b"\n".join(lines),
    "zeros": lambda lines: b"".join([lines[0], b"\0" * 500, b"\n", *lines[1:]]),
    "noise": lambda lines: b"".join([lines[0], b"noise\n", *lines[1:]]),
    "no object": lambda lines: b"".join([b"[5]\n", *lines]),
    "deep": lambda lines: b"".join([b"[" * 100_000, b"\n", *lines]),
    "no UTF-8": lambda lines: b"".join([*lines, b"\xff\xfe\n"]),
    "twice": lambda lines: b"".join([*lines, lines[-1]]),
    **{f"cut {tenth}": partial(_cut, tenth) for tenth in range(1, 40)},
}


def _files(events: list[Event]) -> set[str]:
    file_events = (verifier.ARCHIVED, verifier.OUTCOME_REPORT)
    return {each["file"] for each in events if each["event"] in file_events}


@pytest.mark.parametrize("damage", DAMAGES)
def test_both_readers_of_a_journal_find_the_same_events(
    tmp_path: Path, damage: str
) -> None:
    path = write(tmp_path, [capture(1), outcome(1), capture(2), outcome(2)])
    path.write_bytes(DAMAGES[damage](path.read_bytes().splitlines(keepends=True)))
    lines = list(journal_reader.lines(str(path.parent)))
    events = [journal_reader.valid_event(each) for each in lines]
    result = verifier._read_journal(str(path.parent), (), has_files=True)
    assert b"".join(each.content for each in lines) == b"".join(
        each for each in path.read_bytes().splitlines(True) if each.endswith(b"\n")
    )
    is_cut = any("truncated line" in each.problem for each in result.findings)
    assert result.line_count == len(lines) + is_cut
    assert set(result.files) == _files([each for each in events if each is not None])
    rejected, read = _line_numbers(path)
    assert read == set(range(1, len(lines) + 1)) - rejected


def test_no_line_that_the_verifier_rejects_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, [capture(1), outcome(1), capture(2)])
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 7
        path.write_bytes(flipped)
        rejected, read = _line_numbers(path)
        assert not rejected & read, position


def _line_numbers(path: Path) -> tuple[set[int], set[int]]:
    """The numbers of the lines that the verifier rejects, and of those read."""
    findings = verifier._read_journal(str(path.parent), (), has_files=True).findings
    rejected = {
        int(each.location.rpartition(" ")[2])
        for each in findings
        if each.problem.startswith("not a journal line")
    }
    lines = enumerate(journal_reader.lines(str(path.parent)), 1)
    read = {number for number, each in lines if journal_reader.valid_event(each)}
    return rejected, read


def test_a_line_being_written_is_no_line_yet(tmp_path: Path) -> None:
    path = write(tmp_path, [capture(1), capture(2)])
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for end in range(first, len(content)):
        path.write_bytes(content[:end])
        assert [each.end for each in journal_reader.lines(str(path.parent))] == [first]
    path.write_bytes(content)
    [line] = journal_reader.lines(str(path.parent), first)
    assert (line.offset, line.end, line.kind) == (first, len(content), "archived")


def test_the_age_is_that_of_the_next_line_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, [capture(1), outcome(1), outcome(1), capture(2)])
    first, damaged, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, b"\0" * 4096, damaged, *others]))
    end = path.stat().st_size
    monkeypatch.setattr(time, "time", lambda: NOW + 10.0)
    age = partial(journal_reader.age_of_next, str(path.parent))
    assert [age(0), age(len(first)), age(end)] == [10.0, 8.0, 0.0]
    assert age(len(first), journal.CAPTURE_EVENTS) == 7.0
    assert age(0, journal.BYPASS_EVENTS) == 0.0


def test_damage_is_passed_over_and_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, [capture(1), capture(2), capture(3), capture(4)])
    lines = path.read_bytes().splitlines(keepends=True)
    invalid = {**journal_lines.parse(lines[2]), "size": -5}
    for damaged in (b"noise\n", b"\0" * 512 + lines[2], make_line(invalid)):
        path.write_bytes(b"".join([*lines[:2], damaged, *lines[3:]]))
        warnings: list[str] = []
        records = record_reader.records(str(tmp_path), LEGAL, warn=warnings.append)
        assert [each.archive_id for each in records] == [*map(archive_id, (1, 2, 4))]
        assert warnings == [
            f"{path.parent}, line 3: not a journal line; passed over; run"
            " postfix-archive verify"
        ]
        found = record_reader.find_record(str(tmp_path), archive_id(4), None)
        assert found.archive_id == archive_id(4)


def test_a_line_struck_out_without_an_event_is_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, [capture(1), outcome(1), outcome(1), capture(2)])
    journal_lines.strike_out(path, 1)
    journal_lines.strike_out(path, 2)
    warnings: list[str] = []
    records = record_reader.records(str(tmp_path), LEGAL, warn=warnings.append)
    assert [each.archive_id for each in records] == [*map(archive_id, (1, 2))]
    [warning] = warnings
    assert "line 2: details struck out, and no later event says why" in warning


@pytest.mark.parametrize("block_size", [1, 7, 1000, 1 << 17])
def test_lines_backwards_are_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_size: int
) -> None:
    """Over two segments, from each offset, and without what is torn at the end."""
    monkeypatch.setattr(journal_reader, "BACKWARD_SIZE", block_size)
    contents = [b"a" * 30 + b"\n", b"\n", b"b\rc\n", b"d" * 9 + b"\n"]
    (tmp_path / "2026-10").write_bytes(b"".join(contents[:2]))
    (tmp_path / "2026-11").write_bytes(b"".join(contents[2:]) + b"torn")
    lines = list(journal_reader.lines(str(tmp_path)))
    assert [each.content for each in lines] == contents
    backwards = partial(journal_reader.lines_backwards, str(tmp_path))
    assert list(backwards())[::-1] == lines
    for end in range(60):
        expected = [each for each in lines if each.end <= end]
        assert list(backwards(end))[::-1] == expected
