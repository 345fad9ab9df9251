"""The state of the follower: kept when it cannot be opened, made anew when damaged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from postfix_archive.errors import StoreFailed
from postfix_archive.outcomes import follower_state
from postfix_archive.outcomes.follower_state import FollowerState


def test_a_damaged_state_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / follower_state.DATABASE_NAME).write_bytes(b"no database" * 1000)
    with closing(FollowerState(str(tmp_path))) as state:
        assert state.get_value("place") == ""


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
