"""Fixtures for all tests: a private Postfix, and what to do where none is possible."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postfix_archive.postfix import reference

import container
import schedule
from private_postfix import PrivatePostfix
from whole_host import STOCK, WholeHost, install

REQUIREMENTS = sorted((reference.PACKAGE / "install").glob("requirements*.txt"))
# As docs/installing.md says it.
DOWNLOAD = ("download", "--require-hashes", "--no-deps", "--only-binary=:all:")
Once = Callable[[str, Callable[[Path], None]], Path]
SKIP_REASON = (
    "a live Postfix needs root, or a Docker engine that this user may use:"
    " run 'sudo make test', or join the group docker"
)


def can_run_natively() -> bool:
    """Tell whether this process may run a Postfix of its own, and is not to leave it.

    POSTFIX_ARCHIVE_TESTS=container makes root too take the container.
    """
    if os.environ.get("POSTFIX_ARCHIVE_TESTS") == "container":
        return False
    return os.geteuid() == 0 and Path("/usr/sbin/postconf").exists()


def pytest_configure(config: pytest.Config) -> None:
    """Let schedule.py order the tests; in the container, send the reports out."""
    config.pluginmanager.register(schedule)
    if container.REPORTS_TO in os.environ:
        config.pluginmanager.register(container.Reporter(config))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Run live tests here, or else in a container, or else skip them."""
    live = [item for item in items if container.is_live(item)]
    if not live or can_run_natively():
        return
    if container.has_docker_engine():
        items.sort(key=container.is_live)
        config.pluginmanager.register(container.Container(config))
        return
    for item in live:
        item.add_marker(pytest.mark.skip(reason=SKIP_REASON))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where POSTFIX_ARCHIVE_LIVE=required, a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if reporter and skipped and os.environ.get("POSTFIX_ARCHIVE_LIVE") == "required":
        reporter.write_line(f"{len(skipped)} tests were skipped, and none may be.")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def exit_statuses_are_true() -> None:
    """Where SIGCHLD is ignored, every command seems to have succeeded (wait(2))."""
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL


@pytest.fixture(scope="module")
def mode() -> str:
    """The mode that mail takes; a module that tests both has a fixture of its own."""
    return "pipe"


@pytest.fixture(scope="module")
def postfix(mode: str) -> Iterator[PrivatePostfix]:
    """A running instance with archive = legal@example.com, shared by a module."""
    with PrivatePostfix(mode=mode) as instance:
        yield instance


@pytest.fixture(scope="session")
def once_a_run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Once:
    """Makes a path once for all processes of this run (pytest-xdist)."""
    directory = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        directory = directory.parent

    def once(name: str, make: Callable[[Path], None]) -> Path:
        path = directory / name
        with open(directory / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                draft = directory / f"{name}.draft"
                make(draft)
                draft.rename(path)
        return path

    return once


@pytest.fixture(scope="session")
def wheels(once_a_run: Once) -> Path:
    """The Python packages, for a host that reaches no index."""

    def download(directory: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        files = (f"--requirement={each}" for each in REQUIREMENTS)
        command = [*pip, *DOWNLOAD, "-d", str(directory), *files]
        subprocess.run(command, check=True)

    return once_a_run("wheels", download)


@pytest.fixture(scope="session")
def stock_host(once_a_run: Once) -> Path:
    """A layer for WholeHost: Postfix as Debian's package configures it, two users."""

    def save(layer: Path) -> None:
        with WholeHost() as host:
            host.run(STOCK)
            host.save(layer)

    return once_a_run("stock-host.tar", save)


@pytest.fixture(scope="session")
def release(once_a_run: Once, stock_host: Path, wheels: Path) -> Path:
    """A layer for WholeHost: this release as the next make install uses it.

    For tests that are about something else: its virtual environment takes seconds.
    """

    def save(layer: Path) -> None:
        with WholeHost(stock_host) as host:
            host.run(install(wheels))
            library = "usr/local/lib/postfix-archive"
            host.run(
                f"find /{library} -mindepth 1 -maxdepth 1 ! -name releases -delete"
            )
            host.save(layer, library)

    return once_a_run("release.tar", save)
