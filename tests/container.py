"""Live tests in a container, for a user who is not root but may use Docker.

Only conftest.py uses this. On the host, Container answers for each live test with the
reports of the same test in there: no fixture of it is set up here. In the container,
Reporter sends these reports out. All live tests of a run share one container, which
has a copy of the checkout; the image is built from tests/container.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_docker.plugin import get_docker_services

ROOT = Path(__file__).resolve().parent.parent
BUILT_FROM = (
    "tests/container/Dockerfile",
    "tests/container/compose.yaml",
    "tests/packages",
    "setup.cfg",
    "pyproject.toml",
    "postfix_archive/__init__.py",
)
NOT_SENT = (".git", ".venv", ".mypy_cache", ".pytest_cache", ".hypothesis", "build")
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host")
REPORTS_TO = "POSTFIX_ARCHIVE_REPORTS_TO"  # a file descriptor; set in the container


def engine_answers() -> bool:
    """Tell whether this user has a Docker engine to use."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "info"], capture_output=True).returncode == 0


def is_live(item: pytest.Item) -> bool:
    """Tell whether a test needs a live Postfix."""
    return item.get_closest_marker("live") is not None


class Reporter:
    """A plugin for the run in the container: sends each report out as a JSON line."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._out = open(int(os.environ.pop(REPORTS_TO)), "w", buffering=1)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send one report."""
        flat = self._config.hook.pytest_report_to_serializable(
            config=self._config, report=report
        )
        print(json.dumps(flat, default=repr), file=self._out)

    def pytest_unconfigure(self) -> None:
        """Close the way out."""
        self._out.close()


class Container:
    """A plugin for the run on the host: answers for live tests out of a container."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._ids: list[str] = []
        self._seen: dict[str, list[pytest.TestReport]] = defaultdict(list)
        self._said = ""  # what pytest in the container wrote for people
        self._answers = self._run()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Learn which tests to run in the container."""
        self._ids = [item.nodeid for item in session.items if is_live(item)]

    def pytest_report_collectionfinish(self) -> str:
        """Say where the live tests run, since the first time takes its time."""
        return (
            f"{len(self._ids)} live tests run in a container;"
            " its image is built first if it is not up to date (a minute or more)"
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Report a live test as it went in the container; leave others to pytest."""
        if not is_live(item):
            return None
        hook = item.ihook
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports_of(item):
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_unconfigure(self) -> None:
        """Take the container down."""
        self._answers.close()

    def _reports_of(self, item: pytest.Item) -> list[pytest.TestReport]:
        reports = self._seen[item.nodeid]
        while not any(each.when == "teardown" for each in reports):
            answer = next(self._answers, None)
            if answer is None:
                return [*reports, self._lost(item)]
            self._seen[answer.nodeid].append(answer)
        return reports

    def _lost(self, item: pytest.Item) -> pytest.TestReport:
        text = f"pytest in the container ended without this test:\n{self._said}"
        return pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")

    def _run(self) -> Generator[pytest.TestReport, None, None]:
        """Give the reports as they come; the container lives as long as this."""
        style = self._config.getoption("tbstyle")
        with running_machine() as inside, tempfile.TemporaryFile("w+") as said:
            send_checkout(inside)
            command = ["sh", "-c", 'exec "$@" 3>&1 >&2', "sh", ".venv/bin/pytest"]
            with subprocess.Popen(
                [*inside, *command, f"--tb={style}", *self._ids],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
            ) as run:
                try:
                    for line in run.stdout or ():
                        yield self._unflattened(json.loads(line))
                finally:
                    run.kill()
            said.seek(0)
            self._said = said.read()

    def _unflattened(self, flat: dict[str, Any]) -> pytest.TestReport:
        if isinstance(flat["longrepr"], list):  # where and why it was skipped
            path, *rest = flat["longrepr"]
            flat["longrepr"] = (path.replace("/src", str(ROOT), 1), *rest)
        report: pytest.TestReport = self._config.hook.pytest_report_from_serializable(
            config=self._config, data=flat
        )
        return report


@contextmanager
def running_machine() -> Iterator[list[str]]:
    """Run the container; give the beginning of a command line that runs in it."""
    project = f"postfix-archive-{os.getpid()}"
    compose = compose_command()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        lay_out(Path(folder))
        file = f"{folder}/compose.yaml"
        try:
            services = get_docker_services(
                " ".join(compose), file, project, "up --build --wait", "down"
            )
            stack.enter_context(services)
        except Exception as error:  # pytest-docker has no class of its own for this
            pytest.exit(f"the container for live tests does not start: {error}", 1)
        execute = ["exec", "-T", "-e", f"{REPORTS_TO}=3", "machine"]
        yield [*compose, "-f", file, "-p", project, *execute]


def compose_command() -> list[str]:
    """Return Docker's own Compose, or where it has none, that of the test venv."""
    plugin = ["docker", "compose"]
    if subprocess.run([*plugin, "version"], capture_output=True).returncode == 0:
        return plugin
    return [str(Path(sys.executable).parent / "docker-compose")]


def lay_out(folder: Path) -> None:
    """Put all that the image is built from into one folder."""
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, folder)
    settings = pip_settings()
    lines = ["[global]"]
    for name in PIP_SETTINGS:
        urls = [url for url in settings.get(name, "").split() if url[:5] != "file:"]
        lines += [f"{name} = {' '.join(urls)}"] if urls else []
    certificates = folder / "ca.pem"
    certificates.touch()
    if "cert" in settings:
        shutil.copy(settings["cert"], certificates)
        lines.append(f"cert = /etc/{certificates.name}")
    (folder / "pip.conf").write_text("\n".join([*lines, ""]))


def pip_settings() -> dict[str, str]:
    """Return how pip is set up here, by its files and by PIP_ variables."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True).stdout
    # The variables, which win, are in the section ":env:" and so come last.
    pairs = [line.partition("=") for line in sorted(listing.splitlines(), reverse=True)]
    return {name.rpartition(".")[2]: ast.literal_eval(it) for name, _, it in pairs}


def send_checkout(inside: list[str]) -> None:
    """Copy the checkout into the container, over what the image has of it."""
    pack = ["tar", "-c", "-f", "-", *(f"--exclude=./{name}" for name in NOT_SENT), "."]
    packed = subprocess.run(pack, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    unpack = ["tar", "-x", "-f", "-", "--no-same-owner"]
    subprocess.run([*inside, *unpack], input=packed, check=True)
