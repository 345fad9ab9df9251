"""Whether the clock can be believed, before mail is removed because of its age.

Used by purge. A clock behind the last line of a journal is wrong, or that line is. One
that is far ahead of the last run may have been set to a wrong year: the kernel must say
that it is synchronised, or a person must.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable

from postfix_archive.config.settings import Settings
from postfix_archive.message import dates
from postfix_archive.store import journal_reader, record_reader
from postfix_archive.system import clock_state, files, privileges

LAST_RUN_FILE = "purged"  # in archive_fallback_directory; its mtime is the last run
# Runs are a day apart. A week without one, on a host without a time service, is rare.
STEP_LIMIT = 7 * dates.DAY_SECONDS


def doubt(
    settings: Settings,
    now: float,
    *,
    is_confirmed: bool,
    is_synchronised: Callable[[], bool] = clock_state.is_synchronised,
) -> str:
    """Return why a clock that says now (Unix time) is in doubt, "" if it is not.

    is_confirmed: a person says that a clock far ahead is right.
    """
    last, path = max(_last_lines(settings), default=(0.0, ""))
    text = f"the clock says {dates.format_rfc3339(now)}"
    if int(now) < last:
        return f"{text}, but {path} has a line of {dates.format_rfc3339(last)}: set it"
    reference = last_run(settings) or last
    is_far = reference and now - reference > STEP_LIMIT
    if not is_far or is_confirmed or is_synchronised():
        return ""
    return (
        f"{text}, more than {STEP_LIMIT // dates.DAY_SECONDS} days after"
        f" {dates.format_rfc3339(reference)}, and no time service vouches for it: start"
        " one, such as chrony; if it is right, run postfix-archive purge"
        " --clock-is-right"
    )


def _last_lines(settings: Settings) -> list[tuple[float, str]]:
    """Return time and journal of the last line of each archive."""
    store = settings.archive_store_directory
    lines = []
    for archive in record_reader.archives(store):
        path = journal_reader.path_of(store, archive)
        times = [each.time for each in journal_reader.last_lines(path) if each.time]
        if times:
            time = datetime.datetime.fromisoformat(times[-1]).timestamp()
            lines.append((time, path))
    return lines


def last_run(settings: Settings) -> float | None:
    """Return when the last complete run began (Unix time), None if there was none."""
    return files.modified_time(_path(settings))


def run_before(settings: Settings, now: float) -> float:
    """Return when the last complete run before now began, 0 if it is not known.

    A run that a clock ahead of now has dated says nothing about what came before it.
    """
    last = last_run(settings) or 0.0
    return last if last <= now else 0.0


def record_run(settings: Settings, began: float) -> None:
    """Record that a run was completed that began at a Unix time."""
    path = _path(settings)
    with privileges.as_owner(settings.archive_fallback_directory):
        files.touch(path)
        os.utime(path, (began, began), follow_symlinks=False)


def _path(settings: Settings) -> str:
    return f"{settings.archive_fallback_directory}/{LAST_RUN_FILE}"
