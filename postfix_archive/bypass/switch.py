"""Turn the bypass on and off, and record each period in the journals.

Used by ``postfix-archive bypass``, status, doctor and reconcile. While the bypass is
on, mail passes unarchived: archive_bypass in main.cf holds the time since when, and the
expressions of content_filter and receive_override_options in main.cf and master.cf test
it. The file archive.bypass beside main.cf records a bypass that is on, or one that is
missing in a journal.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError, BypassRefused, JournalFailed, NotRoot
from postfix_archive.message import address, dates
from postfix_archive.postfix import (
    archive_services,
    capture_maps,
    mail_queue,
    postfix_command,
    server_processes,
)
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.postfix.server_processes import Processes
from postfix_archive.store import bypass_period, journal, known_end, record_reader
from postfix_archive.store.bypass_period import BypassPeriod
from postfix_archive.system import files, privileges

LOCK_TIMEOUT = 30.0  # seconds to wait for a journal that another process writes
RECORD_FILE = "archive.bypass"
LOG_TAG = "postfix/archive-bypass"


@dataclass(frozen=True)
class BypassRecord:
    """A bypass period, and the archives whose journal lacks its start or its end."""

    period: BypassPeriod
    unrecorded_start: tuple[str, ...] = ()
    unrecorded_end: tuple[str, ...] | None = None  # None: no journal was tried yet


@dataclass(frozen=True)
class BypassStart:
    """What turn_on() has done."""

    record: BypassRecord
    requeued: int  # messages that waited for the stamp filter
    left: int  # messages that the stamp filter is still processing
    connections: Processes  # processes whose mail still goes to the stamp filter


def read_record(directory: str) -> BypassRecord | None:
    """Return the record of a bypass that is on, or that a journal does not have yet.

    None if mail is archived. Raises BypassRefused.
    """
    try:
        return _parse_record(json.loads(Path(directory, RECORD_FILE).read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BypassRefused(
            f"read {directory}/{RECORD_FILE}: {error}; the file says since when mail is"
            " not archived: restore it from a backup"
        ) from error


def turn_on(directory: str, reason: str) -> BypassStart:
    """Turn the bypass on and requeue what waits for the filter.

    Raises BypassRefused, NotRoot: nothing is changed then. A journal that cannot be
    written or an archive.cf that cannot be read does not stop it.
    """
    _require_root("on")
    current = read_record(directory)
    if current is not None:
        requeued, _ = _requeue(directory)
        raise BypassRefused(
            f"the bypass is on already, since {current.period.started}, by"
            f" {current.period.started_by}: {current.period.reason}; postfix-archive"
            " bypass off turns it off. Messages that waited for the filter and are"
            f" requeued now: {requeued}"
        )
    postfix_config = _read_configuration(directory)
    period = BypassPeriod(_now(), current_user(), reason)
    _write_record(directory, BypassRecord(period))
    try:
        _set_bypass(directory, period.started)
    except ArchiveError:
        Path(directory, RECORD_FILE).unlink()
        raise
    old_processes = _reload(directory)
    requeued, left = _requeue(directory)
    connections = server_processes.wait_for(old_processes)
    if old_processes:  # what has come by them meanwhile
        late, left = _requeue(directory)
        requeued += late
    record = BypassRecord(period, _record_start(directory, postfix_config, period))
    _write_record(directory, record)
    fields = {"alarm": "bypass-on", "reason": f"by {period.started_by}: {reason}"}
    postfix_command.log_alarm(directory, LOG_TAG, fields)
    return BypassStart(record, requeued, left, connections)


def turn_off(directory: str) -> tuple[BypassPeriod, Processes]:
    """Turn the bypass off and write the journal events; return the period.

    Also returns the processes whose mail still passes unarchived: SMTP connections from
    before that have not ended within CONNECTION_TIMEOUT.

    The file with the record is deleted on return. Raises JournalFailed if a journal
    cannot be written: mail is archived again, and the file stays until another call
    writes the event. Raises BypassRefused, NotRoot.
    """
    _require_root("off")
    record = read_record(directory)
    if record is None:
        raise BypassRefused("the bypass is off: mail is archived")
    postfix_config = postfix_command.read_configuration(directory)
    _set_bypass(directory, "")
    connections = server_processes.wait_for(_reload(directory))
    if not record.period.ended:
        record = _end(directory, record)
    settings = archive_cf.load(directory)
    archives = record.unrecorded_end
    if archives is None:
        archives = tuple(_affected_archives(settings, postfix_config))
    start = replace(record.period, ended="", ended_by="")
    starts = _append_events(
        settings, journal.BYPASS_STARTED, start, record.unrecorded_start
    )
    ends = _append_events(settings, journal.BYPASS_ENDED, record.period, archives)
    if failures := {**starts, **ends}:
        record = replace(
            record, unrecorded_start=tuple(starts), unrecorded_end=tuple(ends)
        )
        _write_record(directory, record)
        raise JournalFailed(
            "mail is archived again, but the bypass is not recorded in the journal of"
            f" {', '.join(failures)}: {'; '.join(dict.fromkeys(failures.values()))};"
            " then run postfix-archive bypass off again"
        )
    Path(directory, RECORD_FILE).unlink()
    return record.period, connections


def _end(directory: str, record: BypassRecord) -> BypassRecord:
    """Record in the file and in the log that the bypass ends now."""
    period = replace(record.period, ended=_now(), ended_by=current_user())
    record = replace(record, period=period)
    _write_record(directory, record)
    fields = {"alarm": "bypass-off", "reason": f"by {period.ended_by}"}
    postfix_command.log_alarm(directory, LOG_TAG, fields)
    return record


def _parse_record(fields: object) -> BypassRecord:
    """Return the record in a JSON value; raises ValueError for an invalid one."""
    if not isinstance(fields, dict):
        raise ValueError("not a bypass record")
    start, end = fields.get("unrecorded_start"), fields.get("unrecorded_end")
    return BypassRecord(
        bypass_period.parse(fields),
        _parse_archives(start),
        None if end is None else _parse_archives(end),
    )


def _parse_archives(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(e, str) for e in value):
        raise ValueError("not a list of archives")
    return tuple(value)


def current_user() -> str:
    """Return the user of this process, with the one who called sudo(8) if any."""
    name = pwd.getpwuid(os.getuid()).pw_name
    sudo_user = os.environ.get("SUDO_USER")
    return f"{sudo_user} as {name}" if sudo_user else name


def _read_configuration(directory: str) -> Configuration:
    """Return the configuration; raises BypassRefused if it does not test the bypass."""
    postfix_config = postfix_command.read_configuration(directory)
    ours = [
        *_values_with(
            "content_filter", archive_services.STAMP_TRANSPORT, postfix_config
        ),
        *_values_with(capture_maps.PARAMETER, capture_maps.MAP_NAME, postfix_config),
    ]
    if not ours or any(archive_services.BYPASS_PARAMETER not in each for each in ours):
        raise BypassRefused(
            f"content_filter, or in native mode {capture_maps.PARAMETER}, in"
            f" {directory} does not test {archive_services.BYPASS_PARAMETER}: run make"
            " install again, or set it by hand as in master.cf.d"
        )
    return postfix_config


def _values_with(name: str, text: str, postfix_config: Configuration) -> list[str]:
    """Return the values of a parameter, in main.cf and master.cf, that have a text."""
    services = (None, *postfix_config.services)
    values = (postfix_config.raw(name, each) for each in services)
    return [each for each in values if text in each]


def _set_bypass(directory: str, value: str) -> None:
    """Set archive_bypass in main.cf.

    postconf(1) edits a copy: it would replace a symlink by a file.
    """
    path = os.path.realpath(Path(directory, "main.cf"))
    with tempfile.TemporaryDirectory() as private_directory:
        copy = Path(private_directory, "main.cf")
        copy.write_bytes(Path(path).read_bytes())
        postfix_command.set_main(
            private_directory, archive_services.BYPASS_PARAMETER, value
        )
        files.replace(path, copy.read_bytes(), like=path, failure=BypassRefused)


def _require_root(verb: str) -> None:
    if os.geteuid():
        raise NotRoot(
            "only root may change Postfix's configuration: sudo postfix-archive bypass"
            f" {verb}"
        )


def _record_start(
    directory: str, postfix_config: Configuration, period: BypassPeriod
) -> tuple[str, ...]:
    """Write the start to the journals; return the archives where that failed."""
    try:
        settings = archive_cf.load(directory)
    except ArchiveError:
        return tuple(archive_services.configured_archives(postfix_config))
    archives = _affected_archives(settings, postfix_config)
    return tuple(_append_events(settings, journal.BYPASS_STARTED, period, archives))


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
    settings: Settings, event: str, period: BypassPeriod, archives: Iterable[str]
) -> dict[str, str]:
    """Append an event to each journal; return why that failed, by archive."""
    store = settings.archive_store_directory
    failures = {}
    for archive in sorted(archives):
        try:
            known_end.require(settings.archive_fallback_directory, store, archive)
            with privileges.as_owner(store):
                files.make_directory(f"{store}/{archive}")
                with journal.Journal(
                    f"{store}/{archive}",
                    host=address.as_text(settings.myhostname),
                    lock_timeout=LOCK_TIMEOUT,
                ) as journal_file:
                    journal_file.append(event, _now(), **period.to_json())
        except (ArchiveError, OSError) as error:
            failures[archive] = str(error)
    return failures


def _write_record(directory: str, record: BypassRecord) -> None:
    fields = {
        **record.period.to_json(),
        "unrecorded_start": record.unrecorded_start,
        "unrecorded_end": record.unrecorded_end,
    }
    text = json.dumps(fields, indent=1) + "\n"
    path = f"{directory}/{RECORD_FILE}"
    files.replace(path, text.encode(), 0o644, failure=BypassRefused)


def _requeue(directory: str) -> tuple[int, int]:
    """Requeue what waits for the filter if Postfix runs; see mail_queue.requeue()."""
    return (
        mail_queue.requeue(directory)
        if postfix_command.is_running(directory)
        else (0, 0)
    )


def _reload(directory: str) -> Processes:
    """Reload Postfix if it runs; return the processes that had clients before."""
    if not postfix_command.is_running(directory):
        return frozenset()
    processes = server_processes.with_clients(directory)
    postfix_command.reload(directory)
    return processes


def _now() -> str:
    return dates.format_rfc3339(time.time())
