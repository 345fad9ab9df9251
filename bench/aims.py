"""The targets, and whether they were reached: one row each, from both runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import figures
import variants
from figures import Spread

Result = dict[str, Any]  # bench.json or growth.json
BAR = "4 KB, 1 rcpt, 20 sess"  # the load that the aims are set for

RATES = (
    (variants.LMTP, variants.ALWAYS_BCC, 0.60),
    (variants.LMTP, variants.NULL_LMTP, 0.85),
    (variants.PIPE, variants.NULL_PIPE, 0.85),
)
WHY = """\
Why lmtp mode misses its targets: the null filter passes bytes on, for 0.15 ms of CPU
per message in its worker. 85% of its rate would leave the archive half a
millisecond; it takes about 2, over a third of that in the kernel (a new file, three
fsyncs, two connections, a second process), the rest in Python: header, archive id,
stamp, report, gzip, the journal's line, the two sessions. No step takes more than 7%,
so there is no single one to improve. And with any after-queue filter, even the null
one, Postfix receives each message twice, which it does not with always_bcc; where all
cores are busy, as here, that limits the rate. What would help: these steps in
compiled code, one fsync for several messages, which is impossible where each message
is answered by itself, or more cores."""
LMTP_RATE = f"messages/s, {variants.LMTP} /"
PROCESS = 2.0  # CPU of one of our processes, in those of a bare interpreter
STORED = 0.95  # messages/s with the fullest store, in those with an empty one
SERVED = 1.1  # memory of a worker after the most messages, in that after the fewest
LARGE = 64.0  # MB: peak memory of each process with a very large message


@dataclass(frozen=True)
class Aim:
    """One target, and what was measured."""

    what: str
    aim: float
    found: Spread
    at_least: bool = False

    @property
    def is_reached(self) -> bool:
        """True if the result is as good as the target."""
        beyond = self.found.middle - self.aim
        return beyond >= 0 if self.at_least else beyond <= 0

    @property
    def verdict(self) -> str:
        """Reached, or by what share of the target it was missed."""
        if self.is_reached:
            return "reached"
        return f"missed by {abs(self.found.middle - self.aim) / self.aim:.0%}"

    def row(self) -> str:
        """The target as a row of the table."""
        sign = "≥" if self.at_least else "≤"
        found = self.found if self.found.is_wide else f"{self.found.middle:.2f}"
        return f"| {self.what} | {sign} {self.aim:.2f} | {found} | {self.verdict} |"


def section(bench: Result, growth: Result) -> Iterator[str]:
    """Yield the lines of the page; a run that was not made has an empty result."""
    found = [*_rates(bench), *_processes(bench), *_stored(growth), *_memory(growth)]
    if found:
        yield from ("## Targets", "", f"Messages/s: {BAR}.", "")
        yield from ("| | target | measured | |", "|---|---|---|---|")
        yield from (each.row() for each in found)
    rates = (each for each in found if each.what.startswith(LMTP_RATE))
    if not all(each.is_reached for each in rates):
        yield from ("", WHY)


def _rates(bench: Result) -> Iterator[Aim]:
    cells = bench.get("runs", {}).get(BAR, {})
    for above, below, aim in RATES:
        if {above, below} <= set(cells):
            ratio = figures.ratio(cells[above]["rate"], cells[below]["rate"])
            yield Aim(f"messages/s, {above} / {below}", aim, ratio, at_least=True)


def _processes(bench: Result) -> Iterator[Aim]:
    values = dict(bench.get("alone_cpu_ms", {}))
    bare = values.pop("bare", [])
    for name, spent in values.items():
        what = f"CPU of one {name} process / bare `python3 -I -S -c pass`"
        yield Aim(what, PROCESS, figures.ratio(spent, bare))


def _stored(growth: Result) -> Iterator[Aim]:
    for door, by_count in growth.get("rates", {}).items():
        counts = sorted(by_count, key=int)
        rates = [by_count[count]["rate"] for count in (counts[-1], counts[0])]
        what = f"messages/s, {door}, {int(counts[-1]):,} stored / none"
        yield Aim(what, STORED, figures.ratio(*rates), at_least=True)


def _memory(growth: Result) -> Iterator[Aim]:
    if served := growth.get("served"):
        first, *_, last = sorted(served, key=int)
        ratio = figures.spread([served[last]["rss_kb"] / served[first]["rss_kb"]])
        what = f"memory of a worker after {int(last):,} messages / {int(first):,}"
        yield Aim(what, SERVED, ratio)
    for door, by_process in growth.get("large_kb", {}).items():
        peaks = [kb / 1024 for kb in by_process.values()]
        size = growth["options"]["large"]
        what = f"MB, {door}, the largest process with a message of {size} MB"
        yield Aim(what, LARGE, figures.spread([max(peaks)]))
