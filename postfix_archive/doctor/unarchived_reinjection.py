"""Finds mail that a reinjection port accepted from others than the stamp filter.

Used by doctor. The internal ports trust this host, so any local user can send mail past
the archive through them. Postfix's log names each message that such a port accepted,
and each that a stamp filter process reports as reinjected. A message that is only among
the first came from another client, or was reinjected twice because a stamp filter
process was killed before it could report.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from postfix_archive.errors import ArchiveError
from postfix_archive.maillog import delivery, location, report
from postfix_archive.postfix import archive_services, mail_queue, postfix_command
from postfix_archive.postfix.configuration import Configuration

DAEMONS = ("smtpd", "qmqpd")
CLIENT_FIELD = ": client="
ORIG_QUEUE_ID_FIELD = ", orig_queue_id="
RELAY_FIELD = ", relay="
SENT_STATUS = ", status=sent ("


@dataclass
class ReinjectionEvents:
    """What a log says about the reinjection ports.

    ``accepted``: queue ids that the ports accepted, each with its orig_queue_id or "".
    ``queued``: those of them that qmgr(8) logged. ``reinjected``: queue ids that stamp
    filter processes report.
    """

    accepted: dict[str, str] = field(default_factory=dict)
    queued: set[str] = field(default_factory=set)
    reinjected: set[str] = field(default_factory=set)


def parse(lines: Iterable[str], syslog_names: Collection[str]) -> ReinjectionEvents:
    """Return what the lines of a log say about the reinjection ports.

    names are the syslog_name of these ports, as ``postfix/archive-handback``.
    """
    events = ReinjectionEvents()
    processes = tuple(
        f" {name}/{daemon}[" for name in syslog_names for daemon in DAEMONS
    )
    for line in map(str.rstrip, lines):
        if "/pipe[" in line or "/archive-stamp/lmtp[" in line:
            _parse_stamp_filter_line(events, line)
        elif "/qmgr[" in line:
            _parse_qmgr_line(events, line)
        elif any(mark in line for mark in processes):
            _parse_port_line(events, line)
    return events


def unreported(
    before: ReinjectionEvents, queued: Collection[str], after: ReinjectionEvents
) -> list[str]:
    """Return the accepted queue ids that no stamp filter process reports.

    before was read before the queue was listed (queued), after was read afterwards: so
    a stamp filter process that was running either still has its message in the queue or
    has reported.
    """
    return [
        queue_id
        for queue_id, origin in before.accepted.items()
        if queue_id in before.queued
        and queue_id not in after.reinjected
        and (not origin or origin not in queued)
    ]


def _parse_port_line(events: ReinjectionEvents, line: str) -> None:
    """Read ``QUEUE_ID: client=localhost[127.0.0.1], orig_queue_id=…, orig_client=…``.

    Whatever the sender can choose comes after these fields.
    """
    queue_id, mark, rest = _text_after_pid(line).partition(CLIENT_FIELD)
    if not mark or not queue_id.isalnum():
        return
    _, mark, origin = rest.partition(ORIG_QUEUE_ID_FIELD)
    events.accepted[queue_id] = origin.partition(",")[0] if mark else ""


def _parse_qmgr_line(events: ReinjectionEvents, line: str) -> None:
    """Read ``QUEUE_ID: from=<…>``: a message was queued, not only attempted."""
    queue_id, mark, _ = _text_after_pid(line).partition(": from=<")
    if mark and queue_id in events.accepted:
        events.queued.add(queue_id)


def _parse_stamp_filter_line(events: ReinjectionEvents, line: str) -> None:
    """Read the delivery line of the stamp filter, from its last relay= on.

    Whatever the sender can choose comes before.
    """
    rest = line.rpartition(RELAY_FIELD)[2]
    relay, _, status = rest.partition(",")
    if not delivery.is_stamp_filter(relay) or SENT_STATUS not in status:
        return
    reply = status.partition(SENT_STATUS)[2].removesuffix(")")
    queue_id = report.parse(reply).reinjected_as
    if queue_id:
        events.reinjected.add(queue_id)


def _text_after_pid(line: str) -> str:
    """Return the text after ``process[pid]: ``."""
    return line.partition("]: ")[2].strip()


TAIL_BYTES = 16 << 20  # bytes: some 80,000 lines
DAY = 86400  # seconds
REINJECTION_SUFFIXES = ("archive-handback", "archive-refused")


def find_unarchived(config: Configuration) -> tuple[str, ...]:
    """Return the queue ids of reinjected mail that did not pass the stamp filter.

    Covers yesterday and today, as far as the log goes back.
    """
    before = _read_events(config)
    if not unreported(before, (), before):
        return ()
    try:
        queued = {
            message.queue_id
            for message in mail_queue.list_messages(config.directory, 0)
        }
    except ArchiveError:
        return ()
    return tuple(unreported(before, queued, _read_events(config)))


def _read_events(config: Configuration) -> ReinjectionEvents:
    prefixes = _day_prefixes(time.time())
    lines = (line for line in _tail_lines(config) if line.startswith(prefixes))
    return parse(lines, _port_syslog_names(config))


def _port_syslog_names(config: Configuration) -> set[str]:
    """Return the syslog_name of each reinjection port of this instance."""
    names = (
        config.value("syslog_name", service)
        for service in config.services
        if archive_services.is_ours(service) and service.kind == "inet"
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
    for candidate in [path] if path else location.DEFAULT_PATHS:
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
            [*location.JOURNALCTL, location.MAIL_FACILITY],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=postfix_command.COMMAND_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    yield from process.stdout.splitlines()
