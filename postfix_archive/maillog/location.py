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

from postfix_archive.errors import LogUnreadable
from postfix_archive.postfix import postfix_command
from postfix_archive.postfix.configuration import Configuration

DEFAULT_PATHS = ("/var/log/mail.log", "/var/log/maillog")  # Debian's, Red Hat's
JOURNALD_DIRECTORY = "/run/systemd/journal"  # exists while systemd-journald(8) runs
DEVICE_DIRECTORY = "/dev/"


def log_path(config: Configuration) -> str:
    """Return the path of the current log file, "" for systemd's journal.

    Raises LogUnreadable if it is no regular file.
    """
    path = config.value("maillog_file")
    path = path or next(filter(os.path.exists, DEFAULT_PATHS), "")
    if path.startswith(DEVICE_DIRECTORY) or _is_device(path):
        raise LogUnreadable(
            f"{path} is a device or FIFO, which cannot be read again: set maillog_file"
            " in main.cf to a regular file, or to nothing to log to syslog or journald"
        )
    return path


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
