"""The installer, run as make(1) runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from postfix_archive.postfix import reference

from private_postfix import ROOT


def test_an_older_python_is_refused_in_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")  # as for sys.version_info < (3, 11)
    old.chmod(0o755)
    process = subprocess.run(
        [ROOT / "tests" / "prepare", "demo"],
        env={**os.environ, "PYTHON": str(old)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr == (
        f"prepare: PYTHON={old}: not Python 3.11 or later; give the path of one\n"
    )


def test_an_error_is_one_line(tmp_path: Path) -> None:
    """Also without any package (python -S): make install runs before they are there."""
    environment = {**os.environ, "CONFIG_DIRECTORY": str(tmp_path / "missing")}
    process = subprocess.run(
        [sys.executable, "-S", "-m", "postfix_archive.install.main", "uninstall"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.startswith("uninstall: ")
    assert len(process.stderr.splitlines()) == 1


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "DESTDIR": str(tmp_path), "DRY_RUN": "yes"}
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "postfix_archive.install.main", "install"],
            cwd=reference.PACKAGE.parent,
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    expected = "install: done, but standard output: No space left on device\n"
    assert (process.returncode, process.stderr) == (1, expected)
