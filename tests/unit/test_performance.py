"""The page of figures says what the measurements say, and ratios are taken in pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench
import figures
import load
import page
import variants

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def test_the_page_is_made_from_the_measurements_beside_it() -> None:
    result = json.loads((DOCS / "bench.json").read_text())
    assert page.made(result) == (DOCS / "performance.md").read_text()
    assert page.picture(result) == (DOCS / "performance.svg").read_text()
    assert tuple(result["options"]["variants"]) == variants.NAMES
    assert result["options"]["rounds"] >= 5


def test_a_ratio_is_taken_round_by_round() -> None:
    # The machine was half as fast in the second round: the ratio has no spread.
    found = figures.ratio([50.0, 25.0], [100.0, 50.0])
    assert (found.lowest, found.middle, found.highest) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError):
        figures.ratio([1.0], [1.0, 2.0])


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(each) for each in range(1, 101)]
    assert figures.percentile(values, 50) == 50
    assert figures.percentile(values, 99) == 99
    assert figures.percentile([7.0], 99) == 7


@pytest.mark.parametrize("size", [4096, 200 * 1024])
def test_a_letter_has_its_size_and_is_always_the_same(size: int) -> None:
    assert len(load.letter(size)) == size
    assert load.letter(size) == load.letter(size)
    assert max(map(len, load.letter(size).splitlines())) < 998


def test_a_missed_aim_is_called_missed() -> None:
    rates = {variants.NULL_PIPE: [100.0], variants.PIPE: [84.0]}
    cells = {name: {"rate": rate, "cpu_ms": [1.0]} for name, rate in rates.items()}
    result = {"runs": {page.BAR: cells}}
    assert "| 0.85 | 0.84 (0.84–0.84) | missed |" in "\n".join(page._bars(result))
    cells[variants.PIPE]["rate"] = [86.0]
    assert "| reached |" in "\n".join(page._bars(result))


def test_what_a_process_costs_is_held_against_a_bare_one() -> None:
    values = {
        "bare": [9.0, 10.0],
        "archive": [18.0, 19.0],
        "archive-stamp": [27.0, 30.0],
    }
    lines = list(page._alone({"alone_cpu_ms": values}))
    assert "| archive | 18.50 (18.00–19.00) | 1.95 (1.90–2.00) | reached |" in lines
    assert (
        "| archive-stamp | 28.50 (27.00–30.00) | 3.00 (3.00–3.00) | missed |" in lines
    )


def test_options_come_by_words_or_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROUNDS", "7")
    options = bench.options_of(["--sizes", "4,8"])
    assert (options.rounds, options.sizes) == (7, [4, 8])
    with pytest.raises(SystemExit):
        bench.options_of(["--variants", "plain,fast"])
    assert "no such variant: fast" in capsys.readouterr().err
