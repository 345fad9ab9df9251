"""Where Postfix's log is: a file, or systemd's journal.

Used by doctor, install, system.scheduler, and maillog.reader, which reads the whole
log. Also collects, for doctor.unarchived_reinjection, what the end of the log says
about the reinjection ports. Changes nothing.
"""

from __future__ import annotations

import os
import shutil

from postfix_archive.postfix import postfix_command
from postfix_archive.postfix.configuration import Configuration

DEFAULT_PATHS = ("/var/log/mail.log", "/var/log/maillog")  # Debian's, Red Hat's
JOURNALCTL = ("journalctl", "-q", "--no-pager", "-o", "short", "-n", "200000")
MAIL_FACILITY = "SYSLOG_FACILITY=2"  # RFC 5424 6.2.1
JOURNALD_DIRECTORY = "/run/systemd/journal"  # exists while systemd-journald(8) runs


def log_path(config: Configuration) -> str:
    """Return the path of the current log file, "" for systemd's journal."""
    maillog_file = config.value("maillog_file")
    if maillog_file and not maillog_file.startswith("/dev/"):
        return maillog_file
    return next(filter(os.path.exists, DEFAULT_PATHS), "")


def unreadable_reason(config: Configuration) -> str:
    """Return why the log cannot be found or read, "" if it can.

    A file that main.cf names may not exist yet while Postfix does not run.
    """
    path = log_path(config)
    if not path:
        if os.path.isdir(JOURNALD_DIRECTORY) and shutil.which(JOURNALCTL[0]):
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
