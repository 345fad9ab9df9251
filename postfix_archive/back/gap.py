"""The gate past the archive: opened and closed, and told to every journal.

Used by the command ``postfix-archive bypass``. While it is open, mail goes on
unarchived: main.cf's archive_bypass holds the time, and the gates of content_filter and
receive_override_options in main.cf and master.cf ask for it. The record of an open
gap, and of one that a journal has not heard of yet, is archive.gap beside main.cf.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from postfix_archive.back import (
    acting,
    config,
    files,
    mailq,
    postconf,
    program,
    reading,
)
from postfix_archive.back.journal import Journal
from postfix_archive.core import gates, trace
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import (
    ArchiveError,
    BypassRefused,
    JournalFailed,
    NotRoot,
)
from postfix_archive.core.settings import Settings

NAME = "archive.gap"
BYPASS_LOG = "postfix/archive-bypass"
OPENED, CLOSED = reading.GAPS


def read(directory: str) -> dict[str, Any] | None:
    """Return the record of an open gap, None if mail is archived.

    Keys: opened, by, why; closed and closed_by where only a journal is missing;
    untold, the archives whose journal could not be written.
    """
    try:
        found: dict[str, Any] = json.loads(Path(directory, NAME).read_text())
        if not _is_record(found):
            raise ValueError("no record of a gap")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as problem:
        raise BypassRefused(
            f"{directory}/{NAME} cannot be read: {problem}; it says since when"
            " mail goes unarchived"
        ) from problem
    return found


def open_(directory: str, why: str) -> dict[str, Any]:
    """Open the gate; return the record. What waits at the filter is sent on.

    Raises BypassRefused where the gate cannot be opened; nothing is changed then. A
    journal that cannot be written, or an archive.cf that cannot be read, does not keep
    it shut: see untold.
    """
    _need_root("on")
    there = read(directory)
    if there is not None:
        done, _ = _send_on(directory)
        raise BypassRefused(
            f"the gate is open since {there['opened']}, by {there['by']}:"
            f" {there['why']}; postfix-archive bypass off closes it. Messages that"
            f" waited for the filter meanwhile and go on now: {done}"
        )
    found = _gated(directory)
    opened = _now()
    record: dict[str, Any] = {"opened": opened, "by": who(), "why": why, "untold": []}
    _write(directory, record)
    try:
        postconf.set_main(directory, gates.BYPASS, opened)
    except ArchiveError:
        Path(directory, NAME).unlink()
        raise
    _reload(directory)
    record["requeued"], record["in_hand"] = _send_on(directory)
    untold = _told_at_once(directory, found, record)
    record["untold"] = untold
    _write(directory, record)
    acting.log(
        directory, BYPASS_LOG, f"mail goes UNARCHIVED: opened by {record['by']}: {why}"
    )
    return record


def close(directory: str) -> dict[str, Any]:
    """Close the gate and tell the journals; return the record, which is gone then.

    Raises JournalFailed while a journal cannot be told: mail is archived again, and the
    record stays until another close() has told it.
    """
    _need_root("off")
    record = read(directory)
    if record is None:
        raise BypassRefused("the gate is not open: mail is archived")
    found = postconf.read(directory)
    postconf.set_main(directory, gates.BYPASS, "")
    _reload(directory)
    if "closed" not in record:
        record.update(closed=_now(), closed_by=who(), untold_end=None)
        _write(directory, record)
        acting.log(
            directory,
            BYPASS_LOG,
            f"mail is archived again: closed by {record['closed_by']}",
        )
    settings = config.load(directory)
    if record.get("untold_end") is None:
        record["untold_end"] = sorted(_archives(settings, found))
    late = _tell(settings, OPENED, record, record["untold"])
    missing = _tell(settings, CLOSED, record, record["untold_end"])
    if late or missing:
        record.update(untold=late, untold_end=missing)
        _write(directory, record)
        raise JournalFailed(
            f"mail is archived again, but the journal of {', '.join(late or missing)}"
            " could not be told of the gap: mend the store, then run"
            " postfix-archive bypass off once more"
        )
    Path(directory, NAME).unlink()
    return record


def _is_record(found: object) -> bool:
    if not isinstance(found, dict):
        return False
    texts = [found.get(name) for name in ("opened", "by", "why")]
    texts += [found.get(name, "") for name in ("closed", "closed_by")]
    lists = (found.get("untold"), found.get("untold_end") or [])
    return {*map(type, texts)} == {str} and {*map(type, lists)} == {list}


def who() -> str:
    """Return who does this: the user behind sudo(8), else the one of the process."""
    name = pwd.getpwuid(os.getuid()).pw_name
    behind = os.environ.get("SUDO_USER")
    return f"{behind} as {name}" if behind else name


def _gated(directory: str) -> Configuration:
    """Return the configuration; raises BypassRefused if it has no such gate."""
    found = postconf.read(directory)
    places = [found.raw("content_filter")]
    places += [each.options.get("content_filter", "") for each in found.services]
    leading = [each for each in places if gates.STAMP in each]
    if not leading or any(gates.BYPASS not in each for each in leading):
        raise BypassRefused(
            f"content_filter in {directory} does not ask for {gates.BYPASS}: run make"
            " install once more, or set it by hand from master.cf.d/00-main.cf"
        )
    return found


def _need_root(verb: str) -> None:
    if os.geteuid():
        raise NotRoot(f"this changes Postfix: sudo postfix-archive bypass {verb}")


def _told_at_once(
    directory: str, found: Configuration, record: dict[str, Any]
) -> list[str]:
    """Tell the journals that the gate is open; return those that could not be told."""
    try:
        settings = config.load(directory)
    except ArchiveError:
        return gates.archives(found)
    return _tell(settings, OPENED, record, _archives(settings, found))


def _archives(settings: Settings, found: Configuration) -> set[str]:
    """Return the archives that miss mail: those of the store and those asked for."""
    if not settings.stores:
        return set()
    with contextlib.suppress(ArchiveError):
        return {
            *reading.archives(settings.archive_store_directory),
            *gates.archives(found),
        }
    return set(gates.archives(found))


def _tell(
    settings: Settings, event: str, record: dict[str, Any], archives: Iterable[str]
) -> list[str]:
    """Write the event to the journals; return the archives where that failed."""
    names = ("opened", "by", "why", "closed", "closed_by")
    words = {name: str(record[name]) for name in names if name in record}
    store = settings.archive_store_directory
    untold = []
    for each in sorted(archives):
        try:
            with acting.as_owner(store):
                files.make_folder(f"{store}/{each}")
                with Journal(f"{store}/{each}") as journal:
                    journal.append(event, _now(), **words)
        except (ArchiveError, OSError):
            untold.append(each)
    return untold


def _write(directory: str, record: dict[str, Any]) -> None:
    text = json.dumps(record, indent=1) + "\n"
    try:
        program.replace(Path(directory, NAME), text, 0o644)
    except OSError as problem:
        raise BypassRefused(
            f"{directory}/{NAME}: {problem.strerror}; the gap must be recorded"
        ) from problem


def _send_on(directory: str) -> tuple[int, int]:
    """Send on what waits at the filter, if Postfix runs."""
    return mailq.requeue(directory) if postconf.is_running(directory) else (0, 0)


def _reload(directory: str) -> None:
    if postconf.is_running(directory):
        postconf.reload(directory)


def _now() -> str:
    return trace.timestamp(time.time())
