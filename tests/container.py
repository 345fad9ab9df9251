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
BUILD_FILES = (
    "tests/container/Dockerfile",
    "tests/container/compose.yaml",
    "tests/packages",
    "setup.cfg",
    "pyproject.toml",
    "postfix_archive/__init__.py",
)
EXCLUDED_FILES = (
    ".git",
    ".venv",
    ".mypy_cache",
    ".pytest_cache",
    ".hypothesis",
    "build",
)
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host")
REPORTS_TO = "POSTFIX_ARCHIVE_REPORTS_TO"  # a file descriptor; set in the container


def has_docker_engine() -> bool:
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
        self._stream = open(int(os.environ.pop(REPORTS_TO)), "w", buffering=1)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send one report."""
        serialised = self._config.hook.pytest_report_to_serializable(
            config=self._config, report=report
        )
        print(json.dumps(serialised, default=repr), file=self._stream)

    def pytest_unconfigure(self) -> None:
        """Close the way out."""
        self._stream.close()


class Container:
    """A plugin for the run on the host: answers for live tests out of a container."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._ids: list[str] = []
        self._reports: dict[str, list[pytest.TestReport]] = defaultdict(list)
        self._output = ""  # what pytest in the container wrote for people
        self._received = self._run_tests()

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
        self._received.close()

    def _reports_of(self, item: pytest.Item) -> list[pytest.TestReport]:
        reports = self._reports[item.nodeid]
        while not any(each.when == "teardown" for each in reports):
            report = next(self._received, None)
            if report is None:
                return [*reports, self._missing_report(item)]
            self._reports[report.nodeid].append(report)
        return reports

    def _missing_report(self, item: pytest.Item) -> pytest.TestReport:
        text = f"pytest in the container ended without this test:\n{self._output}"
        return pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")

    def _run_tests(self) -> Generator[pytest.TestReport, None, None]:
        """Give the reports as they come; the container lives as long as this."""
        traceback_style = self._config.getoption("tbstyle")
        with running_container() as exec_command, tempfile.TemporaryFile(
            "w+"
        ) as output:
            send_checkout(exec_command)
            command = ["sh", "-c", 'exec "$@" 3>&1 >&2', "sh", ".venv/bin/pytest"]
            with subprocess.Popen(
                [*exec_command, *command, f"--tb={traceback_style}", *self._ids],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
            ) as process:
                try:
                    for line in process.stdout or ():
                        yield self._deserialise(json.loads(line))
                finally:
                    process.kill()
            output.seek(0)
            self._output = output.read()

    def _deserialise(self, data: dict[str, Any]) -> pytest.TestReport:
        if isinstance(data["longrepr"], list):  # where and why it was skipped
            path, *rest = data["longrepr"]
            data["longrepr"] = (path.replace("/src", str(ROOT), 1), *rest)
        report: pytest.TestReport = self._config.hook.pytest_report_from_serializable(
            config=self._config, data=data
        )
        return report


@contextmanager
def running_container() -> Iterator[list[str]]:
    """Run the container; give the beginning of a command line that runs in it."""
    project = f"postfix-archive-{os.getpid()}"
    compose = compose_command()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        write_build_context(Path(directory))
        compose_file = f"{directory}/compose.yaml"
        try:
            services = get_docker_services(
                " ".join(compose), compose_file, project, "up --build --wait", "down"
            )
            stack.enter_context(services)
        except Exception as error:  # pytest-docker has no class of its own for this
            pytest.exit(f"the container for live tests does not start: {error}", 1)
        execute = ["exec", "-T", "-e", f"{REPORTS_TO}=3", "machine"]
        yield [*compose, "-f", compose_file, "-p", project, *execute]


def compose_command() -> list[str]:
    """Return Docker's own Compose, or where it has none, that of the test venv."""
    plugin = ["docker", "compose"]
    if subprocess.run([*plugin, "version"], capture_output=True).returncode == 0:
        return plugin
    return [str(Path(sys.executable).parent / "docker-compose")]


def write_build_context(directory: Path) -> None:
    """Put all that the image is built from into one directory."""
    for name in BUILD_FILES:
        shutil.copy(ROOT / name, directory)
    settings = pip_settings()
    lines = ["[global]"]
    for name in PIP_SETTINGS:
        urls = [url for url in settings.get(name, "").split() if url[:5] != "file:"]
        lines += [f"{name} = {' '.join(urls)}"] if urls else []
    certificates = directory / "ca.pem"
    certificates.touch()
    if "cert" in settings:
        shutil.copy(settings["cert"], certificates)
        lines.append(f"cert = /etc/{certificates.name}")
    (directory / "pip.conf").write_text("\n".join([*lines, ""]))


def pip_settings() -> dict[str, str]:
    """Return how pip is set up here, by its files and by PIP_ variables."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True).stdout
    # The variables, which win, are in the section ":env:" and so come last.
    pairs = [line.partition("=") for line in sorted(listing.splitlines(), reverse=True)]
    return {name.rpartition(".")[2]: ast.literal_eval(it) for name, _, it in pairs}


def send_checkout(exec_command: list[str]) -> None:
    """Copy the checkout into the container, over what the image has of it."""
    pack = [
        "tar",
        "-c",
        "-f",
        "-",
        *(f"--exclude=./{name}" for name in EXCLUDED_FILES),
        ".",
    ]
    tarball = subprocess.run(pack, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    unpack = ["tar", "-x", "-f", "-", "--no-same-owner"]
    subprocess.run([*exec_command, *unpack], input=tarball, check=True)
