"""Claims about finding lines of a journal: as reading all of it finds them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from postfix_archive.errors import JournalFailed
from postfix_archive.store import journal, journal_reader, journal_search

import journal_lines
from unit.examples import LEGAL

TEXTS = ["first", "second", "third", '\\"event\\":\\"hold-set\\"']
KINDS = [journal.OUTCOME, journal.ARCHIVED, *journal.DECISION_EVENTS]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Two segments with lines of all lengths; the last line has no end yet."""
    chosen = random.Random(15)
    events: list[dict[str, str | int]] = [
        {
            "seq": number,
            "time": "2026-11-22T12:00:00Z",
            "event": chosen.choice(KINDS),
            "id": f"{chosen.choice(TEXTS)}-{number}",
            "reason": chosen.choice(TEXTS) * chosen.choice([0, 1, 100]),
        }
        for number in range(1, 300)
    ]
    lines = journal_lines.make_lines(events).splitlines(keepends=True)
    first = journal_lines.segment(tmp_path / LEGAL)
    first.parent.mkdir(parents=True)
    first.with_name("2020-01").write_bytes(b"".join(lines[:100]))
    first.write_bytes(
        b"".join(lines[100:200]) + b"\n\xff no line\n{}\n" + b"".join(lines[200:])[:-9]
    )
    return str(first.parent)


@pytest.mark.parametrize("size", [1, 7, 512, 4096, 1 << 17])
@pytest.mark.parametrize("texts", [[], ["first"], ["first", "d-"], ["first-1", "é"]])
def test_the_lines_with_a_text_are_those_of_all_that_have_it(
    path: str, size: int, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_search, "SEARCHED_SIZE", size)
    needles = [each.encode() for each in texts]
    lines = list(journal_reader.lines(path))
    for offset in (0, lines[3].offset, lines[150].offset, lines[-1].end, 1 << 40):
        expected = [
            each
            for each in journal_reader.lines(path, offset)
            if any(needle in each.content for needle in needles)
        ]
        assert [*journal_search.lines_with(path, offset, needles)] == expected


@pytest.mark.parametrize("kinds", [[], [journal.ARCHIVED], journal.DECISION_EVENTS])
def test_the_lines_of_some_kinds_are_those_of_all_that_are(
    path: str, kinds: list[str]
) -> None:
    lines = list(journal_reader.lines(path))
    for offset in (0, lines[150].offset, lines[-1].end, 1 << 40):
        expected = [e for e in journal_reader.lines(path, offset) if e.kind in kinds]
        assert [*journal_search.lines_of(path, offset, kinds)] == expected
        assert bool(expected) == bool(kinds and offset != lines[-1].end)


def test_a_missing_journal_has_no_lines_and_one_of_format_1_is_refused(
    tmp_path: Path,
) -> None:
    missing = f"{tmp_path}/none"
    assert [*journal_search.lines_with(missing, 0, [b"x"])] == []
    assert [*journal_search.lines_of(missing, 0, [journal.ARCHIVED])] == []
    former = tmp_path / "journal"
    former.write_bytes(b"{}\n")
    with pytest.raises(JournalFailed, match="format 1"):
        next(journal_search.lines_with(str(former), 0, [b"x"]))
