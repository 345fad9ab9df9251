"""docs/performance.md from bench.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import figures
import variants


def write(result: dict[str, Any], out: Path) -> str:
    """Write performance.md into a folder; return its text."""
    text = "\n".join(_ratios(result)) + "\n"
    (out / "performance.md").write_text(text)
    return text


def _ratios(result: dict[str, Any]) -> list[str]:
    lines = ["| load | ratio of messages/s | middle (lowest–highest) |", "|-|-|-|"]
    for each, by_name in result["runs"].items():
        for above, below in figures.RATIOS:
            if above in by_name and below in by_name:
                found = figures.ratio(by_name[above]["rate"], by_name[below]["rate"])
                lines.append(f"| {each} | {above} / {below} | {found} |")
    return lines
