"""make bench, very small: every variant is measured, and the page says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench
import variants

pytestmark = pytest.mark.live

LOAD = "4 KB, 1 rcpt, 2 sess"


def test_a_small_run_measures_every_variant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--rounds 2 --messages 6 --sizes 4 --recipients 1 --sessions 2"
    few = f"--latencies 2 --traced 3 --alone 2 --out {tmp_path}"
    bench.main(f"{words} {few}".split())
    result = json.loads((tmp_path / "bench.json").read_text())
    assert list(result["runs"]) == [LOAD]
    assert tuple(result["runs"][LOAD]) == variants.NAMES
    for cell in result["runs"][LOAD].values():
        assert len(cell["rate"]) == 2
        assert min(cell["rate"] + cell["cpu_ms"]) > 0
    assert all(len(each) == 4 for each in result["latency_ms"]["4 KB"].values())
    traced = result["traced"]["4 KB"]
    assert traced["plain"]["fsyncs"] >= 1
    assert traced["pipe"]["fsyncs"] > traced["null-pipe"]["fsyncs"]
    assert traced["lmtp"]["fsyncs"] > traced["null-lmtp"]["fsyncs"]
    assert "archive-lmtp" in traced["lmtp"]["memory_kb"]
    assert set(result["alone_cpu_ms"]) == {"bare", "archive-stamp", "archive"}
    text = (tmp_path / "performance.md").read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    for name in variants.NAMES:
        assert f"| {name} |" in text
    assert "lmtp / null-lmtp" in text
    assert (tmp_path / "performance.svg").read_text().startswith("<svg")
