"""docs/search-performance.md says what docs/search.json says."""

from __future__ import annotations

import json
import re

import search_page
from private_postfix import ROOT

DOCS = ROOT / "docs"


def test_the_page_is_made_from_the_figures() -> None:
    result = json.loads((DOCS / search_page.DATA).read_text())
    assert search_page.render(result) == (DOCS / search_page.PAGE).read_text()


def test_every_missed_bar_has_a_reason() -> None:
    text = (DOCS / search_page.PAGE).read_text()
    missed = re.findall(r"^\| (.+?) \|.*\*\*no\*\* \|$", text, re.M)
    words = " ".join(text.split())
    assert all(f"* {each}: " in words for each in missed)
