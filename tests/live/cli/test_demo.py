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
    process = subprocess.run(
        [sys.executable, DEMO], capture_output=True, text=True, check=False
    )
    directory = re.search(r"It runs in (\S+) ", process.stdout)
    assert directory, process.stderr
    try:
        assert process.returncode == 0, process.stdout
        assert "2 messages, each once" in process.stdout
        assert "Recipient: carol.bcc@example.net" in process.stdout
        assert (
            "supplement to the envelope, 7 header lines above the stamp"
            in process.stdout
        )
        # What search finds.
        assert re.search(r"^ *[0-9]{8}-[0-9a-f]{40}\t.*\t2\t", process.stdout, re.M)
        assert re.search(r"Messages exported to \S+: 1\.", process.stdout)
        assert re.search(r"^    From alice@example\.org ", process.stdout, re.MULTILINE)
        assert Path(directory[1], "store", "legal@example.com", "journal").exists()
    finally:
        shutil.rmtree(directory[1])
