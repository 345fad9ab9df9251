"""make bench: what the archive costs, by private Postfix instances side by side.

All variants run in one go, in turns: a slow minute of the machine hits all of them.
Ratios are taken round by round. Writes bench.json, and performance.md and .svg from it
and from growth.json where that is beside it. Every option is an environment variable as
well (make bench ROUNDS=1). Needs root, since Postfix does.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import command_line

import cpu_shares
import load
import page
import resource_usage
import run_description
import single_process
import variants
from private_postfix import PrivatePostfix

DEFAULTS = {
    "ROUNDS": "5",
    "MESSAGES": "120",
    "SIZES": "4,200",
    "RECIPIENTS": "1,10,50",
    "SESSIONS": "1,20",
    "VARIANTS": ",".join(variants.NAMES),
    "LATENCIES": "200",
    "TRACED": "50",
    "ALONE": "20",
    "PILER": "",
    "OUT": "build/bench",
}
HELP = {
    "ROUNDS": "how often each load is sent to each variant",
    "MESSAGES": "4 KB messages a run; fewer of larger ones, more where they are fast",
    "SIZES": "KB a message",
    "RECIPIENTS": "recipients a message",
    "SESSIONS": "SMTP sessions at once",
    "VARIANTS": "what is compared",
    "LATENCIES": "4 KB messages a round whose latency is taken; a fifth of larger ones",
    "TRACED": "messages in the pass that counts fsyncs and looks at memory",
    "ALONE": "processes that are run by themselves, for their CPU",
    "PILER": "host:port of another archive (an SMTP server) to compare with",
    "OUT": "directory for bench.json and what is made from it",
}


class Bench:
    """The instances, and what has been measured so far."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        self.options = options
        self.instances: dict[str, PrivatePostfix] = {}
        self.groups: dict[str, resource_usage.ControlGroup] = {}
        for name in options.variants:
            self._start(name, stack)
        self.machine = run_description.describe_run(next(iter(self.groups.values())))
        self.loads = [
            load.Load(size * 1024, recipients, sessions)
            for size in options.sizes
            for recipients in options.recipients
            for sessions in options.sessions
        ]
        self.runs: dict[str, dict[str, list[load.Run]]] = {
            item.name: {name: [] for name in self.instances} for item in self.loads
        }
        self.latencies: dict[str, dict[str, list[float]]] = {
            f"{size} KB": {name: [] for name in self.instances}
            for size in options.sizes
        }

    def _start(self, name: str, stack: ExitStack) -> None:
        postfix = variants.build(name, peer=self.options.piler)
        group = resource_usage.ControlGroup(postfix.directory.name)
        stack.callback(group.remove)
        with group.entered():
            stack.enter_context(postfix)
        self.instances[name], self.groups[name] = postfix, group

    def round(self, number: int) -> None:
        """Send each load to each variant; who is first changes with the round."""
        names = list(self.instances)
        start = number % len(names)
        for mail_load in self.loads:
            for name in names[start:] + names[:start]:
                self.runs[mail_load.name][name].append(self._run(name, mail_load))
        for size in self.options.sizes:
            for name in names[start:] + names[:start]:
                self.latencies[f"{size} KB"][name] += load.latencies(
                    name, self.instances[name], size * 1024, self.options.latencies
                )

    def _run(self, name: str, mail_load: load.Load) -> load.Run:
        messages = mail_load.messages(
            self.options.messages, is_fast=name in variants.FAST
        )
        result = load.run(self.instances[name], self.groups[name], mail_load, messages)
        run_description.print_progress(
            f"{mail_load.name}: {name}: {result.rate:.0f}/s, {result.cpu_ms:.1f} ms CPU"
        )
        return result

    def fsyncs_and_memory(self) -> dict[str, dict[str, dict[str, object]]]:
        """Return fsyncs a message and peak memory of ours, by size and variant."""
        return {
            f"{size} KB": {
                name: self._fsyncs_and_memory(name, size) for name in self.instances
            }
            for size in self.options.sizes
        }

    def _fsyncs_and_memory(self, name: str, size: int) -> dict[str, object]:
        postfix, messages = self.instances[name], self.options.traced
        single_load = load.Load(size * 1024, 1, 1)
        memory: dict[str, int] = {}
        counts: list[int] = []
        with resource_usage.fsyncs(postfix, counts):
            load.send(postfix, single_load, messages)
            load.wait_for_empty_queue(postfix)
        if name in variants.OURS:
            with resource_usage.peak(postfix, memory):
                load.send(postfix, single_load, messages)
                load.wait_for_empty_queue(postfix)
        return {"fsyncs": counts[0] / messages, "memory_kb": memory}

    def single_process_cpu(self) -> dict[str, list[float]]:
        """Return CPU ms of single processes of the pipe mode, if it is here."""
        if variants.PIPE not in self.instances:
            return {}
        return single_process.cpu_ms(
            self.instances[variants.PIPE], load.SMALL_SIZE, self.options.alone
        )

    def profile(self) -> dict[str, object]:
        """Return CPU ms a message by variant and service, of small mail."""
        mail_load = load.Load(load.SMALL_SIZE, 1, max(self.options.sessions))
        messages = self.options.messages
        cpu_ms = {
            name: cpu_shares.cpu_per_message(
                postfix, self.groups[name], mail_load, messages
            )
            for name, postfix in self.instances.items()
        }
        return {"load": mail_load.name, "cpu_ms": cpu_ms}

    def result(self) -> dict[str, object]:
        """Return all that bench.json says."""
        return {
            "machine": self.machine,
            "options": vars(self.options) | {"out": "", "piler": ""},
            "runs": {
                each: {
                    name: {
                        "messages": runs[0].messages,
                        "rate": [round(run.rate, 2) for run in runs],
                        "cpu_ms": [round(run.cpu_ms, 3) for run in runs],
                    }
                    for name, runs in by_name.items()
                }
                for each, by_name in self.runs.items()
            },
            "latency_ms": {
                size: {
                    name: [round(each, 2) for each in values]
                    for name, values in by_name.items()
                }
                for size, by_name in self.latencies.items()
            },
            "latency_rates": {name: load.latency_rate(name) for name in self.instances},
            "traced": self.fsyncs_and_memory(),
            "alone_cpu_ms": self.single_process_cpu(),
            "profile": self.profile(),
        }


def options_of(arguments: list[str]) -> argparse.Namespace:
    """Return what was asked for, by options or by the environment."""
    parser = command_line.make_parser("bench", __doc__, DEFAULTS, HELP)
    options = parser.parse_args(arguments)
    command_line.parse_counts(
        options, "rounds", "messages", "latencies", "traced", "alone"
    )
    for name in ("sizes", "recipients", "sessions"):
        setattr(options, name, command_line.parse_numbers(getattr(options, name)))
    options.variants = options.variants.split(",")
    if options.piler:
        if not re.fullmatch(r".+:\d+", options.piler):
            parser.error(f"PILER={options.piler}: not host:port")
        options.variants.append(variants.BCC_SMTP)
    if unknown := set(options.variants) - {*variants.NAMES, variants.BCC_SMTP}:
        parser.error(f"no such variant: {', '.join(sorted(unknown))}")
    return options


def main(arguments: list[str]) -> None:
    """Measure, write bench.json, show the table."""
    options = options_of(arguments)
    directory = Path(options.out)
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        bench = Bench(options, stack)
        for number in range(options.rounds):
            run_description.print_progress(f"round {number + 1} of {options.rounds}")
            bench.round(number)
        result = bench.result()
    (directory / page.BENCH).write_text(json.dumps(result, indent=1) + "\n")
    print(page.write(directory))


if __name__ == "__main__":
    # However it ends, its instances end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main(sys.argv[1:])
