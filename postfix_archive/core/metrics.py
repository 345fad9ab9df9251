"""Metrics in Prometheus' text exposition format, version 0.0.4.

Used by cli/status. Every series has the label config_directory: two instances on one
host may write into one directory of node_exporter, which refuses duplicate series. A
value that is not known is left out together with its name, never written as 0.

Names and units follow https://prometheus.io/docs/practices/naming/: counters end in
_total (and start again when a journal is counted again); times are seconds since 1970,
so that an alert can compute their age even when nothing writes the file any more.
"""

from __future__ import annotations

from collections.abc import Iterator

from postfix_archive.core import outcome, standing, tally
from postfix_archive.core.standing import Space, Standing
from postfix_archive.core.tally import Tally

PREFIX = "postfix_archive_"
COUNTER, GAUGE = "counter", "gauge"
INSTANCE = "config_directory"
# Name without PREFIX: type, help. In the order in which they are written.
FAMILIES = {
    "build_info": (GAUGE, "The version of postfix_archive; always 1."),
    "severity": (GAUGE, "Exit code of status: 0 OK, 1 warning, 2 mail at risk."),
    "archived_messages_total": (COUNTER, "Messages archived, each counted once."),
    "archived_original_bytes_total": (COUNTER, "Bytes of archived originals."),
    "supplements_total": (COUNTER, "Supplements added to records."),
    "mailed_copies_total": (COUNTER, "Archive copies sent as mail."),
    "stamps_total": (
        COUNTER,
        "Captures, supplements too, by the check of their stamp.",
    ),
    "outcomes_total": (COUNTER, "Recipients of archived messages, by outcome."),
    "waiting_recipients": (GAUGE, "Recipients of archived messages still waiting."),
    "gaps_total": (COUNTER, "Bypass periods in the journal."),
    "last_archived_timestamp_seconds": (GAUGE, "When a message was last archived."),
    "store_bytes": (GAUGE, "Bytes of the archive's copies and journal in the store."),
    "journal_readable": (GAUGE, "1 if the archive's journal could be read."),
    "damaged_journal_lines": (GAUGE, "Invalid lines in the journal."),
    "store_readable": (GAUGE, "1 if the store could be read."),
    "waiting_messages": (
        GAUGE,
        "Copies waiting in Postfix's queue or the fallback directory, and messages"
        " waiting for the stamp filter.",
    ),
    "oldest_waiting_age_seconds": (GAUGE, "Age of the oldest of these, or 0."),
    "held_messages": (GAUGE, "Messages that the queue rescue has put on hold."),
    "gap_open": (GAUGE, "1 while the bypass is on: mail is not archived."),
    "gap_opened_timestamp_seconds": (GAUGE, "When the bypass was turned on."),
    "last_rescue_timestamp_seconds": (GAUGE, "When the queue rescue last ran."),
    "outcomes_followed_timestamp_seconds": (
        GAUGE,
        "Time up to which the mail log is read for outcomes.",
    ),
    "reconciled_timestamp_seconds": (GAUGE, "When postfix-archive reconcile last ran."),
    "reconciled_accepted_messages": (GAUGE, "Messages accepted, in that run."),
    "reconciled_messages": (GAUGE, "Accepted messages in that run, by result."),
    "filesystem_size_bytes": (GAUGE, "Size of the file system."),
    "filesystem_avail_bytes": (GAUGE, "Bytes available to unprivileged processes."),
    "filesystem_inodes": (GAUGE, "Inodes of the file system."),
    "filesystem_avail_inodes": (GAUGE, "Inodes available to unprivileged processes."),
}

# Name without PREFIX, labels besides the instance's, value.
Sample = tuple[str, dict[str, str], int]


def text(found: Standing) -> str:
    """Return all metrics in the exposition format."""
    written: dict[str, list[str]] = {name: [] for name in FAMILIES}
    for name, labels, value in _samples(found):
        words = {INSTANCE: found.directory, **labels}
        said = ",".join(f'{k}="{escaped(v)}"' for k, v in words.items())
        written[name].append(f"{PREFIX}{name}{{{said}}} {value:d}\n")
    parts = [_heading(name) + "".join(each) for name, each in written.items() if each]
    return "".join(parts)


def escaped(value: str) -> str:
    r"""Return a label's value with backslash, quote and LF escaped, in UTF-8.

    Bytes that are not UTF-8 become \udcNN.
    """
    sound = value.encode("utf-8", "backslashreplace").decode()
    return sound.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _heading(name: str) -> str:
    kind, told = FAMILIES[name]
    return f"# HELP {PREFIX}{name} {told}\n# TYPE {PREFIX}{name} {kind}\n"


def _samples(found: Standing) -> Iterator[Sample]:
    yield "build_info", {"version": found.version}, 1
    yield "severity", {}, found.severity
    for name, each in found.tallies.items():
        yield from _of_archive({"archive": name}, each)
    for name in (*found.tallies, *filter(None, found.store_errors)):
        yield "journal_readable", {"archive": name}, name not in found.store_errors
    yield "store_readable", {}, not found.store_errors
    for place, waits in found.backlogs.items():
        yield "waiting_messages", {"place": place}, waits.count
        yield "oldest_waiting_age_seconds", {"place": place}, waits.age
    yield "held_messages", {}, len(found.on_hold)
    yield from _gap(found)
    yield from _runs(found)
    for place, space in found.file_systems.items():
        yield from _room({"place": place}, space)


def _of_archive(archive: dict[str, str], each: Tally) -> Iterator[Sample]:
    yield "archived_messages_total", archive, each.messages
    yield "archived_original_bytes_total", archive, each.received_bytes
    yield "supplements_total", archive, each.supplements
    yield "mailed_copies_total", archive, each.mailed
    for verdict in tally.STAMPS:
        yield "stamps_total", {**archive, "stamp": verdict}, each.stamps[verdict]
    for kind in outcome.SETTLED:
        yield "outcomes_total", {**archive, "outcome": kind}, each.outcomes[kind]
    yield "waiting_recipients", archive, len(each.waiting)
    yield "gaps_total", archive, len(each.gaps)
    at = standing.seconds(each.last_archived)
    if at is not None:
        yield "last_archived_timestamp_seconds", archive, int(at)
    yield "store_bytes", archive, each.copy_bytes + each.offset
    yield "damaged_journal_lines", archive, each.damaged


def _gap(found: Standing) -> Iterator[Sample]:
    bypass = found.bypass
    is_open = bypass is not None and "closed" not in bypass
    yield "gap_open", {}, is_open
    at = standing.seconds(bypass["opened"]) if bypass and is_open else None
    if at is not None:
        yield "gap_opened_timestamp_seconds", {}, int(at)


def _runs(found: Standing) -> Iterator[Sample]:
    if found.rescue_time is not None:
        yield "last_rescue_timestamp_seconds", {}, int(found.rescue_time)
    if found.followed_until is not None:
        yield "outcomes_followed_timestamp_seconds", {}, int(found.followed_until)
    run = found.reconcile_run
    if run is not None:
        yield "reconciled_timestamp_seconds", {}, int(run.time)
        yield "reconciled_accepted_messages", {}, run.counts[standing.ACCEPTED]
        for result in standing.RESULTS:
            yield "reconciled_messages", {"result": result}, run.counts[result]


def _room(place: dict[str, str], space: Space) -> Iterator[Sample]:
    yield "filesystem_size_bytes", place, space.size
    yield "filesystem_avail_bytes", place, space.free
    if space.inodes:
        yield "filesystem_inodes", place, space.inodes
        yield "filesystem_avail_inodes", place, space.free_inodes
