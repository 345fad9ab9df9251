"""Where Postfix's log is: a file, or systemd's journal.

Used by doctor, install, system.scheduler, and maillog.reader, which reads the whole
log. Also collects, for doctor.unarchived_reinjection, what the end of the log says
about the reinjection ports. Changes nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator

from postfix_archive.back import mailq, postconf
from postfix_archive.core import handedin, ways
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import ArchiveError
from postfix_archive.core.handedin import ReinjectionEvents

DEFAULT_PATHS = ("/var/log/mail.log", "/var/log/maillog")  # Debian's, Red Hat's
JOURNALCTL = ("journalctl", "-q", "--no-pager", "-o", "short", "-n", "200000")
MAIL_FACILITY = "SYSLOG_FACILITY=2"  # RFC 5424 6.2.1
TAIL_BYTES = 16 << 20  # bytes: some 80,000 lines
JOURNALD_DIRECTORY = "/run/systemd/journal"  # exists while systemd-journald(8) runs
DAY = 86400  # seconds
REINJECTION_SUFFIXES = ("archive-handback", "archive-refused")


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
        if has_directory and not postconf.is_running(config.directory):
            return ""
        return f"{path}: no such file"
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""


def find_unarchived(config: Configuration) -> tuple[str, ...]:
    """Return the queue ids of reinjected mail that did not pass the stamp filter.

    Covers yesterday and today, as far as the log goes back.
    """
    before = _read_events(config)
    if not handedin.unreported(before, (), before):
        return ()
    try:
        queued = {
            message.queue_id for message in mailq.list_messages(config.directory, 0)
        }
    except ArchiveError:
        return ()
    return tuple(handedin.unreported(before, queued, _read_events(config)))


def _read_events(config: Configuration) -> ReinjectionEvents:
    prefixes = _day_prefixes(time.time())
    lines = (line for line in _tail_lines(config) if line.startswith(prefixes))
    return handedin.parse(lines, _port_syslog_names(config))


def _port_syslog_names(config: Configuration) -> set[str]:
    """Return the syslog_name of each reinjection port of this instance."""
    names = (
        config.value("syslog_name", service)
        for service in config.services
        if ways.is_ours(service) and service.kind == "inet"
    )
    return {name for name in names if name.endswith(REINJECTION_SUFFIXES)}


def _day_prefixes(now: float) -> tuple[str, ...]:
    """Return the prefixes of log lines of today and yesterday, in both formats."""
    days = [time.localtime(now - back) for back in (0, DAY)]
    return tuple(
        text
        for day in days
        for text in (f"{time.strftime('%b', day)} {day.tm_mday:2d} ", _iso_prefix(day))
    )


def _iso_prefix(day: time.struct_time) -> str:
    return time.strftime("%Y-%m-%dT", day)


def _tail_lines(config: Configuration) -> Iterator[str]:
    path = config.value("maillog_file")
    for candidate in [path] if path else DEFAULT_PATHS:
        try:
            yield from _tail_of_file(candidate)
            return
        except OSError:
            continue
    if not path:
        yield from _tail_of_journal()


def _tail_of_file(path: str) -> Iterator[str]:
    with open(path, "rb") as log:
        size = os.fstat(log.fileno()).st_size
        if size > TAIL_BYTES:
            log.seek(size - TAIL_BYTES)
            log.readline()
        for line in log:
            yield line.decode("utf-8", "replace")


def _tail_of_journal() -> Iterator[str]:
    try:
        process = subprocess.run(
            [*JOURNALCTL, MAIL_FACILITY],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=postconf.COMMAND_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    yield from process.stdout.splitlines()
