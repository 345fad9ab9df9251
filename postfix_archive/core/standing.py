"""How an instance stands: what is archived, what waits, what is amiss. A value.

Filled in by back/measuring; shown by status, and by metrics to Prometheus.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from postfix_archive.core import finding, rescuing
from postfix_archive.core.tally import Tally

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
# What a reconcile run counts: all that was accepted, and what became of it.
ACCEPTED = "accepted"
RESULTS = ("archived", "waiting", "rescued", "not_requested", "missing")


@dataclass(frozen=True)
class Waits:
    """What waits in one place: how many, for how long the oldest, and why that one."""

    count: int = 0
    age: int = 0  # seconds
    since: str | None = None  # RFC 3339, None where nothing waits
    why: str | None = None
    tried: bool = False  # in vain


@dataclass(frozen=True)
class Space:
    """The file system of a folder, as statvfs(3) tells; for who is not root."""

    size: int  # bytes
    free: int
    inodes: int  # 0 where the file system counts none
    free_inodes: int


@dataclass(frozen=True)
class Reconciled:
    """What the last reconcile run has found; times are seconds since 1970."""

    time: float
    since: str
    until: str
    counts: Mapping[str, int]  # of ACCEPTED and RESULTS


@dataclass(frozen=True)
class Standing:
    """All that status tells; what is not known is absent, or empty."""

    directory: str  # of Postfix's configuration: which instance this is
    version: str
    waits: Mapping[str, Waits]  # queue, filter, fallback
    held: Mapping[str, str]  # queue ids that a rescue has put on hold, since when
    gap: Mapping[str, Any] | None = None
    tallies: Mapping[str, Tally] = field(default_factory=dict)
    trouble: Mapping[str, str] = field(
        default_factory=dict
    )  # by archive; "": the store
    spaces: Mapping[str, Space] = field(default_factory=dict)  # store, fallback
    reconciled: Reconciled | None = None
    rescued: float | None = None  # when rescue last ran, seconds since 1970
    followed: float | None = None  # up to when the log was followed for outcomes

    @property
    def damage(self) -> list[str]:
        """What is wrong with the store and its journals, one line each."""
        found = list(self.trouble.values())
        for name, each in self.tallies.items():
            if each.damaged:
                found.append(
                    f"the journal of {name} has {each.damaged} lines that are none, the"
                    f" first is line {each.first_damaged}; see verify"
                )
        return found

    @property
    def missing(self) -> int:
        """How many messages the last reconcile run missed."""
        return self.reconciled.counts["missing"] if self.reconciled else 0

    @property
    def severity(self) -> int:
        """The exit code: 2 while mail is in danger, 1 while copies wait or are missed.

        The store's damage is danger; messages that were missed once are past help.
        """
        stuck = self.waits["filter"].age >= rescuing.NOTICED
        if self.gap or self.held or self.damage or stuck:
            return finding.CRITICAL
        queue = self.waits["queue"]
        late = queue.age >= rescuing.NOTICED or queue.tried
        some = late or self.waits["fallback"].count or self.missing
        return finding.WARNING if some else finding.OK


def reconciled(words: object) -> Reconciled | None:
    """Return what a reconcile run has written, None if that is not of its form."""
    if not isinstance(words, dict):
        return None
    counts = {name: words.get(name, -1) for name in (ACCEPTED, *RESULTS)}
    texts = {name: words.get(name) or "" for name in ("time", "since", "until")}
    if not _are(counts.values(), int) or not _are(texts.values(), str):
        return None
    at = seconds(texts.pop("time"))
    if at is None or min(counts.values()) < 0:
        return None
    return Reconciled(time=at, counts=counts, **texts)


def seconds(text: str) -> float | None:
    """Return a time of RFC 3339 in seconds since 1970, None if it is none."""
    try:
        found = datetime.datetime.fromisoformat(text)
        return (found - EPOCH).total_seconds()
    except (ValueError, OverflowError, TypeError):  # TypeError: of no zone
        return None


def _are(values: Iterable[object], kind: type) -> bool:
    return {*map(type, values)} == {kind}
