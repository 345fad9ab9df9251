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

from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError, BypassRefused, JournalFailed, NotRoot
from postfix_archive.message import dates
from postfix_archive.postfix import archive_services, mail_queue, postfix_command
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.store import record_reader
from postfix_archive.store.journal import Journal
from postfix_archive.system import files, privileges, text_file

RECORD_FILE = "archive.gap"
LOG_TAG = "postfix/archive-bypass"
OPENED_EVENT, CLOSED_EVENT = record_reader.BYPASS_EVENTS


def read_record(directory: str) -> dict[str, Any] | None:
    """Return the record of a bypass that is on, None if mail is archived.

    Keys: opened, by, why; closed and closed_by once it is off and only a journal event
    is missing; untold and untold_end, the archives whose journal lacks the event of its
    begin and end. Raises BypassRefused.
    """
    try:
        record: dict[str, Any] = json.loads(Path(directory, RECORD_FILE).read_text())
        if not _is_record(record):
            raise ValueError("not a bypass record")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BypassRefused(
            f"read {directory}/{RECORD_FILE}: {error}; the file says since when mail is"
            " not archived: restore it from a backup"
        ) from error
    return record


def turn_on(directory: str, reason: str) -> dict[str, Any]:
    """Turn the bypass on and requeue what waits for the filter; return the record.

    Raises BypassRefused, NotRoot: nothing is changed then. A journal that cannot be
    written or an archive.cf that cannot be read does not stop it; see untold in
    read_record().
    """
    _require_root("on")
    current = read_record(directory)
    if current is not None:
        requeued, _ = _requeue(directory)
        raise BypassRefused(
            f"the bypass is on already, since {current['opened']}, by {current['by']}:"
            f" {current['why']}; postfix-archive bypass off turns it off. Messages that"
            f" waited for the filter and are requeued now: {requeued}"
        )
    postfix_config = _read_configuration(directory)
    since = _now()
    record: dict[str, Any] = {
        "opened": since,
        "by": current_user(),
        "why": reason,
        "untold": [],
    }
    _write_record(directory, record)
    try:
        postfix_command.set_main(directory, archive_services.BYPASS_PARAMETER, since)
    except ArchiveError:
        Path(directory, RECORD_FILE).unlink()
        raise
    _reload(directory)
    record["requeued"], record["in_hand"] = _requeue(directory)
    failed_archives = _record_begin(directory, postfix_config, record)
    record["untold"] = failed_archives
    _write_record(directory, record)
    fields = {"alarm": "bypass-on", "reason": f"by {record['by']}: {reason}"}
    postfix_command.log_alarm(directory, LOG_TAG, fields)
    return record


def turn_off(directory: str) -> dict[str, Any]:
    """Turn the bypass off and write the journal events; return the record.

    The file with the record is deleted on return. Raises JournalFailed if a journal
    cannot be written: mail is archived again, and the file stays until another call
    writes the event. Raises BypassRefused, NotRoot.
    """
    _require_root("off")
    record = read_record(directory)
    if record is None:
        raise BypassRefused("the bypass is off: mail is archived")
    postfix_config = postfix_command.read_configuration(directory)
    postfix_command.set_main(directory, archive_services.BYPASS_PARAMETER, "")
    _reload(directory)
    if "closed" not in record:
        record.update(closed=_now(), closed_by=current_user(), untold_end=None)
        _write_record(directory, record)
        fields = {"alarm": "bypass-off", "reason": f"by {record['closed_by']}"}
        postfix_command.log_alarm(directory, LOG_TAG, fields)
    settings = archive_cf.load(directory)
    if record.get("untold_end") is None:
        record["untold_end"] = sorted(_affected_archives(settings, postfix_config))
    failed_opened = _append_events(settings, OPENED_EVENT, record, record["untold"])
    failed_closed = _append_events(settings, CLOSED_EVENT, record, record["untold_end"])
    if failed_opened or failed_closed:
        record.update(untold=failed_opened, untold_end=failed_closed)
        _write_record(directory, record)
        raise JournalFailed(
            "mail is archived again, but the bypass is not recorded in the journal of"
            f" {', '.join(failed_opened or failed_closed)}: repair the store, then run"
            " postfix-archive bypass off again"
        )
    Path(directory, RECORD_FILE).unlink()
    return record


def _is_record(record: object) -> bool:
    if not isinstance(record, dict):
        return False
    texts = [record.get(name) for name in ("opened", "by", "why")]
    texts += [record.get(name, "") for name in ("closed", "closed_by")]
    lists = (record.get("untold"), record.get("untold_end") or [])
    return {*map(type, texts)} == {str} and {*map(type, lists)} == {list}


def current_user() -> str:
    """Return the user of this process, with the one who called sudo(8) if any."""
    name = pwd.getpwuid(os.getuid()).pw_name
    sudo_user = os.environ.get("SUDO_USER")
    return f"{sudo_user} as {name}" if sudo_user else name


def _read_configuration(directory: str) -> Configuration:
    """Return the configuration; raises BypassRefused if it does not test the bypass."""
    postfix_config = postfix_command.read_configuration(directory)
    filters = [postfix_config.raw("content_filter")]
    filters += [
        each.options.get("content_filter", "") for each in postfix_config.services
    ]
    ours = [each for each in filters if archive_services.STAMP_TRANSPORT in each]
    if not ours or any(archive_services.BYPASS_PARAMETER not in each for each in ours):
        raise BypassRefused(
            f"content_filter in {directory} does not test"
            f" {archive_services.BYPASS_PARAMETER}: run make install again, or set it"
            " by hand as in master.cf.d/00-main.cf"
        )
    return postfix_config


def _require_root(verb: str) -> None:
    if os.geteuid():
        raise NotRoot(
            "only root may change Postfix's configuration: sudo postfix-archive bypass"
            f" {verb}"
        )


def _record_begin(
    directory: str, postfix_config: Configuration, record: dict[str, Any]
) -> list[str]:
    """Write the begin to the journals; return the archives where that failed."""
    try:
        settings = archive_cf.load(directory)
    except ArchiveError:
        return archive_services.configured_archives(postfix_config)
    return _append_events(
        settings, OPENED_EVENT, record, _affected_archives(settings, postfix_config)
    )


def _affected_archives(settings: Settings, postfix_config: Configuration) -> set[str]:
    """Return the archives in the store and those that the configuration names."""
    if not settings.has_store:
        return set()
    with contextlib.suppress(ArchiveError):
        return {
            *record_reader.archives(settings.archive_store_directory),
            *archive_services.configured_archives(postfix_config),
        }
    return set(archive_services.configured_archives(postfix_config))


def _append_events(
    settings: Settings, event: str, record: dict[str, Any], archives: Iterable[str]
) -> list[str]:
    """Append an event to each journal; return the archives where that failed."""
    keys = ("opened", "by", "why", "closed", "closed_by")
    fields = {key: str(record[key]) for key in keys if key in record}
    store = settings.archive_store_directory
    failed = []
    for archive in sorted(archives):
        try:
            with privileges.as_owner(store):
                files.make_directory(f"{store}/{archive}")
                with Journal(f"{store}/{archive}") as journal:
                    journal.append(event, _now(), **fields)
        except (ArchiveError, OSError):
            failed.append(archive)
    return failed


def _write_record(directory: str, record: dict[str, Any]) -> None:
    text = json.dumps(record, indent=1) + "\n"
    try:
        text_file.replace_text(Path(directory, RECORD_FILE), text, 0o644)
    except OSError as error:
        raise BypassRefused(
            f"write {directory}/{RECORD_FILE}: {error.strerror}; a bypass must be"
            " recorded"
        ) from error


def _requeue(directory: str) -> tuple[int, int]:
    """Requeue what waits for the filter if Postfix runs; see mail_queue.requeue()."""
    return (
        mail_queue.requeue(directory)
        if postfix_command.is_running(directory)
        else (0, 0)
    )


def _reload(directory: str) -> None:
    if postfix_command.is_running(directory):
        postfix_command.reload(directory)


def _now() -> str:
    return dates.format_rfc3339(time.time())
