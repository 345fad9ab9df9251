"""make bench-search: finding archived mail, beside notmuch on the same mail.

Fills a store with the corpus of search_corpus, indexes and exports it, asks 200 queries
whose results are known, shows and lists messages, and watches how far the index is
behind while mail arrives. Writes search.json, and search-performance.md from it. Every
option is an environment variable as well.

1,000,000 messages take some hours and 60 GB: STORE=directory keeps what was made for
the next run. Started as root; notmuch is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import command_line

from postfix_archive.config import archive_cf
from postfix_archive.search import search

import fill_store
import run_description
import search_corpus
import search_fill
import search_index_size
import search_lag
import search_page
import search_process
import search_queries
from resource_usage import ControlGroup
from search_process import Usage
from search_queries import Query

DEFAULTS = {
    "MESSAGES": "1000000",
    "LAG_MESSAGES": "1500",
    "STORE": "",
    "OUT": "build/bench",
}
HELP = {
    "MESSAGES": "messages in the store",
    "LAG_MESSAGES": "messages that arrive, 50 a second, while the index is watched",
    "STORE": "a directory to fill or to use again; else one that is removed",
    "OUT": "directory for search.json and search-performance.md",
}
ROOT = Path(__file__).resolve().parents[1]
# As make install has it: byte code, and no import hook of an editable installation.
START = (
    f"import sys; sys.path[:] = {[str(ROOT), *sys.path]!r};"
    " from postfix_archive.cli.main import main; main(prog_name='postfix-archive')"
)
PROGRAM = [sys.executable, "-I", "-S", "-c", START]
PAGE_SIZE = 20  # hits
LISTED = 20  # messages that list shows
REPETITIONS = 5  # of show and list
# Without it, Xapian takes a line of Chinese for one word.
XAPIAN = {"XAPIAN_CJK_NGRAM": "1"}

Result = dict[str, object]
T = TypeVar("T")


class Bench:
    """A directory with a store, its index, exports, and a database of notmuch."""

    def __init__(self, directory: Path, count: int) -> None:
        self.directory, self.count = directory, count
        self.store = directory / "store"
        self.index_directory = directory / "index"
        self.maildir = directory / "maildir"
        self.etc = search_process.configure(
            directory / "etc", self.store, self.index_directory
        )
        self.etc_without = search_process.configure(
            directory / "etc-without", self.store, directory / "no-index"
        )
        self.notmuch_environment = {
            **XAPIAN,
            "NOTMUCH_CONFIG": str(directory / "notmuch-config"),
        }

    def fill(self) -> None:
        """Make the store up to the number of messages."""
        search_process.fill(self.store, self.count)

    def index(self) -> Result:
        """Index the store; return what that used, and the size of the index."""
        shutil.rmtree(self.index_directory, ignore_errors=True)
        fill_store.make_store_directory(self.index_directory)
        usage = self._run("index", "--once")
        size = search_index_size.of_directory(self.index_directory)
        return {**usage._asdict(), "size": size}

    def export(self) -> Result:
        """Export a tenth of the store and then all of it; return what each used."""
        limit = search_corpus.FIRST_DAY + (
            self.count // 10 * search_corpus.SECONDS_BETWEEN
        )
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(limit))
        result: Result = {}
        for name, options in (("tenth", ["--until", until]), ("all", [])):
            shutil.rmtree(self.maildir, ignore_errors=True)
            target = str(self.maildir)
            usage = self._run("export", "--format", "maildir", *options, target)
            result[name] = usage._asdict()
        return result

    def notmuch(self) -> Result:
        """Let notmuch index the exported mail; return what that used."""
        (self.directory / "notmuch-config").write_text(
            f"[database]\npath={self.maildir}\n[new]\ntags=\n"
            "[user]\nname=x\nprimary_email=x@example.com\n"
        )
        database = self.maildir / ".notmuch"
        shutil.rmtree(database, ignore_errors=True)
        usage = search_process.run(["notmuch", "new"], self.notmuch_environment)
        return {**usage._asdict(), "size": search_index_size.of_directory(database)}

    def queries(self, queries: list[Query], *, has_notmuch: bool) -> list[Result]:
        """Return for each query what was counted and how long it took, in ms."""
        for query in queries:  # so that neither waits for the disk
            self._page(query)
        rows = []
        for query in queries:
            row: Result = {"kind": query.kind, "query": query.text}
            page, count = partial(self._page, query), partial(self._count, query)
            row["page_ms"], row["page_cpu_ms"], _ = _timed(page)
            row["count_ms"], row["count_cpu_ms"], row["count"] = _timed(count)
            if has_notmuch and query.notmuch:
                words = query.notmuch
                for name, command in (
                    ("page", ["search", f"--limit={PAGE_SIZE}", words]),
                    ("count", ["count", words]),
                ):
                    self._notmuch(*command)
                    usage = self._notmuch(*command)
                    row[f"notmuch_{name}_ms"] = 1000 * usage.seconds
                    row[f"notmuch_{name}_cpu_ms"] = 1000 * usage.cpu
            rows.append(row)
        return rows

    def look_ups(self) -> Result:
        """Return what show and list use, with an index and without."""
        archive_id = search_fill.archive_id(self.count // 2)
        commands = {
            "show ID": ("show", archive_id),
            f"list --last {LISTED}": ("list", "--last", str(LISTED)),
            f"search, {PAGE_SIZE} hits of all": ("search", f"--limit={PAGE_SIZE}", "*"),
        }
        result: Result = {}
        for name, arguments in commands.items():
            result[name] = self._repeated(self.etc, arguments)
            if arguments[0] != "search":
                result[f"{name}, no index"] = self._repeated(
                    self.etc_without, arguments
                )
        return result

    def _repeated(self, etc: Path, arguments: tuple[str, ...]) -> list[Result]:
        environment = {"MAIL_CONFIG": str(etc)}
        command = [*PROGRAM, *arguments]
        usages = [search_process.run(command, environment) for _ in range(REPETITIONS)]
        return [each._asdict() for each in usages]

    def _run(self, *arguments: str) -> Usage:
        return search_process.run([*PROGRAM, "-c", str(self.etc), *arguments])

    def _notmuch(self, *arguments: str) -> Usage:
        return search_process.run(["notmuch", *arguments], self.notmuch_environment)

    def _page(self, query: Query) -> search.Page:
        settings = archive_cf.load(str(self.etc))
        return search.search(settings, query.text, limit=PAGE_SIZE)

    def _count(self, query: Query) -> int:
        settings = archive_cf.load(str(self.etc))
        return search.Search(settings, query.text).count()

    def everything(self, *, has_notmuch: bool) -> Result:
        """Return how long the first page takes of a query that matches everything.

        And notmuch for the same, and for a query that finds nothing, which is mostly
        the start of the process.
        """
        query = Query("everything", "*", "*", lambda _: True)
        times = [_timed(lambda: self._page(query)) for _ in range(REPETITIONS)]
        result: Result = {"page": [{"seconds": each[0] / 1000} for each in times]}
        commands = {
            "notmuch_page": ("search", f"--limit={PAGE_SIZE}", "*"),
            "notmuch_start": ("count", "id:none@example.com"),
        }
        for name, command in commands.items() if has_notmuch else ():
            usages = [self._notmuch(*command) for _ in range(REPETITIONS)]
            result[name] = [each._asdict() for each in usages]
        return result


def _timed(work: Callable[[], T]) -> tuple[float, float, T]:
    """Return time and CPU time in ms, and the result."""
    begin, cpu_begin = time.monotonic(), time.process_time()
    result = work()
    cpu = time.process_time() - cpu_begin
    return 1000 * (time.monotonic() - begin), 1000 * cpu, result


def measure(options: argparse.Namespace, directory: Path) -> Result:
    """Return all that search.json says."""
    bench = Bench(directory, options.messages)
    has_notmuch = bool(shutil.which("notmuch"))
    result: Result = {
        "machine": run_description.describe_run(ControlGroup("")),
        "options": vars(options) | {"out": "", "store": ""},
    }
    phases: tuple[tuple[str, Callable[[], object]], ...] = (
        ("fill", bench.fill),
        ("index", bench.index),
        ("cjk", search_index_size.of_scripts),
        ("lookups", bench.look_ups),
        ("export", bench.export),
        ("notmuch", bench.notmuch if has_notmuch else dict),
        ("lag", lambda: search_lag.measure(directory / "lag", options.lag_messages)),
        ("everything", lambda: bench.everything(has_notmuch=has_notmuch)),
    )
    for name, work in phases:
        run_description.print_progress(name)
        result[name] = work()
    run_description.print_progress("queries")
    queries = search_queries.make(options.messages)
    rows = bench.queries(queries, has_notmuch=has_notmuch)
    expected = search_queries.expect(queries, options.messages)
    for row, count in zip(rows, expected.counts, strict=True):
        row["expected"] = count
    texts = {"text": expected.text, "alternatives": expected.alternatives}
    return {**result, "queries": rows, **texts}


@contextmanager
def working_directory(path: str) -> Iterator[Path]:
    """A directory for all that is made; a given one stays."""
    directory = Path(path or tempfile.mkdtemp(prefix="pfa-search-", dir="/tmp"))
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    try:
        yield directory.resolve()
    finally:
        if not path:
            shutil.rmtree(directory, ignore_errors=True)


def main(arguments: list[str]) -> None:
    """Fill, measure, write search.json and the page, show the page."""
    parser = command_line.make_parser("search_bench", __doc__, DEFAULTS, HELP)
    options = parser.parse_args(arguments)
    command_line.parse_counts(options, "messages", "lag_messages")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    compileall.compile_dir(ROOT / "postfix_archive", quiet=1)
    os.environ["TZ"] = "UTC"  # of dates in queries
    time.tzset()
    with working_directory(options.store) as directory:
        result = measure(options, directory)
    (out / search_page.DATA).write_text(json.dumps(result, indent=1) + "\n")
    print(search_page.write(out))


if __name__ == "__main__":
    # However it ends, what it started ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main(sys.argv[1:])
