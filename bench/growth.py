"""make growth: does the archive stay as fast, and as small, as the store grows?

One Postfix instance for each mode, with a store that has an archive of no message, one
of 100,000 and one of 1,000,000; mail goes to each in turns, in one run. Then the memory
of a worker after many messages, and of each process of ours with a very large one.
Writes growth.json, and performance.md anew from it and from bench.json where that is
beside it. Every option is an environment variable as well.

Filling a store of 1,000,000 takes about 20 minutes and 6 GB: STORE=directory keeps it
for the next run (python bench/fill_store.py fills one beforehand).
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import command_line

import fill_store
import growth_section
import load
import page
import resource_usage
import run_description
import variants
import worker_memory
from private_postfix import PrivatePostfix, free_ports

DEFAULTS = {
    "ROUNDS": "9",
    "MESSAGES": "800",
    "STORED": "0,100000,1000000",
    "SERVED": "1000,10000,50000",
    "LARGE": "200",
    "STORE": "",
    "OUT": "build/bench",
}
HELP = {
    "ROUNDS": "how often mail is sent to each archive in each mode",
    "MESSAGES": "messages a run: 4 KB, 1 recipient, 20 sessions",
    "STORED": "messages that the archives have before",
    "SERVED": "after how many messages to look at a worker's memory",
    "LARGE": "MB of the very large message",
    "STORE": "a store to fill or to use again; else one that is removed",
    "OUT": "directory for growth.json and what is made from it",
}
LOAD = load.Load(load.SMALL_SIZE, 1, 20)
UNLIMITED = {"message_size_limit": "0", "mailbox_size_limit": "0"}


class Growth:
    """An instance in each mode on one store, and what has been measured so far."""

    def __init__(
        self, options: argparse.Namespace, store: Path, stack: ExitStack
    ) -> None:
        self.options = options
        self.instances: dict[
            str, tuple[PrivatePostfix, resource_usage.ControlGroup]
        ] = {}
        self.ports: dict[str, dict[int, int]] = {}
        for name in variants.FILTERS:
            self._start(name, store, stack)
        self.runs: dict[str, dict[int, list[load.Run]]] = {
            name: {count: [] for count in options.stored} for name in self.instances
        }

    def _start(self, name: str, store: Path, stack: ExitStack) -> None:
        stored = self.options.stored
        self.ports[name] = dict(zip(stored, free_ports(len(stored)), strict=True))
        services = map(service_entry, self.ports[name].values(), stored)
        postfix = variants.build(name, store=store, master="".join(services))
        group = resource_usage.ControlGroup(postfix.directory.name)
        stack.callback(group.remove)
        with group.entered():
            stack.enter_context(postfix)
        self.instances[name] = (postfix, group)

    def round(self, number: int) -> None:
        """Send mail to each archive in each mode; who is first changes."""
        stored = self.options.stored
        start = number % len(stored)
        for name in self.instances:
            for count in stored[start:] + stored[:start]:
                self.runs[name][count].append(self._run(name, count))

    def _run(self, name: str, count: int) -> load.Run:
        """Send mail to the archive of so many messages, until the store has it."""
        postfix, group = self.instances[name]
        port, messages = self.ports[name][count], self.options.messages
        result = load.run(postfix, group, LOAD, messages, port)
        run_description.print_progress(
            f"{name}, {count:,} stored: {result.rate:.1f}/s, {result.cpu_ms:.1f} ms"
        )
        return result

    def rates(self) -> dict[str, dict[str, dict[str, list[float]]]]:
        """Return messages/s and CPU ms a message, by mode and by messages stored."""
        return {
            name: {
                str(count): {
                    "rate": [round(run.rate, 2) for run in runs],
                    "cpu_ms": [round(run.cpu_ms, 3) for run in runs],
                }
                for count, runs in by_count.items()
            }
            for name, by_count in self.runs.items()
        }


def service_entry(port: int, count: int) -> str:
    """Return the entry of master.cf for mail that goes to one of the archives."""
    option = f"archive={fill_store.archive_address(count)}"
    return f"127.0.0.1:{port} inet n - n - - smtpd\n  -o {option}\n"


@contextmanager
def filled_store(options: argparse.Namespace) -> Iterator[Path]:
    """A store whose archives have so many messages; a given one stays."""
    with ExitStack() as stack:
        store = Path(options.store or tempfile.mkdtemp(prefix="pfa-grown-", dir="/tmp"))
        if not options.store:
            stack.callback(shutil.rmtree, store, ignore_errors=True)
        shutil.rmtree(store / fill_store.archive_address(0), ignore_errors=True)
        fill_store.fill(store, options.stored[1:])
        yield store


def measure(options: argparse.Namespace, store: Path) -> dict[str, object]:
    """Return all that growth.json says."""
    with ExitStack() as stack:
        growth = Growth(options, store, stack)
        machine = run_description.describe_run(next(iter(growth.instances.values()))[1])
        contents = {
            str(count): fill_store.archive_contents(store, count)
            for count in options.stored
        }
        for number in range(options.rounds):
            run_description.print_progress(f"round {number + 1} of {options.rounds}")
            growth.round(number)
    run_description.print_progress(f"a worker, {max(options.served):,} messages")
    return {
        "machine": machine,
        "options": vars(options) | {"out": "", "store": ""},
        "held": contents,
        "rates": growth.rates(),
        "served": worker_memory.memory(options.served),
        "large_kb": {
            name: peak_memory(name, options.large) for name in variants.FILTERS
        },
    }


def peak_memory(name: str, megabytes: int) -> dict[str, int]:
    """Return the peak memory in kB of each process of ours with a large message."""
    run_description.print_progress(f"{name}, a message of {megabytes} MB")
    memory: dict[str, int] = {}
    with variants.build(name, main=UNLIMITED) as postfix:
        with resource_usage.peak(postfix, memory):
            load.send_large(postfix, megabytes * 1_000_000)
    return memory


def options_of(arguments: list[str]) -> argparse.Namespace:
    """Return what was asked for, by options or by the environment."""
    parser = command_line.make_parser("growth", __doc__, DEFAULTS, HELP)
    options = parser.parse_args(arguments)
    command_line.parse_counts(options, "rounds", "messages", "large")
    for name in ("stored", "served"):
        setattr(
            options,
            name,
            sorted(set(command_line.parse_numbers(getattr(options, name)))),
        )
    if options.stored[0] != 0 or len(options.stored) < 2:
        parser.error("--stored: 0 and at least one other number are compared")
    return options


def main(arguments: list[str]) -> None:
    """Fill, measure, write growth.json, show what has come of it."""
    options = options_of(arguments)
    directory = Path(options.out)
    directory.mkdir(parents=True, exist_ok=True)
    with filled_store(options) as store:
        result = measure(options, store)
    (directory / page.GROWTH).write_text(json.dumps(result, indent=1) + "\n")
    if (directory / page.BENCH).exists():
        page.write(directory)
    print("\n".join(growth_section.section(result)))


if __name__ == "__main__":
    # However it ends, its instances end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main(sys.argv[1:])
