"""Where Postfix's log is: a file, or systemd's journal.

Used by doctor, install, system.scheduler, and maillog.log_reader, which reads the log.
Changes nothing. A maillog_file that is a device or FIFO, as /dev/stdout in a container,
is never opened: whoever reads there takes the lines from their real reader, or waits
for ever.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time

from postfix_archive.errors import LogUnreadable
from postfix_archive.maillog import journald
from postfix_archive.message import dates
from postfix_archive.postfix import postfix_command
from postfix_archive.postfix.configuration import Configuration

DEFAULT_PATHS = ("/var/log/mail.log", "/var/log/maillog")  # Debian's, Red Hat's
JOURNALD_DIRECTORY = "/run/systemd/journal"  # exists while systemd-journald(8) runs
DEVICE_DIRECTORY = "/dev/"
STALE_SECONDS = 600.0  # a syslogd writes within seconds; the clocks are the same


def log_path(config: Configuration) -> str:
    """Return the path of the current log file, "" for systemd's journal.

    Without a maillog_file it is the file that a syslogd writes: not one that a removed
    syslogd left behind. Raises LogUnreadable if it is no regular file.
    """
    path = config.value("maillog_file") or _syslog_path()
    if path.startswith(DEVICE_DIRECTORY) or _is_device(path):
        raise LogUnreadable(
            f"{path} is a device or FIFO, which cannot be read again: set maillog_file"
            " in main.cf to a regular file, or to nothing to log to syslog or journald"
        )
    return path


def _syslog_path() -> str:
    """Return the log file of this host's syslogd, "" if only journald writes one."""
    path = max(filter(os.path.exists, DEFAULT_PATHS), key=_written_at, default="")
    if path and time.time() - _written_at(path) > STALE_SECONDS:
        if journald.latest_time() > _written_at(path) + STALE_SECONDS:
            return ""
    return path


def _written_at(path: str) -> float:
    """Return when a log was last written: Unix time, 0 if that is unknown."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_mtime if path else journald.latest_time()
    return 0.0


def stale_reason(config: Configuration, archived_at: float) -> str:
    """Return why this is not the log that Postfix writes, "" if it can be.

    archived_at is when the newest archived message arrived (Unix time), 0 if none did:
    the log has lines about it. Raises LogUnreadable.
    """
    path = log_path(config)
    written_at = _written_at(path)
    if archived_at <= written_at + STALE_SECONDS:
        return ""
    return (
        f"{path or 'systemd journal'} was last written at"
        f" {dates.format_rfc3339(written_at)}, but mail was archived at"
        f" {dates.format_rfc3339(archived_at)}: Postfix logs elsewhere"
    )


def _is_device(path: str) -> bool:
    """Tell whether a path is neither a regular file nor a directory, nor missing."""
    with contextlib.suppress(OSError):
        mode = os.stat(path).st_mode
        return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
    return False


def unreadable_reason(config: Configuration) -> str:
    """Return why the log cannot be found or read, "" if it can.

    A file that main.cf names may not exist yet while Postfix does not run.
    """
    try:
        path = log_path(config)
    except LogUnreadable as error:
        return str(error)
    if not path:
        if os.path.isdir(JOURNALD_DIRECTORY) and shutil.which("journalctl"):
            return ""
        return f"no maillog_file in main.cf, no {DEFAULT_PATHS[0]}, no systemd journal"
    try:
        with open(path, "rb") as log:
            log.read(1)
    except FileNotFoundError:
        has_directory = os.path.isdir(os.path.dirname(path))
        if has_directory and not postfix_command.is_running(config.directory):
            return ""
        return f"{path}: no such file"
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""


def follow_obstacle(config: Configuration, *, is_wanted: bool) -> str:
    """Return why the follower cannot run, "" if it can.

    is_wanted: Settings.follows.
    """
    if not is_wanted:
        return "archive_delivery = mail: there is no store to keep outcomes in"
    return unreadable_reason(config)
