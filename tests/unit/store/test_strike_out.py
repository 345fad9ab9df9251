"""Claims about striking out: only the details go, and nothing that is no line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postfix_archive.errors import JournalFailed
from postfix_archive.store import journal, journal_event, journal_reader, strike_out

import journal_lines

ID = "20261122-" + "a1" * 20


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An archive with a line in each of two months, the second with long details."""
    path = tmp_path / "legal@example.com"
    path.mkdir()
    for time, text in (("2026-11-22T11:53:00Z", "short"), ("2026-12-01T00:00:00Z", "")):
        with journal.Journal(str(path)) as file:
            file.append("x", time, id=ID, text=text or "long" * 50_000)
    return path


def lines(directory: Path) -> list[journal_reader.Line]:
    return list(journal_reader.lines(f"{directory}/journal"))


def test_details_of_all_segments_become_spaces(directory: Path) -> None:
    before = lines(directory)
    offsets = [each.offset for each in before if each.kind == "x"]
    for _ in range(2):  # twice is harmless
        strike_out.strike_out(f"{directory}/journal", offsets)
    for old, new in zip(before, lines(directory), strict=True):
        assert (new.offset, len(new.content)) == (old.offset, len(old.content))
        assert new.content.partition(b"\t")[0] == old.content.partition(b"\t")[0]
        is_wanted = old.kind == "x"
        assert new.is_struck_out == new.is_wholly_struck_out == is_wanted
        assert is_wanted or new == old
    with journal.Journal(str(directory)) as file:
        file.append("x", "2026-12-02T00:00:00Z", id=ID)
    assert [e["seq"] for e in journal_lines.events(directory)] == [2, 4, 5]


@pytest.mark.parametrize("offset", [3, 10**9])
def test_what_is_no_line_is_left(directory: Path, offset: int) -> None:
    before = lines(directory)
    with pytest.raises(JournalFailed, match="not a journal line|ends before"):
        strike_out.strike_out(f"{directory}/journal", [offset])
    assert lines(directory) == before


def test_a_segment_with_a_second_name_is_left(directory: Path) -> None:
    before = lines(directory)
    segment = journal_lines.segment(directory)
    os.link(segment, segment.parent.parent / "snapshot")
    with pytest.raises(JournalFailed, match="link count"):
        strike_out.strike_out(f"{directory}/journal", [before[-1].offset])
    assert lines(directory) == before


@pytest.mark.parametrize("until", ["2036", "2036-02-30", "2036-11-22T00:00:00Z", ""])
def test_a_retention_without_a_last_day_is_no_event(until: str) -> None:
    event = {"event": "retention", "time": "2026-11-22T11:53:00Z", "id": ID}
    event |= {"rule": "*", "period": "10y", "by": "root", "until": "2036-11-22"}
    assert journal_event.is_valid(event)
    assert journal_event.is_valid(event | {"until": "permanent"})
    assert not journal_event.is_valid(event | {"until": until})
    assert not journal_event.is_valid({**event, "rule": 1})


def test_a_line_torn_in_its_first_part_is_left(directory: Path) -> None:
    segment = journal_lines.segment(directory)
    torn = b'{"seq":9,"time":"2026-12-02T00:00:00Z","event":"x","id":"a'
    content = segment.read_bytes()
    end = journal_reader.end_offset(f"{directory}/journal")
    segment.write_bytes(content + torn + b"\n")
    with pytest.raises(JournalFailed, match="not a journal line"):
        strike_out.strike_out(f"{directory}/journal", [end])
    assert segment.read_bytes() == content + torn + b"\n"
