"""Turn the bypass on and off, and record each period in the journals.

Used by ``postfix-archive bypass``, status, doctor and reconcile. While the bypass is
on, mail passes unarchived: archive_bypass in main.cf holds the time since when, and the
expressions of content_filter and receive_override_options in main.cf and master.cf test
it. The file archive.gap beside main.cf records a bypass that is on, or one that is
missing in a journal.
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
    """Return the record of a bypass that is on, None if mail is archived.

    Keys: opened, by, why; closed and closed_by once it is off and only a journal event
    is missing; untold and untold_end, the archives whose journal lacks the event of its
    begin and end. Raises BypassRefused.
    """
    try:
        record: dict[str, Any] = json.loads(Path(directory, NAME).read_text())
        if not _is_record(record):
            raise ValueError("not a bypass record")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as problem:
        raise BypassRefused(
            f"read {directory}/{NAME}: {problem}; the file says since when mail is not"
            " archived: restore it from a backup"
        ) from problem
    return record


def open_(directory: str, why: str) -> dict[str, Any]:
    """Turn the bypass on and requeue what waits for the filter; return the record.

    Raises BypassRefused, NotRoot: nothing is changed then. A journal that cannot be
    written or an archive.cf that cannot be read does not stop it; see untold in
    read_record().
    """
    _need_root("on")
    current = read(directory)
    if current is not None:
        done, _ = _send_on(directory)
        raise BypassRefused(
            f"the bypass is on already, since {current['opened']}, by"
            f" {current['by']}: {current['why']}; postfix-archive bypass off turns it"
            f" off. Messages that waited for the filter and are requeued now: {done}"
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
    text = f"bypass on, mail is UNARCHIVED: by {record['by']}: {why}"
    acting.log(directory, BYPASS_LOG, text)
    return record


def close(directory: str) -> dict[str, Any]:
    """Turn the bypass off and write the journal events; return the record.

    The file with the record is deleted on return. Raises JournalFailed if a journal
    cannot be written: mail is archived again, and the file stays until another call
    writes the event. Raises BypassRefused, NotRoot.
    """
    _need_root("off")
    record = read(directory)
    if record is None:
        raise BypassRefused("the bypass is off: mail is archived")
    found = postconf.read(directory)
    postconf.set_main(directory, gates.BYPASS, "")
    _reload(directory)
    if "closed" not in record:
        record.update(closed=_now(), closed_by=who(), untold_end=None)
        _write(directory, record)
        text = f"bypass off, mail is archived again: by {record['closed_by']}"
        acting.log(directory, BYPASS_LOG, text)
    settings = config.load(directory)
    if record.get("untold_end") is None:
        record["untold_end"] = sorted(_archives(settings, found))
    late = _tell(settings, OPENED, record, record["untold"])
    missing = _tell(settings, CLOSED, record, record["untold_end"])
    if late or missing:
        record.update(untold=late, untold_end=missing)
        _write(directory, record)
        raise JournalFailed(
            "mail is archived again, but the bypass is not recorded in the journal of"
            f" {', '.join(late or missing)}: repair the store, then run"
            " postfix-archive bypass off again"
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
    """Return the user of this process, with the one who called sudo(8) if any."""
    name = pwd.getpwuid(os.getuid()).pw_name
    sudo_user = os.environ.get("SUDO_USER")
    return f"{sudo_user} as {name}" if sudo_user else name


def _gated(directory: str) -> Configuration:
    """Return the configuration; raises BypassRefused if it does not test the bypass."""
    found = postconf.read(directory)
    filters = [found.raw("content_filter")]
    filters += [each.options.get("content_filter", "") for each in found.services]
    ours = [each for each in filters if gates.STAMP in each]
    if not ours or any(gates.BYPASS not in each for each in ours):
        raise BypassRefused(
            f"content_filter in {directory} does not test {gates.BYPASS}: run make"
            " install again, or set it by hand as in master.cf.d/00-main.cf"
        )
    return found


def _need_root(verb: str) -> None:
    if os.geteuid():
        raise NotRoot(
            "only root may change Postfix's configuration: sudo postfix-archive bypass"
            f" {verb}"
        )


def _told_at_once(
    directory: str, found: Configuration, record: dict[str, Any]
) -> list[str]:
    """Write the begin to the journals; return the archives where that failed."""
    try:
        settings = config.load(directory)
    except ArchiveError:
        return gates.archives(found)
    return _tell(settings, OPENED, record, _archives(settings, found))


def _archives(settings: Settings, found: Configuration) -> set[str]:
    """Return the archives in the store and those that the configuration names."""
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
    """Append an event to each journal; return the archives where that failed."""
    keys = ("opened", "by", "why", "closed", "closed_by")
    fields = {key: str(record[key]) for key in keys if key in record}
    store = settings.archive_store_directory
    failed = []
    for archive in sorted(archives):
        try:
            with acting.as_owner(store):
                files.make_folder(f"{store}/{archive}")
                with Journal(f"{store}/{archive}") as journal:
                    journal.append(event, _now(), **fields)
        except (ArchiveError, OSError):
            failed.append(archive)
    return failed


def _write(directory: str, record: dict[str, Any]) -> None:
    text = json.dumps(record, indent=1) + "\n"
    try:
        program.replace(Path(directory, NAME), text, 0o644)
    except OSError as problem:
        raise BypassRefused(
            f"write {directory}/{NAME}: {problem.strerror}; a bypass must be recorded"
        ) from problem


def _send_on(directory: str) -> tuple[int, int]:
    """Requeue what waits for the filter if Postfix runs; see mail_queue.requeue()."""
    return mailq.requeue(directory) if postconf.is_running(directory) else (0, 0)


def _reload(directory: str) -> None:
    if postconf.is_running(directory):
        postconf.reload(directory)


def _now() -> str:
    return trace.timestamp(time.time())
