"""Finds mail that a reinjection port accepted from others than the stamp filter.

Used by doctor. The internal ports trust this host, so any local user can send mail past
the archive through them. Postfix's log names each message that such a port accepted,
and each that a stamp filter process reports as reinjected. A message that is only among
the first came from another client, or was reinjected twice because a stamp filter
process was killed before it could report.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable

from postfix_archive.errors import ArchiveError, LogUnreadable
from postfix_archive.maillog import log_reader
from postfix_archive.maillog.queue_file import QueueFile
from postfix_archive.maillog.queue_tracker import QueueTracker
from postfix_archive.message import replay_ident
from postfix_archive.message.keyring import Keyring
from postfix_archive.postfix import archive_services, mail_queue
from postfix_archive.postfix.configuration import Configuration

DAY = 86400  # seconds
PRUNE_LINES = 5000  # lines of log after which finished queue files are dropped


def read(lines: Iterable[tuple[str, float]], model: QueueTracker) -> QueueTracker:
    """Read lines of the log, each with its Unix time, into a model; return it.

    The model keeps what unreported() needs, and drops other mail that is finished.
    """
    for number, (text, at) in enumerate(lines, 1):
        model.read(text, at)
        if number % PRUNE_LINES == 0:
            model.queue_files.prune(_needed_keys(model))
            model.queue_files.dropped_keys.clear()
    return model


def unreported(
    before: QueueTracker,
    queued: Collection[str],
    after: QueueTracker,
    syslog_names: Collection[str],
    keys: Keyring | None = None,
) -> list[str]:
    """Return the queue ids accepted by a port that no stamp filter process reports.

    syslog_names are those of the ports, as ``postfix/archive-handback``. before was
    read before the queue was listed (queued), after was read afterwards: so a stamp
    filter process that was running either still has its message in the queue or has
    reported. keys are the site's: what postfix-archive replay sends is known by them.
    """
    replays = replay_ident.Idents(keys)
    return [
        file.queue_id
        for file in before.queue_files.by_key.values()
        if file.service in syslog_names
        and file.is_queued
        and not _is_reported(after, file)
        and not (file.orig_queue_id in queued and after.can_be_reported(file))
        and not replays.take(file.orig_queue_id)
    ]


def _is_reported(model: QueueTracker, file: QueueFile) -> bool:
    """Tell whether a stamp filter reports a message, or its report is unreadable."""
    latest = model.queue_files.current(file.queue_id)
    if latest is None or latest.is_reported:
        return True
    origin = model.queue_files.current(file.orig_queue_id)
    return origin is not None and origin.has_unreadable_report


def _needed_keys(model: QueueTracker) -> set[str]:
    """Return the keys of unreported queue files and of their origins."""
    files = model.queue_files
    unreported_files = [
        file
        for file in files.by_key.values()
        if file.is_reinjected and not file.is_reported
    ]
    origins = [files.current(file.orig_queue_id) for file in unreported_files]
    return {file.key for file in (*unreported_files, *origins) if file is not None}


def find_unarchived(config: Configuration, keys: Keyring | None) -> tuple[str, ...]:
    """Return the queue ids of reinjected mail that did not pass the stamp filter.

    Covers the last two days, as far as the current log goes back.
    """
    syslog_names = _port_syslog_names(config)
    with contextlib.suppress(ArchiveError):
        before = _read_log(config)
        if not unreported(before, (), before, syslog_names, keys):
            return ()
        messages = mail_queue.list_messages(config.directory, 0)
        queued = {message.queue_id for message in messages}
        after = _read_log(config)
        return tuple(unreported(before, queued, after, syslog_names, keys))
    return ()


def _read_log(config: Configuration) -> QueueTracker:
    lines = log_reader.latest_lines(config, time.time() - 2 * DAY)
    model = QueueTracker(archive_services.content_filters(config))
    with contextlib.suppress(LogUnreadable):  # check_outcomes reports that
        read(lines, model)
    return model


def _port_syslog_names(config: Configuration) -> set[str]:
    """Return the syslog_name of each reinjection port of this instance."""
    names = (
        config.value("syslog_name", service)
        for service in config.services
        if archive_services.is_ours(service) and service.kind == "inet"
    )
    return {
        name for name in names if name.endswith(archive_services.REINJECTION_SUFFIXES)
    }
