"""Claims about write-through: when the store is asked, and when it is left in peace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postfix_archive.errors import WriteThroughFailed, WriteThroughTimeout
from postfix_archive.stamp_filter import write_through
from postfix_archive.system import spool

from unit.examples import envelope_of, set_up

NOW = 1_800_000_000
ARCHIVED, LATE = ["altered"], "not done within 5 s"


class Mate:
    """Does what it is told in no time, or is late; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.is_late = False

    def call(self, _: bytes, seconds: int) -> str:
        """Return, or raise."""
        self.asked.append(seconds)
        if self.is_late:
            raise WriteThroughTimeout(LATE)
        return " ".join(ARCHIVED)


class Asked:
    """A way into the store that leads to a mate of this kind, for one message each."""

    def __init__(self, folder: Path) -> None:
        settings = set_up(
            f"archive_spool_directory = {folder}\n"
            "archive_write_through_time_limit = 7s\n"
        )
        self.mate = Mate()
        self._way = write_through.WriteThrough(settings, None)  # type: ignore[arg-type]
        self._way._child = self.mate  # type: ignore[assignment]

    @property
    def note(self) -> Path:
        """The file that says since when the store is left in peace."""
        return Path(self._way._slow_marker.path)

    def at(self, now: int, size: int = 10) -> list[str]:
        """Return what comes of a message at that time."""
        message = spool.Spool()
        message.add(b"x" * size, "/nowhere")
        return self._way.archive(message, envelope_of(), now)


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


def test_the_store_is_asked_for_as_long_as_archive_cf_says(asked: Asked) -> None:
    assert asked.at(NOW) == ARCHIVED
    assert asked.mate.asked == [7]


def slow_at(asked: Asked, now: int, folder: Path) -> None:
    asked.mate.is_late = True
    with pytest.raises(WriteThroughFailed, match=LATE):
        asked.at(now)
    os.utime(asked.note, (now, now))
    asked.mate.is_late = False
    asked.mate.asked.clear()


def test_a_slow_store_is_left_in_peace_for_a_while(
    asked: Asked, tmp_path: Path
) -> None:
    slow_at(asked, NOW, tmp_path)
    for later in (0, 1, write_through.SLOW_STORE_PAUSE - 1):
        with pytest.raises(WriteThroughFailed, match="the store was slow"):
            asked.at(NOW + later)
    assert not asked.mate.asked
    assert asked.at(NOW + write_through.SLOW_STORE_PAUSE) == ARCHIVED


def test_all_processes_know_of_the_pause(asked: Asked, tmp_path: Path) -> None:
    slow_at(asked, NOW, tmp_path)
    other = Asked(tmp_path)
    with pytest.raises(WriteThroughFailed, match="the store was slow"):
        other.at(NOW)
    assert not other.mate.asked


def test_a_note_from_the_future_makes_no_pause_without_end(
    asked: Asked, tmp_path: Path
) -> None:
    slow_at(asked, NOW + 10 * write_through.SLOW_STORE_PAUSE, tmp_path)
    assert asked.at(NOW) == ARCHIVED


def test_a_second_time_it_is_slow_begins_a_pause_anew(
    asked: Asked, tmp_path: Path
) -> None:
    slow_at(asked, NOW, tmp_path)
    slow_at(asked, NOW + write_through.SLOW_STORE_PAUSE, tmp_path)
    with pytest.raises(WriteThroughFailed, match="the store was slow"):
        asked.at(NOW + 2 * write_through.SLOW_STORE_PAUSE - 1)


def test_nobody_else_may_read_the_note_and_no_link_is_followed(
    asked: Asked, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    asked.note.symlink_to(outside)
    asked.mate.is_late = True
    with pytest.raises(WriteThroughFailed, match=LATE):
        asked.at(NOW)
    assert not outside.exists()
    asked.note.unlink()
    before = os.umask(0)
    with pytest.raises(WriteThroughFailed, match=LATE):
        asked.at(NOW)
    os.umask(before)
    assert asked.note.stat().st_mode & 0o777 == 0o600


def test_without_a_place_for_the_note_the_store_is_asked_each_time(
    tmp_path: Path,
) -> None:
    asked = Asked(tmp_path / "missing")
    asked.mate.is_late = True
    for _ in range(2):
        with pytest.raises(WriteThroughFailed, match=LATE):
            asked.at(NOW)
    assert len(asked.mate.asked) == 2


def test_what_is_no_regular_message_in_memory_goes_as_a_capsule(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is not slow for that, and the next message is not told so."""
    monkeypatch.setattr(spool, "MEMORY_LIMIT", 100)
    assert asked.at(NOW, size=100) == ARCHIVED
    message = spool.Spool()
    message.add(b"x" * 101, str(tmp_path))
    with pytest.raises(WriteThroughFailed, match="it is large"):
        asked._way.archive(message, envelope_of(), NOW)
    message.close()
    assert asked.at(NOW) == ARCHIVED
    assert len(asked.mate.asked) == 2
