"""Where the log is: the file that is written, no other, and no device."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_archive.doctor import unarchived_reinjection
from postfix_archive.errors import LogUnreadable
from postfix_archive.maillog import journald, location, log_reader

from unit.hosts import make_config

HOUR = 3600
# A journalctl(1) whose newest entry is of that Unix time.
JOURNALCTL = """#!/bin/sh
test -n "{time}" || exit 0
echo '{{"__CURSOR": "s=1", "__REALTIME_TIMESTAMP": "{time}000000", "_HOSTNAME": "mail",\
 "SYSLOG_IDENTIFIER": "postfix/smtpd", "_PID": "8", "MESSAGE": "x"}}'
"""


class Logs:
    """The default paths of the log, and systemd's journal, on a host of our own."""

    def __init__(self, directory: Path) -> None:
        self.paths = [directory / "mail.log", directory / "maillog"]
        self.journalctl = directory / "journalctl"
        self.now = int(time.time())

    def write(self, path: Path, age: int) -> None:
        """Write a log so long ago."""
        path.write_text("x\n")
        os.utime(path, (self.now - age, self.now - age))

    def write_journal(self, age: int | None) -> None:
        """Let systemd's journal have an entry of that age, or none."""
        newest = "" if age is None else str(self.now - age)
        self.journalctl.write_text(JOURNALCTL.format(time=newest))
        self.journalctl.chmod(0o755)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Logs]:
    """A host without any log."""
    logs = Logs(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(location, "DEFAULT_PATHS", tuple(map(str, logs.paths)))
        patched.setenv("PATH", str(tmp_path), prepend=":")
        yield logs


@pytest.mark.parametrize(
    ("file_age", "journal_age", "is_file"),
    [
        (0, 0, True),  # rsyslog reads journald
        (0, None, True),
        (9 * HOUR, None, True),  # without systemd, quiet
        (9 * HOUR, 9 * HOUR, True),  # quiet
        (9 * HOUR, 10 * HOUR, True),
        (9 * HOUR, 0, False),  # rsyslog was removed
        (9 * HOUR, 8 * HOUR, False),
    ],
)
def test_a_file_that_nobody_writes_any_more_is_not_the_log(
    logs: Logs, file_age: int, journal_age: int | None, is_file: bool
) -> None:
    logs.write(logs.paths[0], file_age)
    logs.write_journal(journal_age)
    path = str(logs.paths[0]) if is_file else ""
    assert location.log_path(make_config()) == path


def test_of_two_files_the_newer_one_is_the_log(logs: Logs) -> None:
    logs.write_journal(None)
    for first, second in (logs.paths, logs.paths[::-1]):
        logs.write(first, 9 * HOUR)
        logs.write(second, 60)
        assert location.log_path(make_config()) == str(second)


def test_without_a_file_it_is_the_journal_and_a_named_file_always_counts(
    logs: Logs,
) -> None:
    logs.write_journal(0)
    assert location.log_path(make_config()) == ""
    named = logs.paths[0].with_name("postfix.log")
    logs.write(named, 9 * HOUR)
    config = make_config({"maillog_file": str(named)})
    assert location.log_path(config) == str(named)


@pytest.mark.parametrize("log", ["file", "journal"])
def test_a_log_that_ends_before_the_newest_archived_mail_is_not_postfix_log(
    logs: Logs, log: str
) -> None:
    logs.write_journal(HOUR if log == "journal" else None)
    if log == "file":
        logs.write(logs.paths[0], HOUR)
    config = make_config()
    assert location.stale_reason(config, 0.0) == ""
    assert location.stale_reason(config, logs.now - HOUR + 60) == ""
    reason = location.stale_reason(config, logs.now)
    assert "was last written at 2" in reason and "Postfix logs elsewhere" in reason
    assert (str(logs.paths[0]) if log == "file" else "systemd journal") in reason


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/tty", "fifo", "link to a fifo"])
def test_a_device_is_named_and_never_opened(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link to a fifo").symlink_to(tmp_path / "fifo")
    path = name if name.startswith("/") else str(tmp_path / name)
    config = make_config({"maillog_file": path})
    reason = f"{path} is a device or FIFO, which cannot be read again"
    for read in (
        location.log_path,
        lambda config: next(log_reader.lines_since(config, 0.0)),
        lambda config: next(log_reader.latest_lines(config, 0.0)),
        lambda config: location.stale_reason(config, 1e9),
    ):
        with pytest.raises(LogUnreadable, match=reason):
            read(config)
    assert location.unreadable_reason(config).startswith(reason)
    assert location.follow_obstacle(config, is_wanted=True).startswith(reason)
    assert unarchived_reinjection.find_unarchived(config, None) == ()


def test_without_journalctl_the_journal_has_no_newest_entry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert journald.latest_time() == 0.0
