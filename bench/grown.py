"""The page's section of the growth run, from growth.json."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

import aims
import figures

Result = dict[str, Any]  # growth.json, as growth.measured() makes it

HEAD = """\
## As the store grows

Made by `make growth` from `growth.json`:
{made}; load average before it {load_before:.1f}.
Both doors deliver into one store of {archives} archives, in turns, {rounds} rounds of
{messages} messages; middle (lowest–highest). Each archive was filled before by the
store's own code, with copies of 4 KB messages in a folder a day, at most 10,000 in
each, a tenth of all in that of today, where new mail goes, and a journal with a chained
line for each. What of it the kernel still has in memory matters little: a message looks
at the folder of its day and at the end of the journal, at nothing else.
"""


def section(growth: Result) -> Iterator[str]:
    """Give the lines of the section; nothing if there was no such run."""
    if not growth:
        return
    options = growth["options"]
    head = HEAD.format(
        **growth["machine"] | options,
        made=made(growth),
        archives=len(options["stored"]),
    )
    yield from head.splitlines()
    yield ""
    yield from _rates(growth["rates"], growth["held"])
    yield ""
    yield from _served(growth["served"])
    yield ""
    yield from _large(growth)


def made(result: Result) -> str:
    """Return which program was measured, and when."""
    machine = result["machine"]
    commit = f" (commit {machine['commit']})" if machine["commit"] else ""
    return f"version {machine['version']}{commit}, {machine['date']}"


def _rates(
    rates: dict[str, dict[str, dict[str, list[float]]]], held: dict[str, dict[str, int]]
) -> Iterator[str]:
    yield "| archive | messages | of today | journal, MB |"
    yield "|---|---|---|---|"
    for count, told in held.items():
        size = f"{told['journal'] / 1e6:,.0f}"
        yield f"| {int(count):,} | {told['messages']:,} | {told['today']:,} | {size} |"
    yield ""
    yield "| door | archive | messages/s | beside none | CPU ms a message |"
    yield "|---|---|---|---|---|"
    for door, by_count in rates.items():
        for count, cell in by_count.items():
            beside = figures.ratio(cell["rate"], by_count["0"]["rate"])
            rate, cpu = median(cell["rate"]), median(cell["cpu_ms"])
            yield f"| {door} | {int(count):,} | {rate:.1f} | {beside} | {cpu:.1f} |"


def _served(served: dict[str, dict[str, int]]) -> Iterator[str]:
    yield "One worker of the lmtp door, driven as lmtp(8) does on one connection:"
    yield ""
    yield "| messages served | MB in memory | at its peak | its own (private, dirty) |"
    yield "|---|---|---|---|"
    for count, cell in served.items():
        kinds = ("rss_kb", "peak_kb", "private_kb")
        shown = " | ".join(f"{cell[kind] / 1024:.2f}" for kind in kinds)
        yield f"| {int(count):,} | {shown} |"


def _large(growth: Result) -> Iterator[str]:
    size = growth["options"]["large"]
    yield f"A message of {size} MB, half of it one line: MB of each process of ours at"
    yield f"its peak; we aim at {aims.LARGE:.0f} at most."
    yield from ("", "| door | process | MB |", "|---|---|---|")
    for door, by_process in growth["large_kb"].items():
        for process, kb in sorted(by_process.items()):
            yield f"| {door} | {process} | {kb / 1024:.1f} |"
