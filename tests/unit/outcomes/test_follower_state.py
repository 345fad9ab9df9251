"""The state of the follower: kept when it cannot be opened, made anew when damaged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from postfix_archive.errors import StoreFailed
from postfix_archive.maillog.queue_file import QueueFiles
from postfix_archive.outcomes import follower_state
from postfix_archive.outcomes.follower_state import FollowerState, PendingCapture


def test_a_damaged_state_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / follower_state.DATABASE_NAME).write_bytes(b"no database" * 1000)
    with closing(FollowerState(str(tmp_path))) as state:
        assert state.get_value("place") == ""


PAGE = 4096  # bytes: default page size of SQLite


def quick_check(path: Path, content: bytes, page: int) -> str:
    """Write a database with an empty page; return SQLite's answer, "" for an error."""
    path.write_bytes(
        content[: page * PAGE] + bytes(PAGE) + content[(page + 1) * PAGE :]
    )
    with closing(sqlite3.connect(path)) as database:
        try:
            return str(database.execute("PRAGMA quick_check").fetchone()[0])
        except sqlite3.Error:
            return ""


def test_a_state_in_which_sqlite_finds_damage_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / follower_state.DATABASE_NAME
    with closing(FollowerState(str(tmp_path))) as state:
        for number in range(2000):
            state.save_early_outcomes(f"{number:060}", 1.0, [])
        state.set_value("place", "here")
        state.commit()
    content = path.read_bytes()
    answers = (quick_check(path, content, page) for page in range(len(content) // PAGE))
    assert any(answer not in ("", "ok") for answer in answers)
    with closing(FollowerState(str(tmp_path))) as state:
        assert state.get_value("place") == ""


@pytest.mark.parametrize("words", ["", "{", "[]", "7", '{"unknown": 1}'])
def test_a_state_with_a_damaged_queue_file_is_made_anew(
    tmp_path: Path, words: str
) -> None:
    with closing(FollowerState(str(tmp_path))) as state:
        state.set_value("place", "here")
        state.commit()
    with closing(sqlite3.connect(tmp_path / follower_state.DATABASE_NAME)) as base:
        base.execute("INSERT INTO file VALUES ('Q1.1', ?)", (words,))
        base.commit()
    queue_files = QueueFiles()
    with closing(FollowerState(str(tmp_path))) as state:
        state.load_queue_files(queue_files)
        assert state.get_value("place") == "" and not queue_files.by_key


@pytest.mark.parametrize("name", ["due", "line", "capture", "said", "early", "file"])
def test_every_error_of_sqlite_names_the_file(tmp_path: Path, name: str) -> None:
    capture = PendingCapture("a", "c", "r", "i", "q", 1.0, ())
    with closing(FollowerState(str(tmp_path))) as state:
        state.commit()
        with closing(sqlite3.connect(tmp_path / follower_state.DATABASE_NAME)) as base:
            base.execute(f"DROP TABLE {name}")
            base.commit()
        with pytest.raises(StoreFailed, match="outcomes.sqlite: no such table"):
            list(state.due_reports())
            state.journal_offsets("a", "r")
            list(state.captures())
            state.find_captures(archive_ids=["i"], queue_ids=[], capsules=[])
            state.remove_capture(capture, has_report=True)
            state.delete_early_outcomes(0.0)
            state.load_queue_files(QueueFiles())


def test_a_state_that_cannot_be_opened_now_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(FollowerState(str(tmp_path))) as state:
        state.set_value("place", "here")
        state.commit()

    def fails(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", fails)
        with pytest.raises(StoreFailed, match="outcomes.sqlite: database or disk is"):
            FollowerState(str(tmp_path))
    with closing(FollowerState(str(tmp_path))) as state:
        assert state.get_value("place") == "here"


@pytest.mark.parametrize("change", ["value = '1'", "name = 'none'"])
def test_a_state_of_another_version_is_made_anew(tmp_path: Path, change: str) -> None:
    with closing(FollowerState(str(tmp_path))) as state:
        state.set_value("place", "here")
        state.commit()
    with closing(sqlite3.connect(tmp_path / follower_state.DATABASE_NAME)) as base:
        base.execute(f"UPDATE word SET {change} WHERE name = 'version'")
        base.commit()
    for _ in range(2):
        with closing(FollowerState(str(tmp_path))) as state:
            assert state.get_value("place") == ""
            state.commit()


def test_what_was_not_committed_did_not_happen(tmp_path: Path) -> None:
    with closing(FollowerState(str(tmp_path))) as state:
        state.set_value("place", "here")
    with closing(FollowerState(str(tmp_path))) as state:
        assert state.get_value("place") == ""


def test_a_state_with_foreign_tables_is_named(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / follower_state.DATABASE_NAME)) as base:
        base.execute("CREATE TABLE word (something TEXT)")
    with closing(FollowerState(str(tmp_path))) as state:
        with pytest.raises(StoreFailed, match="outcomes.sqlite: no such column"):
            state.get_value("place")


def test_how_long_ago_the_log_was_read_to_its_end(tmp_path: Path) -> None:
    assert follower_state.last_read_age(str(tmp_path), 1e9) is None
    follower_state.touch_last_read(str(tmp_path))
    last_read = (tmp_path / follower_state.LAST_READ_FILE).stat().st_mtime
    assert follower_state.last_read_age(str(tmp_path), last_read + 60) == 60
    assert (
        follower_state.last_read_age(str(tmp_path), last_read - 60) == 60
    )  # the clock was set back
