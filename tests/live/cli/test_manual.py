"""The manual pages are such as man(1) shows them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from private_postfix import ROOT

pytestmark = pytest.mark.live
PAGES = sorted((ROOT / "postfix_archive" / "man").glob("*.[15]"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_has_nothing_to_say(page: Path) -> None:
    process = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", page],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stdout == ""
    assert process.returncode == 0
