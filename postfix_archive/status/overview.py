"""The state of an instance: what is archived, what waits, what is wrong. Values only.

Filled in by status/collect; shown by cli/status and status/prometheus_text.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from postfix_archive import monitoring
from postfix_archive.replicate import replication_lag
from postfix_archive.rescue import rescue_plan
from postfix_archive.seal.seal_lag import SealState
from postfix_archive.search.index_lag import Lag
from postfix_archive.status.last_verify import LastVerify
from postfix_archive.store.bypass_period import BypassPeriod
from postfix_archive.store.tally import Tally

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
# What a reconcile run counts: accepted messages, and these by result.
ACCEPTED = "accepted"
ACCEPTED_MISSING = "accepted_missing"  # not in the summary of an older release
RESULTS = (
    *("archived", "waiting", "rescued", "not_requested", "missing"),
    ACCEPTED_MISSING,
)


@dataclass(frozen=True)
class Backlog:
    """The messages that wait in one place; ``status --json`` shows these names.

    ``age`` (seconds), ``since`` (RFC 3339) and ``reason`` are those of the oldest
    message; ``has_failed`` says that a delivery has failed.
    """

    count: int = 0
    age: int = 0
    since: str | None = None  # None: nothing waits
    reason: str | None = None
    has_failed: bool = False


@dataclass(frozen=True)
class FileSystem:
    """The file system of a directory, by statvfs(3); ``status --json`` shows it."""

    size: int  # bytes
    free: int  # bytes available to unprivileged processes
    inodes: int  # 0: the file system does not count them
    free_inodes: int


@dataclass(frozen=True)
class ReconcileRun:
    """The summary of the last reconcile run."""

    time: float  # seconds since 1970
    since: str  # RFC 3339
    until: str
    counts: Mapping[str, int]  # by ACCEPTED and RESULTS


@dataclass(frozen=True)
class Snapshot:
    """The state of one instance; what is not known is None or empty."""

    directory: str  # config_directory, which identifies the instance
    version: str  # of postfix_archive
    backlogs: Mapping[str, Backlog]  # by place: queue, filter, fallback
    on_hold: Mapping[str, str]  # queue ids that a rescue has put on hold, since when
    bypass: BypassPeriod | None = None  # the current one
    tallies: Mapping[str, Tally] = field(default_factory=dict)  # by archive
    # By archive; "": the store itself.
    store_errors: Mapping[str, str] = field(default_factory=dict)
    losses: Mapping[str, str] = field(default_factory=dict)  # of journals, by archive
    # By place: store, fallback.
    file_systems: Mapping[str, FileSystem] = field(default_factory=dict)
    reconcile_run: ReconcileRun | None = None  # the last one
    last_verify: LastVerify | None = None  # of the whole store
    rescue_time: float | None = None  # of the last queue rescue, seconds since 1970
    followed_until: float | None = None  # the log is read for outcomes up to then
    index_lags: Mapping[str, Lag] = field(default_factory=dict)  # by archive
    # By archive; empty without archive_object_store.
    replication_lags: Mapping[str, replication_lag.Lag] = field(default_factory=dict)
    seal_state: SealState | None = None  # None: nobody witnesses seals
    time: float = 0.0  # of this snapshot, seconds since 1970

    @property
    def damage(self) -> list[str]:
        """What is wrong with the store and its journals, one line each."""
        errors = [*self.store_errors.values(), *self.losses.values()]
        for name, tally in self.tallies.items():
            if tally.damaged:
                errors.append(
                    f"journal of {name}: {tally.damaged} invalid lines, first is line"
                    f" {tally.first_damaged}; run postfix-archive verify"
                )
        return errors

    @property
    def missing(self) -> int:
        """The number of messages that the last reconcile run found missing."""
        return self.reconcile_run.counts["missing"] if self.reconcile_run else 0

    @property
    def severity(self) -> int:
        """The exit code: 2 if mail is at risk, 1 if copies wait or mail is missing.

        Missing messages are only a warning: nothing can archive them any more.
        """
        if self.risks:
            return monitoring.CRITICAL
        return monitoring.WARNING if self.warnings else monitoring.OK

    @property
    def risks(self) -> list[str]:
        """Why mail is at risk; names no archive and no person."""
        is_stuck = self.backlogs["filter"].age >= rescue_plan.ALARM_AGE
        return _texts(
            (self.bypass, "the bypass is on, or was not ended in every journal"),
            (self.on_hold, "mail is on hold before expiry"),
            (self.damage, "the store or a journal is damaged or lost"),
            (is_stuck, "mail is stuck at the stamp filter"),
        )

    @property
    def warnings(self) -> list[str]:
        """Why somebody should look; names no archive and no person."""
        queue = self.backlogs["queue"]
        is_late = queue.age >= rescue_plan.ALARM_AGE or queue.has_failed
        return _texts(
            (is_late, "archive copies wait in the queue"),
            (self.backlogs["fallback"].count, "copies wait in the fallback directory"),
            (self.missing, "the last reconcile run found messages missing"),
        )


def _texts(*cases: tuple[object, str]) -> list[str]:
    return [text for is_so, text in cases if is_so]


def parse_reconcile_run(fields: object) -> ReconcileRun | None:
    """Return a run's saved summary, None if it is invalid."""
    if not isinstance(fields, dict):
        return None
    fields = {ACCEPTED_MISSING: 0, **fields}
    counts = {name: fields.get(name, -1) for name in (ACCEPTED, *RESULTS)}
    texts = {name: fields.get(name) or "" for name in ("time", "since", "until")}
    if not _have_type(counts.values(), int) or not _have_type(texts.values(), str):
        return None
    timestamp = parse_time(texts.pop("time"))
    if timestamp is None or min(counts.values()) < 0:
        return None
    return ReconcileRun(time=timestamp, counts=counts, **texts)


def parse_time(text: str) -> float | None:
    """Return an RFC 3339 time in seconds since 1970, None if it is invalid."""
    try:
        time = datetime.datetime.fromisoformat(text)
        return (time - EPOCH).total_seconds()
    except (ValueError, OverflowError, TypeError):  # TypeError: no UTC offset
        return None


def _have_type(values: Iterable[object], required_type: type) -> bool:
    return {*map(type, values)} == {required_type}
