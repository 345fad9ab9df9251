"""docs/performance.md, and its picture, from the figures of both runs beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import aims
import chart
import figures
import grown
import shares
import variants

Result = dict[str, Any]  # bench.json, as bench.Bench.result() makes it
BENCH, GROWTH = "bench.json", "growth.json"

HEAD = """\
# Performance

Made by `make bench` from `bench.json`; repeat it on your own machine. It builds private
Postfix instances that are alike but for what happens to the mail, and sends the same
mail to each in turns: a slow minute of the machine hits all. Mail is delivered to
discard(8), which costs next to nothing: beside real delivery, differences are smaller.
Ratios count, not figures: taken round by round, middle (lowest–highest) of {rounds}.
Before each run goes mail that is not counted: on a busy host all processes are there.
`sess` are SMTP sessions at once, `rcpt` recipients a message.

This run: {made};
{cores} cores, Postfix {postfix}, Python {python}, Linux {kernel}. CPU is the whole
instance's, from {cpu_from}. Load average before it began: {load_before:.1f}; on a
machine that has other work to do the spread is wide, and figures are low.

| variant | the mail |
|---|---|
{variants}

The null filters are what any after-queue filter in Python costs at the same door, with
the same hand-back port: the one by pipe(8) is two bare `python3 -I -S` a message, a
filter and an archive transport (ours has the second only where the store cannot be
asked at once: then a message costs a capsule, and the process that is measured as
`archive` below); the one by lmtp(8) is a worker that keeps its connections.
Messages/s are until the queue is empty: for the archive, until the store has the copies
(`archive_delivery = store`). The picture is performance.svg, and SVG because no package
is needed for that.
"""


def write(out: Path) -> str:
    """Write performance.md and performance.svg beside the figures; return the page."""
    bench = read(out / BENCH)
    text = made(bench, read(out / GROWTH))
    (out / "performance.md").write_text(text)
    (out / "performance.svg").write_text(picture(bench))
    return text


def read(path: Path) -> Result:
    """Return the figures of a run, nothing if it was not."""
    found: Result = json.loads(path.read_text()) if path.exists() else {}
    return found


def made(bench: Result, growth: Result) -> str:
    """Return the page."""
    head = HEAD.format(
        **bench["machine"],
        made=grown.made(bench),
        rounds=bench["options"]["rounds"],
        variants="\n".join(
            f"| {name} | {variants.MEANING[name]} |" for name in _of(bench)
        ),
    )
    parts = (_pictured, _rates, _ratios, _latency, _traced, _alone, _profile)
    sections = [aims.section(bench, growth), *(part(bench) for part in parts)]
    texts = ["\n".join(each) for each in (*sections, grown.section(growth))]
    return "\n".join([head, *(f"{each}\n" for each in texts if each)])


def picture(result: Result) -> str:
    """Return the picture: messages/s of all variants, a group a load."""
    return chart.bars(
        "Messages/s until the queue is empty, as a share of plain",
        {
            load: {
                name: figures.ratio(cell["rate"], cells[variants.PLAIN]["rate"]).middle
                for name, cell in cells.items()
            }
            for load, cells in result["runs"].items()
            if variants.PLAIN in cells
        },
    )


def _of(result: Result) -> list[str]:
    names: list[str] = result["options"]["variants"]
    return names


def _pictured(result: Result) -> Iterator[str]:
    if variants.PLAIN in _of(result):
        yield "![Messages/s of all variants as a share of plain](performance.svg)"


def _rates(result: Result) -> Iterator[str]:
    names = _of(result)
    yield from ("## Messages/s, and CPU ms a message", "")
    yield _row("load", *names)
    yield _row(*["---"] * (len(names) + 1))
    for load, cells in result["runs"].items():
        yield _row(load, *(_rate_and_cpu(cells[name]) for name in names))


def _rate_and_cpu(cell: dict[str, list[float]]) -> str:
    return f"{median(cell['rate']):.0f}/s, {median(cell['cpu_ms']):.1f} ms"


def _ratios(result: Result) -> Iterator[str]:
    names = set(_of(result))
    pairs = [each for each in figures.RATIOS if set(each) <= names]
    if not pairs:
        return
    yield from ("## Ratios of messages/s", "")
    yield _row("load", *(f"{above} / {below}" for above, below in pairs))
    yield _row(*["---"] * (len(pairs) + 1))
    for load, cells in result["runs"].items():
        yield _row(load, *(_ratio(cells, *pair) for pair in pairs))


def _ratio(cells: dict[str, dict[str, list[float]]], above: str, below: str) -> str:
    return str(figures.ratio(cells[above]["rate"], cells[below]["rate"]))


def _latency(result: Result) -> Iterator[str]:
    yield from ("## Latency", "")
    yield "Milliseconds from MAIL FROM to delivery, one message at a time, p50 / p99."
    if variants.PLAIN in _of(result):
        yield "Then what is more than with plain."
    yield ""
    yield _row("size", *_of(result))
    yield _row(*["---"] * (len(_of(result)) + 1))
    for size, by_name in result["latency_ms"].items():
        yield _row(size, *(_percentiles(by_name[name]) for name in _of(result)))
        if plain := by_name.get(variants.PLAIN):
            added = (_percentiles(by_name[name], plain) for name in _of(result))
            yield _row(f"{size}, added", *added)


def _percentiles(values: list[float], less: list[float] | None = None) -> str:
    found = [
        figures.percentile(values, each)
        - (figures.percentile(less, each) if less else 0)
        for each in (50, 99)
    ]
    return " / ".join(f"{each:.0f}" for each in found)


def _traced(result: Result) -> Iterator[str]:
    yield from ("## Fsyncs and memory", "")
    yield "fsync and fdatasync a message, of the whole instance, 1 recipient, in a pass"
    yield "of its own (strace makes it slow). Memory: the peak of each of ours."
    yield ""
    yield _row("size", *_of(result))
    yield _row(*["---"] * (len(_of(result)) + 1))
    for size, by_name in result["traced"].items():
        yield _row(size, *(_fsyncs_and_memory(by_name[name]) for name in _of(result)))


def _fsyncs_and_memory(cell: dict[str, Any]) -> str:
    memory = [f"{door} {kb / 1024:.0f} MB" for door, kb in cell["memory_kb"].items()]
    return "; ".join([f"{cell['fsyncs']:.1f}", *sorted(memory)])


def _alone(result: Result) -> Iterator[str]:
    values = result["alone_cpu_ms"]
    if not values:
        return
    yield from ("## One process by itself", "")
    yield "CPU of single runs, 4 KB, beside `python3 -I -S -c pass` (bare)."
    yield from ("", "| process | CPU ms | beside bare |", "|---|---|---|")
    for name, spent in values.items():
        beside = figures.ratio(spent, values["bare"])
        yield _row(name, str(figures.spread(spent)), str(beside))


def _profile(result: Result) -> Iterator[str]:
    profile: dict[str, dict[str, float]] = result["profile"]["cpu_ms"]
    names = _of(result)
    yield from ("## Whose CPU it is", "")
    load = result["profile"]["load"]
    yield f"CPU ms a message by process, {load}, in a pass of its own."
    yield "`run by` a service is what it has started and waited for, `what began and"
    yield "ended` all else. What is under 0.05 ms everywhere is left out."
    yield ""
    yield _row("process", *names)
    yield _row(*["---"] * (len(names) + 1))
    for each in shares.rows(profile):
        cells = [profile[name].get(each, 0.0) for name in names]
        yield _row(each, *(f"{ms:.2f}" if ms else "" for ms in cells))
    yield _row("all", *(f"{sum(profile[name].values()):.2f}" for name in names))
    for pair in shares.PAIRS:
        if set(pair) <= set(names):
            yield from ("", _difference(profile, *pair))


def _difference(profile: dict[str, dict[str, float]], ours: str, other: str) -> str:
    """Return a sentence: what makes one variant dearer than another."""
    more = sum(profile[ours].values()) - sum(profile[other].values())
    each = shares.dearer(profile[ours], profile[other])
    parts = ", ".join(f"{name} {ms:+.2f}" for name, ms in each.items())
    return f"{ours} beside {other}, {more:+.2f} ms: {parts}."


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
