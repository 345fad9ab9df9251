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
OUTCOMES = """
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


def test_without_an_engine_live_tests_are_skipped_and_the_cure_named(
    tmp_path: Path,
) -> None:
    run = pytest_run(LIVE, DOCKER_HOST=f"unix://{tmp_path}/no-engine")
    assert run.returncode == 0, run.stdout
    assert "run 'sudo make test', or join the group docker" in run.stdout


def test_where_live_tests_are_required_a_skip_is_a_failure(tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/no-engine"
    run = pytest_run(LIVE, DOCKER_HOST=nowhere, POSTFIX_ARCHIVE_LIVE="required")
    assert run.returncode == 1
    assert "were skipped, and none may be" in run.stdout


@pytest.mark.slow
def test_each_outcome_in_the_container_is_the_outcome_here(tmp_path: Path) -> None:
    if not container.engine_answers():
        pytest.skip("no Docker engine answers: as root, tests/container/engine start")
    checkout = tmp_path / "checkout"
    without = shutil.ignore_patterns(*container.NOT_SENT)
    shutil.copytree(container.ROOT, checkout, ignore=without)
    (checkout / "tests/live/outcomes/test_outcomes.py").write_text(OUTCOMES)
    run = pytest_run("tests/live/outcomes/test_outcomes.py", checkout=checkout)
    assert run.returncode == 1, run.stdout + run.stderr
    last = run.stdout.splitlines()[-1]
    assert re.search("1 failed, 4 passed, 1 skipped, 1 xfailed, 1 error in", last)
    assert '>       assert postfix.smtp_port == 25, "on purpose"' in run.stdout
    assert "said before" in run.stdout
    assert 'RuntimeError("in a fixture")' in run.stdout
    assert re.search(
        r"SKIPPED \[1\] tests/live/outcomes/test_outcomes.py:\d+: not", run.stdout
    )
