"""What comes of live tests on a host that is not to run Postfix itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import container

LIVE = "tests/live/stamp_filter/test_capture.py"
TEST_MODULE = """
import pytest

pytestmark = pytest.mark.live


@pytest.fixture
def broken():
    raise RuntimeError("in a fixture")


def test_passes(postfix):
    assert postfix.send(b"Subject: hello\\n\\nhello\\n")


def test_fails(postfix):
    print("said before")
    assert postfix.smtp_port == 25, "on purpose"


def test_with_a_broken_fixture(broken):
    pass


def test_skips():
    pytest.skip("not today")


@pytest.mark.xfail(reason="known")
def test_is_expected_to_fail():
    assert False


@pytest.mark.parametrize("it", ["a/b::c", "ü é", "x y'\\"$"])
def test_has_an_odd_name(it):
    pass
"""


def pytest_run(
    *arguments: str, checkout: Path = container.ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run pytest on a checkout as one does who is not root."""
    inherited = {k: v for k, v in os.environ.items() if k != "POSTFIX_ARCHIVE_LIVE"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=checkout,
        env={**inherited, "POSTFIX_ARCHIVE_TESTS": "container", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_an_engine_live_tests_are_skipped_with_a_reason(
    tmp_path: Path,
) -> None:
    process = pytest_run(LIVE, DOCKER_HOST=f"unix://{tmp_path}/no-engine")
    assert process.returncode == 0, process.stdout
    assert "run 'sudo make test', or join the group docker" in process.stdout


def test_where_live_tests_are_required_a_skip_is_a_failure(tmp_path: Path) -> None:
    docker_host = f"unix://{tmp_path}/no-engine"
    process = pytest_run(LIVE, DOCKER_HOST=docker_host, POSTFIX_ARCHIVE_LIVE="required")
    assert process.returncode == 1
    assert "were skipped, and none may be" in process.stdout


@pytest.mark.slow
def test_each_outcome_in_the_container_is_the_outcome_here(tmp_path: Path) -> None:
    if not container.has_docker_engine():
        pytest.skip("no Docker engine answers: as root, tests/container/engine start")
    checkout = tmp_path / "checkout"
    ignore = shutil.ignore_patterns(*container.EXCLUDED_FILES)
    shutil.copytree(container.ROOT, checkout, ignore=ignore)
    (checkout / "tests/live/outcomes/test_outcomes.py").write_text(TEST_MODULE)
    process = pytest_run("tests/live/outcomes/test_outcomes.py", checkout=checkout)
    assert process.returncode == 1, process.stdout + process.stderr
    summary = process.stdout.splitlines()[-1]
    assert re.search("1 failed, 4 passed, 1 skipped, 1 xfailed, 1 error in", summary)
    assert '>       assert postfix.smtp_port == 25, "on purpose"' in process.stdout
    assert "said before" in process.stdout
    assert 'RuntimeError("in a fixture")' in process.stdout
    assert re.search(
        r"SKIPPED \[1\] tests/live/outcomes/test_outcomes.py:\d+: not", process.stdout
    )
