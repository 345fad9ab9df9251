"""The log is read once, line for line, whatever rotates it; real files."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from postfix_archive.errors import LogUnreadable
from postfix_archive.maillog import log_file, log_reader


def line(number: int) -> str:
    minutes, seconds = divmod(number, 60)
    return (
        f"2026-11-25T05:{minutes:02d}:{seconds:02d}+00:00 mail postfix/x[1]: {number}"
    )


def write(path: Path, *numbers: int, end: str = "\n") -> None:
    with open(path, "a") as log:
        log.write("".join(f"{line(each)}{end}" for each in numbers))


class Follower:
    """Reads on in a new process each time, as far as a reader can tell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = log_reader.Position()
        self.lost_reason = ""

    def read_new(self, limit: int = 1000) -> list[int]:
        reader = log_reader.Reader(
            str(self.path), log_reader.parse_position(self.position.to_json())
        )
        numbers = [int(text.rpartition(" ")[2]) for text, _ in reader.new_lines(limit)]
        self.position, self.lost_reason = reader.position, reader.loss_warning
        return numbers


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "mail.log"


def test_each_line_comes_once(log_path: Path) -> None:
    follower = Follower(log_path)
    write(log_path, 1, 2)
    assert follower.read_new() == [1, 2]
    assert follower.read_new() == []
    write(log_path, 3)
    assert follower.read_new() == [3]


def test_no_more_than_the_limit_and_the_rest_later(log_path: Path) -> None:
    write(log_path, *range(10))
    follower = Follower(log_path)
    assert follower.read_new(4) == [0, 1, 2, 3]
    assert follower.read_new(4) == [4, 5, 6, 7]
    assert follower.read_new(4) == [8, 9]


def test_a_line_that_is_being_written_waits_for_its_end(log_path: Path) -> None:
    follower = Follower(log_path)
    write(log_path, 1)
    write(log_path, 2, end="")
    assert follower.read_new() == [1]
    with open(log_path, "a") as file:
        file.write("0\n")
    assert follower.read_new() == [20]


@pytest.mark.parametrize("is_compressed", [False, True, "zstd"])
@pytest.mark.parametrize("suffix", [".1", "-20261125", ".20261125-050000"])
def test_rotation_by_renaming(
    log_path: Path, suffix: str, is_compressed: bool | str
) -> None:
    follower = Follower(log_path)
    write(log_path, 1, 2)
    assert follower.read_new() == [1, 2]
    write(log_path, 3)
    old = Path(str(log_path) + suffix)
    log_path.rename(old)
    if is_compressed == "zstd":
        subprocess.run(["zstd", "-q", "--rm", str(old)], check=True)
        os.utime(f"{old}.zst", (1, 1))
    elif is_compressed:
        with open(old, "rb") as plain, gzip.open(f"{old}.gz", "wb") as packer:
            shutil.copyfileobj(plain, packer)
        old.unlink()
        os.utime(f"{old}.gz", (1, 1))
    else:
        os.utime(old, (1, 1))
    write(log_path, 4)
    assert follower.read_new() == [3, 4]
    assert not follower.lost_reason


def test_twice_rotated_while_nobody_was_there(log_path: Path) -> None:
    follower = Follower(log_path)
    write(log_path, 1)
    assert follower.read_new() == [1]
    for number, name in ((2, "mail.log.2"), (3, "mail.log.1")):
        write(log_path, number)
        log_path.rename(log_path.parent / name)
        os.utime(log_path.parent / name, (number, number))
    write(log_path, 4)
    assert follower.read_new() == [2, 3, 4]


def test_rotation_by_copy_and_truncate(log_path: Path) -> None:
    follower = Follower(log_path)
    write(log_path, 1, 2)
    assert follower.read_new(1) == [1]
    shutil.copy(log_path, log_path.parent / "mail.log.1")
    os.utime(log_path.parent / "mail.log.1", (1, 1))
    os.truncate(log_path, 0)
    write(log_path, 3)
    assert follower.read_new() == [2, 3]


def test_a_lost_position_is_reported_and_reading_continues(log_path: Path) -> None:
    follower = Follower(log_path)
    write(log_path, 1)
    assert follower.read_new() == [1]
    log_path.unlink()
    write(log_path, 7, 8)
    assert follower.read_new() == [7, 8]
    assert "in no file of this log any more" in follower.lost_reason


def test_a_log_without_a_file_has_no_lines(log_path: Path) -> None:
    assert Follower(log_path).read_new() == []


def test_a_damaged_packed_log_is_named(log_path: Path) -> None:
    (log_path.parent / "mail.log.1.gz").write_bytes(
        gzip.compress(f"{line(7)}\n".encode() * 9)[:-9]
    )
    write(log_path, 1)
    with pytest.raises(LogUnreadable, match="mail.log.1.gz"):
        Follower(log_path).read_new()


def test_a_damaged_zstd_log_is_named(log_path: Path) -> None:
    old = log_path.with_name("mail.log.1.zst")
    old.write_bytes(b"no Zstandard")
    write(log_path, 1)
    with pytest.raises(LogUnreadable, match="mail.log.1.zst: .*repair the file"):
        Follower(log_path).read_new()


def test_without_zstd_the_package_is_named(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_path.with_name("mail.log.1.zst").write_bytes(b"")
    write(log_path, 1)
    monkeypatch.setenv("PATH", str(log_path.parent))
    with pytest.raises(LogUnreadable, match="install the package zstd"):
        Follower(log_path).read_new()


def test_a_long_zstd_log_is_read_on_from_the_middle(log_path: Path) -> None:
    """More than a pipe holds, so that zstd(1) is stopped while it writes."""
    follower = Follower(log_path)
    write(log_path, *range(50000))
    assert len(follower.read_new(30000)) == 30000
    subprocess.run(["zstd", "-q", "--rm", str(log_path)], check=True)
    log_path.with_name("mail.log.zst").rename(log_path.with_name("mail.log.1.zst"))
    write(log_path, 50000)
    assert follower.read_new(3) == [30000, 30001, 30002]
    assert follower.read_new(30000)[-2:] == [49999, 50000]
    assert not follower.lost_reason


def test_of_files_gives_what_is_not_older(log_path: Path) -> None:
    write(log_path, 1, 2, 3)
    with open(log_path, "ab") as file:
        file.write(b"no time \xff\n")
    times = [each for _, each in log_reader.lines_of_files([str(log_path)], 0.0)]
    assert times[3] == times[2]
    assert times[0] == times[1] - 1
    texts = [text for text, _ in log_reader.lines_of_files([str(log_path)], times[1])]
    assert texts == [line(2), line(3), "no time \udcff"]


def test_a_missing_log_keeps_its_position(log_path: Path) -> None:
    reader = log_reader.Reader(str(log_path), log_reader.Position())
    assert list(reader.new_lines(9)) == []
    assert reader.absence_warning == f"{log_path}: no such file"
    write(log_path, 1)
    write(log_path.with_name("mail.log.1"), 0)
    os.utime(log_path.with_name("mail.log.1"), (1, 1))
    assert len(list(reader.new_lines(9))) == 2
    assert reader.absence_warning == ""
    moved = log_path.rename(log_path.parent / "away")
    assert list(reader.new_lines(9)) == []
    assert reader.absence_warning
    moved.rename(log_path)
    write(log_path, 2)
    [(text, _)] = reader.new_lines(9)
    assert text == line(2)
    assert (reader.loss_warning, reader.absence_warning) == ("", "")


def test_a_missing_directory_keeps_the_position_too(tmp_path: Path) -> None:
    log = tmp_path / "log" / "mail.log"
    log.parent.mkdir()
    write(log, 1)
    reader = log_reader.Reader(str(log), log_reader.Position())
    assert len(list(reader.new_lines(9))) == 1
    moved = log.parent.rename(tmp_path / "away")
    assert list(reader.new_lines(9)) == []
    assert reader.absence_warning
    moved.rename(log.parent)
    assert list(reader.new_lines(9)) == []
    assert not reader.loss_warning


def opened_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are opened from now on, as it grows."""
    names: list[str] = []
    true = log_file.open_log

    def recording_open(path: str) -> IO[bytes]:
        names.append(os.path.basename(path))
        return true(path)

    monkeypatch.setattr(log_file, "open_log", recording_open)
    return names


def test_old_files_are_not_opened_again_and_again(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        old = log_path.with_name(f"mail.log.{3 - number}")
        write(old, number)
        os.utime(old, (number, number))
    write(log_path, 3)
    reader = log_reader.Reader(str(log_path), log_reader.Position())
    assert len(list(reader.new_lines(9))) == 3
    names = opened_paths(monkeypatch)
    assert list(reader.new_lines(9)) == []
    assert names == []
    write(log_path, 4)
    assert len(list(reader.new_lines(9))) == 1
    assert set(names) == {"mail.log"}


def test_what_is_written_into_a_rotated_file_late_is_read_before_the_new_one(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer goes on in the renamed file until it is told; then in the new one."""
    reader = log_reader.Reader(str(log_path), log_reader.Position())
    write(log_path, 1)
    assert len(list(reader.new_lines(9))) == 1
    old = log_path.rename(log_path.with_name("mail.log.1"))
    write(old, 2)
    os.utime(old, (1, 1))
    log_path.touch()
    lines = reader.new_lines(9)
    assert next(lines)[0] == line(2)
    real_stat_file, late_writes = log_file.stat_file, [(old, 3), (log_path, 4)]

    def late_stat_file(
        path: str,
    ) -> os.stat_result:  # asked when the old one is at its end
        while late_writes:
            write(*late_writes.pop(0))
        return real_stat_file(path)

    monkeypatch.setattr(log_file, "stat_file", late_stat_file)
    assert [text for text, _ in lines] == [line(3), line(4)]


def test_an_empty_new_file_leaves_the_position_in_the_old_one(log_path: Path) -> None:
    reader = log_reader.Reader(str(log_path), log_reader.Position())
    write(log_path, 1)
    old = log_path.rename(log_path.with_name("mail.log.1"))
    log_path.touch()
    assert [text for text, _ in reader.new_lines(9)] == [line(1)]
    write(old, 2)
    write(log_path, 3)
    os.utime(old, (1, 1))
    assert [text for text, _ in reader.new_lines(9)] == [line(2), line(3)]


def test_a_limit_in_the_middle_is_no_end(log_path: Path) -> None:
    reader = log_reader.Reader(str(log_path), log_reader.Position())
    write(log_path, 1, 2, 3)
    assert len(list(reader.new_lines(2))) == 2
    assert len(list(reader.new_lines(2))) == 1
    assert len(list(reader.new_lines(2))) == 0


@pytest.fixture
def is_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This host's zone is one with a repeated hour in autumn."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("is_berlin")
@pytest.mark.parametrize("is_rotated", [False, True])
def test_a_repeated_hour_is_read_right_by_every_reader(
    log_path: Path, is_rotated: bool
) -> None:
    autumn = 1792888200  # 2026-10-25T00:30:00Z, 02:30 summer time
    expected = [autumn + 600 * number for number in range(-6, 12)]
    reader_times: list[float] = []
    position = log_reader.Position()
    paths = [str(log_path)]
    for number, seconds in enumerate(expected):
        with open(log_path, "a") as log:
            text = time.strftime("%b %d %H:%M:%S", time.localtime(seconds))
            log.write(f"{text} mail postfix/x[1]: {number}\n")
        os.utime(log_path, (seconds, seconds))
        reader = log_reader.Reader(str(log_path), position)
        reader_times += [at for _, at in reader.new_lines(100)]
        position = log_reader.parse_position(reader.position.to_json())
        if is_rotated and number == len(expected) // 2:
            log_path.rename(log_path.with_name("mail.log.1"))
            paths.insert(0, str(log_path.with_name("mail.log.1")))
    assert reader_times == expected
    assert [at for _, at in log_reader.lines_of_files(paths, 0.0)] == expected
