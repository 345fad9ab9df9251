"""Claims about write-through: when the store is asked, and when it is left in peace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postfix_archive.errors import WriteThroughFailed, WriteThroughTimeout
from postfix_archive.stamp_filter import write_through
from postfix_archive.system import spool

from unit.examples import make_envelope, make_settings

NOW = 1_800_000_000
ARCHIVED, LATE_ERROR = ["altered"], "not done within 5 s"


class FakeChild:
    """Does what it is told in no time, or is late; counts how often it was asked."""

    def __init__(self) -> None:
        self.timeouts: list[int] = []
        self.is_late = False

    def call(self, _: bytes, seconds: int) -> str:
        """Return, or raise."""
        self.timeouts.append(seconds)
        if self.is_late:
            raise WriteThroughTimeout(LATE_ERROR)
        return " ".join(ARCHIVED)


class StoreAttempts:
    """A way into the store that leads to a mate of this kind, for one message each."""

    def __init__(self, directory: Path) -> None:
        settings = make_settings(
            f"archive_spool_directory = {directory}\n"
            "archive_write_through_time_limit = 7s\n"
        )
        self.child = FakeChild()
        self._write_through = write_through.WriteThrough(
            settings, None  # type: ignore[arg-type]
        )
        self._write_through._calls._child = self.child  # type: ignore[assignment]

    @property
    def pause_file(self) -> Path:
        """The file that says since when the store is left in peace."""
        return Path(self._write_through._calls._slow_marker.path)

    def archive_at(self, now: int, size: int = 10) -> list[str]:
        """Return what comes of a message at that time."""
        message = spool.Spool()
        message.add(b"x" * size, "/nowhere")
        return self._write_through.archive(message, make_envelope(), now)


@pytest.fixture
def attempts(tmp_path: Path) -> StoreAttempts:
    return StoreAttempts(tmp_path)


def test_the_store_is_tried_for_as_long_as_archive_cf_allows(
    attempts: StoreAttempts,
) -> None:
    assert attempts.archive_at(NOW) == ARCHIVED
    assert attempts.child.timeouts == [7]


def time_out_at(attempts: StoreAttempts, now: int, directory: Path) -> None:
    attempts.child.is_late = True
    with pytest.raises(WriteThroughFailed, match=LATE_ERROR):
        attempts.archive_at(now)
    os.utime(attempts.pause_file, (now, now))
    attempts.child.is_late = False
    attempts.child.timeouts.clear()


def test_a_slow_store_is_left_in_peace_for_a_while(
    attempts: StoreAttempts, tmp_path: Path
) -> None:
    time_out_at(attempts, NOW, tmp_path)
    for later in (0, 1, write_through.SLOW_STORE_PAUSE - 1):
        with pytest.raises(WriteThroughFailed, match="the store was slow"):
            attempts.archive_at(NOW + later)
    assert not attempts.child.timeouts
    assert attempts.archive_at(NOW + write_through.SLOW_STORE_PAUSE) == ARCHIVED


def test_all_processes_know_of_the_pause(
    attempts: StoreAttempts, tmp_path: Path
) -> None:
    time_out_at(attempts, NOW, tmp_path)
    other = StoreAttempts(tmp_path)
    with pytest.raises(WriteThroughFailed, match="the store was slow"):
        other.archive_at(NOW)
    assert not other.child.timeouts


def test_a_note_from_the_future_makes_no_pause_without_end(
    attempts: StoreAttempts, tmp_path: Path
) -> None:
    time_out_at(attempts, NOW + 10 * write_through.SLOW_STORE_PAUSE, tmp_path)
    assert attempts.archive_at(NOW) == ARCHIVED


def test_a_second_time_it_is_slow_begins_a_pause_anew(
    attempts: StoreAttempts, tmp_path: Path
) -> None:
    time_out_at(attempts, NOW, tmp_path)
    time_out_at(attempts, NOW + write_through.SLOW_STORE_PAUSE, tmp_path)
    with pytest.raises(WriteThroughFailed, match="the store was slow"):
        attempts.archive_at(NOW + 2 * write_through.SLOW_STORE_PAUSE - 1)


def test_no_other_user_may_read_the_pause_file_and_no_link_is_followed(
    attempts: StoreAttempts, tmp_path: Path
) -> None:
    target = tmp_path / "outside"
    attempts.pause_file.symlink_to(target)
    attempts.child.is_late = True
    with pytest.raises(WriteThroughFailed, match=LATE_ERROR):
        attempts.archive_at(NOW)
    assert not target.exists()
    attempts.pause_file.unlink()
    before = os.umask(0)
    with pytest.raises(WriteThroughFailed, match=LATE_ERROR):
        attempts.archive_at(NOW)
    os.umask(before)
    assert attempts.pause_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_pause_file_of_another_user_makes_no_pause_and_hinders_none(
    attempts: StoreAttempts, tmp_path: Path
) -> None:
    taken_path = attempts.pause_file
    taken_path.touch()
    os.utime(taken_path, (NOW, NOW))
    os.chown(taken_path, 65534, 65534)
    assert attempts.archive_at(NOW) == ARCHIVED
    time_out_at(attempts, NOW, tmp_path)
    assert attempts.pause_file != taken_path
    with pytest.raises(WriteThroughFailed, match="the store was slow"):
        attempts.archive_at(NOW)


def test_without_a_directory_for_the_pause_file_the_store_is_tried_each_time(
    tmp_path: Path,
) -> None:
    attempts = StoreAttempts(tmp_path / "missing")
    attempts.child.is_late = True
    for _ in range(2):
        with pytest.raises(WriteThroughFailed, match=LATE_ERROR):
            attempts.archive_at(NOW)
    assert len(attempts.child.timeouts) == 2


def test_what_is_no_regular_message_in_memory_goes_as_a_capsule(
    attempts: StoreAttempts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is not slow for that, and the next message is not told so."""
    monkeypatch.setattr(spool, "MEMORY_LIMIT", 100)
    assert attempts.archive_at(NOW, size=100) == ARCHIVED
    message = spool.Spool()
    message.add(b"x" * 101, str(tmp_path))
    with pytest.raises(WriteThroughFailed, match="it is large"):
        attempts._write_through.archive(message, make_envelope(), NOW)
    message.close()
    assert attempts.archive_at(NOW) == ARCHIVED
    assert len(attempts.child.timeouts) == 2
