"""make bench-web: the web page with ten users at once.

Fills a store with the corpus of search_corpus and indexes it, unless STORE has both
already. Then ten users search with 200 queries, turn pages and open messages: with
pauses, as people do, and without, as fast as the page answers. Writes web.json, and
web-performance.md from it. Every option is an environment variable as well. Started as
root; the page runs as the owner of the store.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import command_line

from postfix_archive.config import archive_cf
from postfix_archive.search.search import Search
from postfix_archive.web import app, database, web_settings
from postfix_archive.web.login import local_users
from postfix_archive.web.user import Grant, Role, User

import resource_usage
import run_description
import search_bench
import search_queries
import web_figures
import web_server
import web_users
from private_postfix import descendants

DEFAULTS = {
    "MESSAGES": "1000000",
    "USERS": "10",
    "REQUESTS": "10000",
    "PAUSE": "1",
    "STORE": "",
    "OUT": "build/bench",
}
HELP = {
    "MESSAGES": "messages in the store",
    "USERS": "users at once",
    "REQUESTS": "searches without a pause; a tenth as many with one",
    "PAUSE": "mean seconds between a page and the next request",
    "STORE": "a directory of bench-search, or one to fill; else one that is removed",
    "OUT": "directory for web.json and web-performance.md",
}
START_SECONDS = 60
WARM_UP = 50  # searches that are not measured
Result = dict[str, object]


class Server:
    """The page in a process of its own, over a store that is indexed."""

    def __init__(self, directory: Path, etc: Path) -> None:
        owner = os.stat(archive_cf.load(str(etc)).archive_store_directory)
        web = directory / "web"
        shutil.rmtree(web, ignore_errors=True)
        web.mkdir()
        (etc / web_settings.FILE_NAME).write_text(f"web_directory = {web}\n")
        path = f"{web}/web.db"
        with database.open_database(path) as db:
            auditor = User(web_users.NAME, "local", frozenset({Grant(Role.AUDITOR)}))
            local_users.add(db, auditor, web_users.PASSWORD)
        for each in (web, *web.iterdir()):
            os.chown(each, owner.st_uid, owner.st_gid)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._process = subprocess.Popen(
            [sys.executable, web_server.__file__, str(etc), str(self.port)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def wait(self) -> None:
        """Return when it serves."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            time.sleep(0.05)
        raise SystemExit("the page does not start")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    def cpu(self) -> float:
        """Return the CPU seconds of the server, without its child for extraction.

        That is replaced by another from time to time.
        """
        return _cpu(self._process.pid)

    def memory(self) -> tuple[int, int]:
        """Return the peak memory in kB of the server and of its child."""
        pid = self._process.pid
        children = [_peak(each) for each in descendants(pid)]
        return _peak(pid), max(children, default=0)


def _cpu(pid: int) -> float:
    """Return the CPU seconds of all threads of a process."""
    threads = (int(each.name) for each in Path(f"/proc/{pid}/task").iterdir())
    return sum(map(resource_usage.own_seconds, threads))


def _peak(pid: int) -> int:
    found = resource_usage.HIGH_WATER.search(Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


@contextlib.contextmanager
def running(directory: Path, etc: Path) -> Iterator[Server]:
    """The page, while it runs."""
    server = Server(directory, etc)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


def run(server: Server, load: web_users.Load) -> Result:
    """Return the times of the pages in ms, and what the server used."""
    before, begin = server.cpu(), time.monotonic()
    process = subprocess.run(
        [sys.executable, web_users.__file__],
        input=json.dumps(load._asdict()),
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise SystemExit(process.stderr)
    seconds, after = time.monotonic() - begin, server.cpu()
    times = json.loads(process.stdout)
    return {
        "seconds": seconds,
        "cpu": after - before,
        "memory": server.memory(),
        "times": {kind: [round(e, 1) for e in some] for kind, some in times.items()},
    }


def measure(store: Path, scratch: Path, options: object) -> Result:
    """Fill, index, measure."""
    values = vars(options)
    bench = search_bench.Bench(store, values["messages"])
    if not bench.index_directory.exists():
        bench.fill()
        bench.index()
    etc = scratch / "etc"
    shutil.copytree(bench.etc, etc)
    found = Search(archive_cf.load(str(etc)), "*")
    has_messages = "message.message_page" in app.PAGES
    queries = [each.text for each in search_queries.make(values["messages"])]
    result: Result = {
        **run_description.describe_run(resource_usage.ControlGroup("none")),
        "indexed": found.count(),
        "users": values["users"],
        "pause": values["pause"],
        "queries": len(queries),
    }
    with running(scratch, etc) as server:
        load = web_users.Load(
            server.port, values["users"], WARM_UP, 0.0, queries, has_messages
        )
        run_description.print_progress("warm up")
        run(server, load)
        run_description.print_progress("with pauses")
        paced = load._replace(
            requests=max(1, values["requests"] // 10), pause=values["pause"]
        )
        result["paced"] = run(server, paced)
        run_description.print_progress("without pauses")
        result["unpaced"] = run(server, load._replace(requests=values["requests"]))
    result["load_after"] = os.getloadavg()[0]
    return result


def main(arguments: list[str]) -> None:
    """Measure, write web.json and the page, show the page."""
    parser = command_line.make_parser("web_bench", __doc__, DEFAULTS, HELP)
    options = parser.parse_args(arguments)
    command_line.parse_counts(options, "messages", "users", "requests")
    options.pause = float(options.pause)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    os.environ["TZ"] = "UTC"  # of dates in queries
    time.tzset()
    with (
        search_bench.working_directory(options.store) as store,
        tempfile.TemporaryDirectory(prefix="pfa-web-", dir="/tmp") as scratch,
    ):
        os.chmod(scratch, 0o755)
        result = measure(store, Path(scratch), options)
    (out / web_figures.DATA).write_text(json.dumps(web_figures.shorten(result)) + "\n")
    print(web_figures.write(out))


if __name__ == "__main__":
    main(sys.argv[1:])
