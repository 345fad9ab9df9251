"""The state of the follower: kept when it cannot be opened, made anew when damaged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from postfix_archive.back import followed
from postfix_archive.back.followed import Followed
from postfix_archive.core.errors import StoreFailed


def test_a_damaged_state_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / followed.NAME).write_bytes(b"no database" * 1000)
    with closing(Followed(str(tmp_path))) as state:
        assert state.word("place") == ""


def test_a_state_that_cannot_be_opened_now_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Followed(str(tmp_path))) as state:
        state.note("place", "here")
        state.commit()

    def fails(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", fails)
        with pytest.raises(StoreFailed, match="outcomes.sqlite: database or disk is"):
            Followed(str(tmp_path))
    with closing(Followed(str(tmp_path))) as state:
        assert state.word("place") == "here"


def test_what_was_not_committed_did_not_happen(tmp_path: Path) -> None:
    with closing(Followed(str(tmp_path))) as state:
        state.note("place", "here")
    with closing(Followed(str(tmp_path))) as state:
        assert state.word("place") == ""


def test_a_state_with_foreign_tables_is_named(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / followed.NAME)) as base:
        base.execute("CREATE TABLE word (something TEXT)")
    with closing(Followed(str(tmp_path))) as state:
        with pytest.raises(StoreFailed, match="outcomes.sqlite: no such column"):
            state.word("place")


def test_how_long_ago_the_log_was_read_to_its_end(tmp_path: Path) -> None:
    assert followed.age(str(tmp_path), 1e9) is None
    followed.note(str(tmp_path))
    at = (tmp_path / followed.LOOKED).stat().st_mtime
    assert followed.age(str(tmp_path), at + 60) == 60
    assert followed.age(str(tmp_path), at - 60) == 60  # the clock was set back
