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

from postfix_archive.message import stamp
from postfix_archive.status import overview
from postfix_archive.status.overview import FileSystem, Snapshot
from postfix_archive.store import outcome
from postfix_archive.store.tally import Tally

PREFIX = "postfix_archive_"
COUNTER, GAUGE = "counter", "gauge"
INSTANCE_LABEL = "config_directory"
# Name without PREFIX: type, help. In the order in which they are written.
FAMILIES = {
    "build_info": (GAUGE, "The version of postfix_archive; always 1."),
    "severity": (GAUGE, "Exit code of status: 0 OK, 1 warning, 2 mail at risk."),
    "archived_messages_total": (COUNTER, "Messages archived, each counted once."),
    "removed_messages_total": (COUNTER, "Of these, purged or erased since."),
    "archived_original_bytes_total": (COUNTER, "Bytes of archived originals."),
    "supplements_total": (COUNTER, "Supplements added to records."),
    "mailed_copies_total": (COUNTER, "Archive copies sent as mail."),
    "stamps_total": (
        COUNTER,
        "Captures, supplements too, by the check of their stamp.",
    ),
    "outcomes_total": (COUNTER, "Recipients of archived messages, by outcome."),
    "waiting_recipients": (GAUGE, "Recipients of archived messages still waiting."),
    "bypasses_total": (COUNTER, "Bypass periods in the journal."),
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
    "bypass_on": (GAUGE, "1 while the bypass is on: mail is not archived."),
    "bypass_started_timestamp_seconds": (GAUGE, "When the bypass was turned on."),
    "last_rescue_timestamp_seconds": (GAUGE, "When the queue rescue last ran."),
    "outcomes_followed_timestamp_seconds": (
        GAUGE,
        "Time up to which the mail log is read for outcomes.",
    ),
    "index_behind_seconds": (
        GAUGE,
        "Age of the first message that the index for searching lacks, or 0.",
    ),
    "object_store_behind_seconds": (
        GAUGE,
        "Age of the first line of the journal that the bucket lacks, or 0.",
    ),
    "object_store_undeleted_records": (
        GAUGE,
        "Removed records that the bucket must still keep.",
    ),
    "last_seal_timestamp_seconds": (GAUGE, "When the store was last sealed."),
    "unsealed_age_seconds": (
        GAUGE,
        "Age of the first journal line that no seal covers, or 0.",
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


def text(snapshot: Snapshot) -> str:
    """Return all metrics in the exposition format."""
    lines: dict[str, list[str]] = {name: [] for name in FAMILIES}
    for name, labels, value in _samples(snapshot):
        all_labels = {INSTANCE_LABEL: snapshot.directory, **labels}
        label_text = ",".join(f'{k}="{escape_label(v)}"' for k, v in all_labels.items())
        lines[name].append(f"{PREFIX}{name}{{{label_text}}} {value:d}\n")
    parts = [_heading(name) + "".join(each) for name, each in lines.items() if each]
    return "".join(parts)


def escape_label(value: str) -> str:
    r"""Return a label's value with backslash, quote and LF escaped, in UTF-8.

    Bytes that are not UTF-8 become \udcNN.
    """
    encoded = value.encode("utf-8", "backslashreplace").decode()
    return encoded.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _heading(name: str) -> str:
    kind, help_text = FAMILIES[name]
    return f"# HELP {PREFIX}{name} {help_text}\n# TYPE {PREFIX}{name} {kind}\n"


def _samples(snapshot: Snapshot) -> Iterator[Sample]:
    yield "build_info", {"version": snapshot.version}, 1
    yield "severity", {}, snapshot.severity
    for name, counts in snapshot.tallies.items():
        yield from _archive_samples({"archive": name}, counts)
    for name in (*snapshot.tallies, *filter(None, snapshot.store_errors)):
        yield "journal_readable", {"archive": name}, name not in snapshot.store_errors
    yield "store_readable", {}, not snapshot.store_errors
    for place, backlog in snapshot.backlogs.items():
        yield "waiting_messages", {"place": place}, backlog.count
        yield "oldest_waiting_age_seconds", {"place": place}, backlog.age
    yield "held_messages", {}, len(snapshot.on_hold)
    for name, lag in snapshot.index_lags.items():
        if lag.has_index:
            yield "index_behind_seconds", {"archive": name}, int(lag.seconds)
    for name, behind in snapshot.replication_lags.items():
        labels = {"archive": name}
        yield "object_store_behind_seconds", labels, int(behind.seconds)
        yield "object_store_undeleted_records", labels, behind.removed
    yield from _bypass_samples(snapshot)
    yield from _run_samples(snapshot)
    for place, file_system in snapshot.file_systems.items():
        yield from _file_system_samples({"place": place}, file_system)


def _archive_samples(labels: dict[str, str], counts: Tally) -> Iterator[Sample]:
    yield "archived_messages_total", labels, counts.messages
    yield "removed_messages_total", labels, counts.removed
    yield "archived_original_bytes_total", labels, counts.received_bytes
    yield "supplements_total", labels, counts.supplements
    yield "mailed_copies_total", labels, counts.mailed
    for verdict in stamp.VERDICTS:
        yield "stamps_total", {**labels, "stamp": verdict}, counts.stamps[verdict]
    for kind in outcome.SETTLED:
        yield "outcomes_total", {**labels, "outcome": kind}, counts.outcomes[kind]
    yield "waiting_recipients", labels, len(counts.waiting)
    yield "bypasses_total", labels, len(counts.bypasses)
    timestamp = overview.parse_time(counts.last_archived)
    if timestamp is not None:
        yield "last_archived_timestamp_seconds", labels, int(timestamp)
    yield "store_bytes", labels, counts.copy_bytes + counts.offset
    yield "damaged_journal_lines", labels, counts.damaged


def _bypass_samples(snapshot: Snapshot) -> Iterator[Sample]:
    bypass = snapshot.bypass
    is_on = bypass is not None and not bypass.ended
    yield "bypass_on", {}, is_on
    timestamp = overview.parse_time(bypass.started) if bypass and is_on else None
    if timestamp is not None:
        yield "bypass_started_timestamp_seconds", {}, int(timestamp)


def _run_samples(snapshot: Snapshot) -> Iterator[Sample]:
    if snapshot.rescue_time is not None:
        yield "last_rescue_timestamp_seconds", {}, int(snapshot.rescue_time)
    if snapshot.followed_until is not None:
        yield "outcomes_followed_timestamp_seconds", {}, int(snapshot.followed_until)
    seals = snapshot.seal_state
    if seals is not None:
        timestamp = overview.parse_time(seals.sealed_at)
        if timestamp is not None:
            yield "last_seal_timestamp_seconds", {}, int(timestamp)
        yield "unsealed_age_seconds", {}, int(seals.unsealed_age(snapshot.time))
    run = snapshot.reconcile_run
    if run is not None:
        yield "reconciled_timestamp_seconds", {}, int(run.time)
        yield "reconciled_accepted_messages", {}, run.counts[overview.ACCEPTED]
        for result in overview.RESULTS:
            yield "reconciled_messages", {"result": result}, run.counts[result]


def _file_system_samples(
    labels: dict[str, str], file_system: FileSystem
) -> Iterator[Sample]:
    yield "filesystem_size_bytes", labels, file_system.size
    yield "filesystem_avail_bytes", labels, file_system.free
    if file_system.inodes:
        yield "filesystem_inodes", labels, file_system.inodes
        yield "filesystem_avail_inodes", labels, file_system.free_inodes
