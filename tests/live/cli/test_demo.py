"""make demo does what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.live
DEMO = Path(__file__).resolve().parents[2] / "demo.py"


def test_the_demonstration_shows_mail_archived_once_and_how_to_look_at_it() -> None:
    run = subprocess.run(
        [sys.executable, DEMO], capture_output=True, text=True, check=False
    )
    folder = re.search(r"It runs in (\S+) ", run.stdout)
    assert folder, run.stderr
    try:
        assert run.returncode == 0, run.stdout
        assert "2 messages, each once" in run.stdout
        assert "Recipient: carol.bcc@example.net" in run.stdout
        assert (
            "supplement to the envelope, 7 header lines above the stamp" in run.stdout
        )
        assert Path(folder[1], "store", "legal@example.com", "journal").exists()
    finally:
        shutil.rmtree(folder[1])
