"""Claims about a store that is not as we write it: commands name it or refuse it."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.bypass import switch
from postfix_archive.errors import (
    BypassRefused,
    PostfixCommandFailed,
    RecordDamaged,
    StoreFailed,
)
from postfix_archive.rescue import queue_rescue
from postfix_archive.store import (
    copy_file,
    fallback,
    journal,
    journal_event,
    record_reader,
)
from postfix_archive.store.bypass_period import BypassPeriod

import journal_lines
from unit.examples import ARCHIVE_ID, LEGAL, NOW
from unit.store.test_archive import NAME, Capture
from unit.store.test_verifier import make_bomb

TIME = "2026-11-22T11:53:00Z"


def test_a_bomb_costs_show_no_more_than_the_record_says(store: Path) -> None:
    path = store / LEGAL / NAME
    path.chmod(0o600)
    path.write_bytes(make_bomb(1 << 33))
    record = record_reader.find_record(str(store), ARCHIVE_ID, None)
    with pytest.raises(RecordDamaged, match="no original|more than its record"):
        record_reader.original_head(str(store), record)
    with pytest.raises(RecordDamaged, match="more than its record"):
        for _ in record_reader.archive_copy(str(store), record):
            pass
    with pytest.raises(StoreFailed):
        copy_file.read_capture(str(path), LEGAL)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    Capture().store_in(tmp_path)
    return tmp_path


def change_journal(store: Path, **fields: Any) -> Path:
    """The store with other values in the line of its message, now the only one."""
    path = journal_lines.segment(store / LEGAL)
    line = path.read_bytes().splitlines()[-1]
    event = {**journal_lines.parse(line), **fields}
    path.write_bytes(journal_lines.make_line(event))
    return store


@pytest.mark.parametrize(
    "fields",
    [
        {"event": None},
        {"event": ["archived"]},
        {"time": "yesterday"},
        {"time": "2026-11-22T11:53:00"},
        {"time": "2026-11-22\ud80011:53:00Z"},
        {"id": "../../etc/passwd"},
        {"id": ["x"]},
        {"size": -1},
        {"size": "359"},
        {"size": True},
        {"envelope": 5},
        {"envelope": "Archive-Id: \ud800"},
        {"above": 5},
        {"stamp": []},
        {"file": "../../../../etc/shadow.eml.gz"},
        {"file": "/etc/shadow"},
        {"file": ["x"]},
        {"file": "a\0b"},
        {"file": "a\ud800"},
        {"event": "bypass-started"},
    ],
)
def test_a_line_that_we_would_not_write_is_refused(
    store: Path, fields: dict[str, Any]
) -> None:
    path = journal_lines.segment(change_journal(store, **fields) / LEGAL)
    with pytest.raises(ValueError, match="not a journal line"):
        journal_event.parse(path.read_bytes())


def test_such_a_line_is_passed_over(store: Path) -> None:
    change_journal(store, size=-1)
    assert "line 1: not a journal line; passed over" in warning_of(store)


def warning_of(store: Path) -> str:
    """The warning about the journal of a store in which no record can be read."""
    warnings: list[str] = []
    assert [*record_reader.records(str(store), LEGAL, warn=warnings.append)] == []
    [warning] = warnings
    return warning


@pytest.mark.parametrize(
    "line", [b"[]", b"5", b"null", b'"x"', b"{}", b"[" * 100_000, b"\xff", b"x"]
)
def test_a_line_that_is_no_event_is_passed_over(store: Path, line: bytes) -> None:
    journal_lines.segment(store / LEGAL).write_bytes(line + b"\n")
    assert "line 1: not a journal line; passed over" in warning_of(store)


def test_an_event_of_a_kind_to_come_is_taken(store: Path) -> None:
    with journal.Journal(str(store / LEGAL)) as events:
        events.append("delivered", TIME, id=ARCHIVE_ID, status="sent")
    (record,) = record_reader.records(str(store), LEGAL)
    assert [each["event"] for each in record.events] == ["archived", "delivered"]


def test_a_record_without_a_file_says_so(store: Path) -> None:
    change_journal(store, event="supplement")
    path = journal_lines.segment(store / LEGAL)
    path.write_bytes(path.read_bytes().replace(b'"file":', b'"was":'))
    (record,) = record_reader.records(str(store), LEGAL)
    with pytest.raises(RecordDamaged, match="no valid file name in the journal"):
        record_reader.original_head(str(store), record)


def test_a_copy_without_an_original_says_so(store: Path) -> None:
    (record,) = record_reader.records(str(store), LEGAL)
    record.files[0] = "other.gz"
    text = Capture().copy.replace(b"boundary=", b"bound=")
    (store / LEGAL / "other.gz").write_bytes(gzip.compress(text))
    with pytest.raises(RecordDamaged, match="no original in this file"):
        record_reader.original_head(str(store), record)


def test_what_stands_behind_a_copy_is_not_collected(store: Path) -> None:
    path = store / LEGAL / NAME
    path.chmod(0o600)
    with open(path, "ab") as file:
        file.write(b"x" * (10 * copy_file.BLOCK_SIZE))
    (record,) = record_reader.records(str(store), LEGAL)
    assert b"".join(record_reader.original(str(store), record)).endswith(
        b"Please sign.\r\n"
    )


def test_a_directory_with_an_odd_name_is_no_archive(store: Path) -> None:
    for name in (b"a\xff@example.com", b"a b@example.com", b"@", b"\x1b[2J@x"):
        os.mkdir(os.fsencode(store) + b"/" + name)
    assert record_reader.archives(str(store)) == [LEGAL]


def test_a_fifo_in_the_fallback_directory_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.capsule")
    ((_, path),) = fallback.waiting_capsules(str(tmp_path))
    with pytest.raises(StoreFailed, match="not a regular file"):
        fallback.open_capsule(path)


@pytest.mark.parametrize("text", ["[]", "5", '{"4Zx": 5}', "{", "[" * 100_000])
def test_notes_of_another_shape_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / queue_rescue.HOLD_FILE).write_text(text)
    with pytest.raises(PostfixCommandFailed, match=r"^read .*archive.held: "):
        queue_rescue.read_hold_times(str(tmp_path))
    (tmp_path / switch.RECORD_FILE).write_text(text)
    with pytest.raises(BypassRefused, match=r"^read .*archive.bypass: "):
        switch.read_record(str(tmp_path))


@pytest.mark.parametrize(
    "damage",
    [
        {"ended": 5},
        {"ended": "tomorrow"},
        {"started": "2026-11-22"},
        {"reason": "\ud800"},
        {"unrecorded_start": None},
        {"unrecorded_end": [5]},
    ],
)
def test_a_damaged_bypass_record_is_refused(
    tmp_path: Path, damage: dict[str, object]
) -> None:
    period = BypassPeriod(TIME, "root", "disk")
    fields = {**period.to_json(), "unrecorded_start": [], "unrecorded_end": [LEGAL]}
    (tmp_path / switch.RECORD_FILE).write_text(json.dumps(fields))
    record = switch.BypassRecord(period, (), (LEGAL,))
    assert switch.read_record(str(tmp_path)) == record
    (tmp_path / switch.RECORD_FILE).write_text(json.dumps({**fields, **damage}))
    with pytest.raises(BypassRefused):
        switch.read_record(str(tmp_path))


def test_the_newest_arrival_is_that_of_all_archives(tmp_path: Path) -> None:
    assert record_reader.last_arrival(str(tmp_path / "missing")) == 0.0
    Capture().store_in(tmp_path)
    assert record_reader.last_arrival(str(tmp_path)) == NOW
    other = Capture(message=b"Subject: other\r\n\r\n", arrival=NOW + 7)
    other.store_in(tmp_path)
    path = journal_lines.segment(tmp_path / LEGAL)
    path.write_bytes(path.read_bytes() + b"torn")
    assert record_reader.last_arrival(str(tmp_path)) == NOW + 7
    (tmp_path / "other@example.com").mkdir()
    assert record_reader.last_arrival(str(tmp_path)) == NOW + 7
