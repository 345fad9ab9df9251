"""The benchmarks, very small: all is measured, and the page says so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_archive.store import verifier

import bench
import fill_store
import growth
import search_bench
import search_index_size
import variants

pytestmark = pytest.mark.live

LOAD = "4 KB, 1 rcpt, 2 sess"


def test_a_small_run_measures_every_variant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = "--rounds 2 --messages 6 --sizes 4 --recipients 1 --sessions 2"
    more_arguments = f"--latencies 2 --traced 3 --alone 2 --out {tmp_path}"
    bench.main(f"{arguments} {more_arguments}".split())
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
    profile = result["profile"]["cpu_ms"]
    for name, process in (
        ("plain", "smtpd"),
        ("pipe", "run by pipe archive-stamp"),
        ("lmtp", "archive-lmtp"),
        ("null-lmtp", "null_lmtp.py"),
    ):
        assert profile[name][process] > 0
    text = (tmp_path / "performance.md").read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    for name in variants.NAMES:
        assert f"| {name} |" in text
    assert "lmtp / null-lmtp" in text
    assert (tmp_path / "performance.svg").read_text().startswith("<svg")


@pytest.fixture
def store() -> Iterator[Path]:
    """A directory for a store, that the archive's user can get at."""
    directory = Path(tempfile.mkdtemp(prefix="pfa-grown-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


def test_a_small_growth_run_measures_both_modes_with_fuller_stores(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = "--rounds 2 --messages 5 --stored 0,30,100 --served 2,6 --large 2"
    growth.main(f"{arguments} --store {store} --out {tmp_path}".split())
    result = json.loads((tmp_path / "growth.json").read_text())
    assert list(result["rates"]) == ["pipe", "lmtp"]
    for by_count in result["rates"].values():
        assert list(by_count) == ["0", "30", "100"]
        assert all(min(cell["rate"] + cell["cpu_ms"]) > 0 for cell in by_count.values())
    assert list(result["served"]) == ["2", "6"]
    assert all(min(each.values()) > 1000 for each in result["served"].values())
    assert "archive-stamp" in result["large_kb"]["pipe"]
    assert "archive-lmtp" in result["large_kb"]["lmtp"]
    output = capsys.readouterr().out
    assert "| lmtp | 100 |" in output
    assert "| archive-lmtp |" in output


def test_filling_does_not_wait_for_the_disk(store: Path) -> None:
    command = [sys.executable, fill_store.__file__, str(store), "20"]
    path = os.pathsep.join(sys.path)
    log = store / "strace"
    traced = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", str(log)]
    subprocess.run(
        [*traced, *command], env={**os.environ, "PYTHONPATH": path}, check=True
    )
    assert log.read_text() == ""


def test_a_store_is_filled_with_valid_records_of_many_days(store: Path) -> None:
    fill_store.fill(store, [40])
    fill_store.fill(store, [40])  # nothing is added to what is there
    archive = store / fill_store.archive_address(40)
    result = verifier.verify_archive(str(archive))
    assert (result.findings, len(result.files)) == ([], 40)
    assert fill_store.archive_contents(store, 40)["messages"] == 40
    days = Counter(path.parent for path in archive.rglob("*.eml.gz"))
    assert sorted(days.values()) == [4] * 10


def test_a_small_search_run_finds_what_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("PATH", "/nowhere")  # without notmuch: 700 processes
    monkeypatch.setattr(search_bench, "REPETITIONS", 1)
    monkeypatch.setattr(search_index_size, "SAMPLE", 10)
    search_bench.main(f"--messages 60 --lag_messages 5 --out {tmp_path}".split())
    result = json.loads((tmp_path / "search.json").read_text())
    counts = [(row["query"], row["count"]) for row in result["queries"]]
    assert counts == [(row["query"], row["expected"]) for row in result["queries"]]
    assert max(count for _, count in counts) > 30
    assert result["index"]["child_cpu"] > 0
    assert 0 < max(result["lag"]["lags"])
    page_text = (tmp_path / "search-performance.md").read_text()
    assert "| counts of the queries | all exact | 200 of 200 | yes |" in page_text
    assert page_text in capsys.readouterr().out
