"""The installer, run as make(1) runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


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
