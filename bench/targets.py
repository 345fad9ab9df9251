"""The targets, and whether they were reached: one row each, from both runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import figures
import variants
from figures import Spread

Result = dict[str, Any]  # bench.json or growth.json
TARGET_LOAD = "4 KB, 1 rcpt, 20 sess"  # the load that the aims are set for

LARGE_LOAD = "200 KB, 1 rcpt, 20 sess"
RATE_TARGETS = (
    (TARGET_LOAD, variants.NATIVE_LMTP, variants.ALWAYS_BCC, 0.75),
    ("4 KB, 10 rcpt, 20 sess", variants.NATIVE_LMTP, variants.ALWAYS_BCC, 0.75),
    (LARGE_LOAD, variants.NATIVE_LMTP, variants.ALWAYS_BCC, 0.60),
    (TARGET_LOAD, variants.LMTP, variants.ALWAYS_BCC, 0.40),
    (LARGE_LOAD, variants.LMTP, variants.ALWAYS_BCC, 0.30),
    (TARGET_LOAD, variants.LMTP, variants.NULL_LMTP, 0.85),
    (TARGET_LOAD, variants.PIPE, variants.NULL_PIPE, 0.85),
)
WORKER = "archive-lmtp"
WORKER_TARGET = 1.0  # CPU ms a message of a worker of native-lmtp
# CPU a message of the whole instance of native-lmtp, in that of always_bcc.
INSTANCE_TARGET = 1.3
ADDED_TARGET = 1.2  # p99 of the latency of the native modes, in that of plain
LMTP_EXPLANATION = """\
Why lmtp mode misses a target: the null filter passes bytes on, for 0.15 ms of CPU per
message in its worker. 85% of its rate would leave the archive half a millisecond. A new
file, its name and its line, each made durable, take the kernel a third of one; the rest
is Python: header, archive id, stamp, report, gzip, the journal's line, two sessions,
each a few per cent. And with any after-queue filter, even the null one, Postfix
receives each message twice, which it does not with always_bcc; where all cores are
busy, as here, that limits the rate. What helps: a native mode, or more cores."""
LMTP_RATE_PREFIX = f"messages/s, {variants.LMTP} /"
CPU_TARGET = 2.0  # CPU of one of our processes, in those of a bare interpreter
STORED_TARGET = 0.95  # messages/s with the fullest store, in those with an empty one
SERVED_TARGET = (
    1.1  # memory of a worker after the most messages, in that after the fewest
)
LARGE_TARGET = 64.0  # MB: peak memory of each process with a very large message


@dataclass(frozen=True)
class Target:
    """One target, and what was measured."""

    description: str
    target: float
    measured: Spread
    is_minimum: bool = False

    @property
    def is_reached(self) -> bool:
        """True if the result is as good as the target."""
        difference = self.measured.middle - self.target
        return difference >= 0 if self.is_minimum else difference <= 0

    @property
    def verdict(self) -> str:
        """Reached, or by what share of the target it was missed."""
        if self.is_reached:
            return "reached"
        return f"missed by {abs(self.measured.middle - self.target) / self.target:.0%}"

    def row(self) -> str:
        """The target as a row of the table."""
        sign = "≥" if self.is_minimum else "≤"
        measured = (
            self.measured if self.measured.is_wide else f"{self.measured.middle:.2f}"
        )
        target = f"{sign} {self.target:.2f}"
        return f"| {self.description} | {target} | {measured} | {self.verdict} |"


def section(bench: Result, growth: Result) -> Iterator[str]:
    """Yield the lines of the page; a run that was not made has an empty result."""
    by_bench = (*_rates(bench), *_native(bench), *_processes(bench))
    targets = [*by_bench, *_stored(growth), *_memory(growth)]
    if targets:
        load = f"Messages/s: {TARGET_LOAD}, unless another load is named."
        yield from ("## Targets", "", load, "")
        yield from ("| | target | measured | |", "|---|---|---|---|")
        yield from (each.row() for each in targets)
    rates = (each for each in targets if each.description.startswith(LMTP_RATE_PREFIX))
    if not all(each.is_reached for each in rates):
        yield from ("", LMTP_EXPLANATION)


def _rates(bench: Result) -> Iterator[Target]:
    for load, above, below, target in RATE_TARGETS:
        cells = bench.get("runs", {}).get(load, {})
        if {above, below} <= set(cells):
            ratio = figures.ratio(cells[above]["rate"], cells[below]["rate"])
            suffix = "" if load == TARGET_LOAD else f"; {load}"
            description = f"messages/s, {above} / {below}{suffix}"
            yield Target(description, target, ratio, is_minimum=True)


def _native(bench: Result) -> Iterator[Target]:
    """Yield what native-lmtp costs: its worker, the instance, live mail."""
    name = variants.NATIVE_LMTP
    shares = bench.get("profile", {}).get("cpu_ms", {}).get(name, {})
    if WORKER in shares:
        description = f"CPU ms of the worker of {name}, {bench['profile']['load']}"
        yield Target(description, WORKER_TARGET, figures.spread([shares[WORKER]]))
    cells = bench.get("runs", {}).get(TARGET_LOAD, {})
    if {name, variants.ALWAYS_BCC} <= set(cells):
        ratio = figures.ratio(
            cells[name]["cpu_ms"], cells[variants.ALWAYS_BCC]["cpu_ms"]
        )
        description = f"CPU, {name} / {variants.ALWAYS_BCC}"
        yield Target(description, INSTANCE_TARGET, ratio)
    yield from _added_latency(bench)


def _added_latency(bench: Result) -> Iterator[Target]:
    for size, values in bench.get("latency_ms", {}).items():
        for name in (variants.NATIVE_LMTP, variants.NATIVE_PIPE):
            if {name, variants.PLAIN} <= set(values):
                p99 = [
                    figures.percentile(values[n], 99) for n in (name, variants.PLAIN)
                ]
                description = f"p99 of the latency, {name} / {variants.PLAIN}, {size}"
                ratio = figures.spread([p99[0] / p99[1]])
                yield Target(description, ADDED_TARGET, ratio)


def _processes(bench: Result) -> Iterator[Target]:
    values = dict(bench.get("alone_cpu_ms", {}))
    bare = values.pop("bare", [])
    for name, milliseconds in values.items():
        description = f"CPU of one {name} process / bare `python3 -I -S -c pass`"
        yield Target(description, CPU_TARGET, figures.ratio(milliseconds, bare))


def _stored(growth: Result) -> Iterator[Target]:
    for mode, by_count in growth.get("rates", {}).items():
        counts = sorted(by_count, key=int)
        rates = [by_count[count]["rate"] for count in (counts[-1], counts[0])]
        description = f"messages/s, {mode}, {int(counts[-1]):,} stored / none"
        yield Target(description, STORED_TARGET, figures.ratio(*rates), is_minimum=True)


def _memory(growth: Result) -> Iterator[Target]:
    if served := growth.get("served"):
        first, *_, last = sorted(served, key=int)
        ratio = figures.spread([served[last]["rss_kb"] / served[first]["rss_kb"]])
        description = (
            f"memory of a worker after {int(last):,} messages / {int(first):,}"
        )
        yield Target(description, SERVED_TARGET, ratio)
    for mode, by_process in growth.get("large_kb", {}).items():
        peaks = [kb / 1024 for kb in by_process.values()]
        size = growth["options"]["large"]
        description = f"MB, {mode}, the largest process with a message of {size} MB"
        yield Target(description, LARGE_TARGET, figures.spread([max(peaks)]))
