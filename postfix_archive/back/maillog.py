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
from postfix_archive.core.handedin import Seen

USUAL = ("/var/log/mail.log", "/var/log/maillog")  # Debian's, Red Hat's
JOURNAL = ("journalctl", "-q", "--no-pager", "-o", "short", "-n", "200000")
MAIL = "SYSLOG_FACILITY=2"  # RFC 5424 6.2.1
TAIL = 16 << 20  # bytes: some 80,000 lines
JOURNALD = "/run/systemd/journal"  # exists while systemd-journald(8) runs
DAY = 86400  # seconds
HANDBACK = ("archive-handback", "archive-refused")


def path_of(found: Configuration) -> str:
    """Return the path of the current log file, "" for systemd's journal."""
    given = found.value("maillog_file")
    if given and not given.startswith("/dev/"):
        return given
    return next(filter(os.path.exists, USUAL), "")


def unreadable(found: Configuration) -> str:
    """Return why the log cannot be found or read, "" if it can.

    A file that main.cf names may not exist yet while Postfix does not run.
    """
    path = path_of(found)
    if not path:
        if os.path.isdir(JOURNALD) and shutil.which(JOURNAL[0]):
            return ""
        return f"no maillog_file in main.cf, no {USUAL[0]}, no systemd journal"
    try:
        with open(path, "rb") as log:
            log.read(1)
    except FileNotFoundError:
        is_coming = os.path.isdir(os.path.dirname(path))
        if is_coming and not postconf.is_running(found.directory):
            return ""
        return f"{path}: no such file"
    except OSError as problem:
        return f"{path}: {problem.strerror}"
    return ""


def handed_in(found: Configuration) -> tuple[str, ...]:
    """Return the queue ids of reinjected mail that did not pass the stamp filter.

    Covers yesterday and today, as far as the log goes back.
    """
    before = _seen(found)
    if not handedin.unclaimed(before, (), before):
        return ()
    try:
        queued = {message.queue_id for message in mailq.queued(found.directory, 0)}
    except ArchiveError:
        return ()
    return tuple(handedin.unclaimed(before, queued, _seen(found)))


def _seen(found: Configuration) -> Seen:
    days = _days(time.time())
    lines = (line for line in _lines(found) if line.startswith(days))
    return handedin.read(lines, _names(found))


def _names(found: Configuration) -> set[str]:
    """Return the syslog_name of each reinjection port of this instance."""
    names = (
        found.value("syslog_name", service)
        for service in found.services
        if ways.is_ours(service) and service.kind == "inet"
    )
    return {name for name in names if name.endswith(HANDBACK)}


def _days(now: float) -> tuple[str, ...]:
    """Return the prefixes of log lines of today and yesterday, in both formats."""
    days = [time.localtime(now - back) for back in (0, DAY)]
    return tuple(
        text
        for day in days
        for text in (f"{time.strftime('%b', day)} {day.tm_mday:2d} ", _iso(day))
    )


def _iso(day: time.struct_time) -> str:
    return time.strftime("%Y-%m-%dT", day)


def _lines(found: Configuration) -> Iterator[str]:
    path = found.value("maillog_file")
    for candidate in [path] if path else USUAL:
        try:
            yield from _end_of(candidate)
            return
        except OSError:
            continue
    if not path:
        yield from _from_journal()


def _end_of(path: str) -> Iterator[str]:
    with open(path, "rb") as log:
        size = os.fstat(log.fileno()).st_size
        if size > TAIL:
            log.seek(size - TAIL)
            log.readline()
        for line in log:
            yield line.decode("utf-8", "replace")


def _from_journal() -> Iterator[str]:
    try:
        done = subprocess.run(
            [*JOURNAL, MAIL],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=postconf.SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    yield from done.stdout.splitlines()
