"""The page of figures says what the measurements say, and ratios are taken in pairs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bench
import cpu_shares
import figures
import growth_section
import load
import page
import targets
import variants

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_page_is_made_from_the_measurements_beside_it() -> None:
    result = page.read(DOCS / page.BENCH)
    page_text = page.render(result, page.read(DOCS / page.GROWTH))
    assert page_text == (DOCS / "performance.md").read_text()
    assert page.picture(result) == (DOCS / "performance.svg").read_text()
    assert set(result["options"]["variants"]) == set(variants.NAMES)
    assert result["options"]["rounds"] >= 5


def test_the_growth_run_of_the_page_is_the_one_that_the_targets_need() -> None:
    options = page.read(DOCS / page.GROWTH)["options"]
    assert (options["stored"], options["large"]) == ([0, 100_000, 1_000_000], 200)
    assert {1000, 50_000} <= set(options["served"])
    assert options["rounds"] >= 5
    text = (DOCS / "performance.md").read_text()
    assert len(re.findall(r"\| (?:reached|missed by \d+%) \|", text)) == 20


def test_the_page_names_the_measured_version_and_its_date() -> None:
    for name in (page.BENCH, page.GROWTH):
        machine = page.read(DOCS / name)["machine"]
        assert machine["commit"] and re.fullmatch(r"\d{4}-\d\d-\d\d", machine["date"])
        assert (
            growth_section.describe_program({"machine": machine})
            in (DOCS / "performance.md").read_text()
        )


def test_a_ratio_is_taken_round_by_round() -> None:
    # The machine was half as fast in the second round: the ratio has no spread.
    ratio = figures.ratio([50.0, 25.0], [100.0, 50.0])
    assert (ratio.lowest, ratio.middle, ratio.highest) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError):
        figures.ratio([1.0], [1.0, 2.0])


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(each) for each in range(1, 101)]
    assert figures.percentile(values, 50) == 50
    assert figures.percentile(values, 99) == 99
    assert figures.percentile([7.0], 99) == 7


def test_where_mail_is_fast_more_is_sent_and_of_heavy_mail_less() -> None:
    small, heavy = load.Load(4096, 1, 1), load.Load(200 * 1024, 50, 20)
    assert (small.messages(160), small.messages(160, is_fast=True)) == (160, 480)
    assert heavy.messages(160) == 20  # one a session at least


@pytest.mark.parametrize("size", [4096, 200 * 1024])
def test_a_message_has_its_size_and_is_always_the_same(size: int) -> None:
    assert len(load.make_message(size)) == size
    assert load.make_message(size) == load.make_message(size)
    assert max(map(len, load.make_message(size).splitlines())) < 998


def test_a_missed_target_is_called_missed() -> None:
    rates = {variants.NULL_PIPE: [100.0], variants.PIPE: [68.0]}
    cells = {name: {"rate": rate, "cpu_ms": [1.0]} for name, rate in rates.items()}
    result = {"runs": {targets.TARGET_LOAD: cells}}
    row_start = "messages/s, pipe / null-pipe | ≥ 0.85"
    assert f"| {row_start} | 0.68 | missed by 20% |" in list(
        targets.section(result, {})
    )
    cells[variants.PIPE]["rate"] = [86.0]
    assert f"| {row_start} | 0.86 | reached |" in list(targets.section(result, {}))


def test_what_a_process_costs_is_held_against_a_bare_one() -> None:
    values = {
        "bare": [9.0, 10.0],
        "archive": [18.0, 19.0],
        "archive-stamp": [27.0, 30.0],
    }
    result = {"alone_cpu_ms": values}
    lines = list(page._alone(result))
    assert "| archive | 18.50 (18.00–19.00) | 1.95 (1.90–2.00) |" in lines
    reached, missed = list(targets.section(result, {}))[-2:]
    assert reached.endswith("| ≤ 2.00 | 1.95 (1.90–2.00) | reached |")
    assert missed.endswith("| ≤ 2.00 | 3.00 | missed by 50% |")


def test_a_fuller_store_and_a_worker_of_age_are_held_against_young_ones() -> None:
    growth = {
        "options": {"large": 200},
        "rates": {"lmtp": {"1000000": cell(94.0), "0": cell(100.0)}},
        "served": {"1000": {"rss_kb": 14000}, "50000": {"rss_kb": 15000}},
        "large_kb": {"lmtp": {"archive-lmtp": 20480, "archive": 66560}},
    }
    assert list(targets.section({}, growth))[-3:] == [
        "| messages/s, lmtp, 1,000,000 stored / none | ≥ 0.95 | 0.94 | missed by 1% |",
        "| memory of a worker after 50,000 messages / 1,000 | ≤ 1.10 | 1.07 "
        "| reached |",
        "| MB, lmtp, the largest process with a message of 200 MB | ≤ 64.00 | 65.00 "
        "| missed by 2% |",
    ]


def cell(rate: float) -> dict[str, list[float]]:
    """A load's figures, with one round."""
    return {"rate": [rate], "cpu_ms": [1.0]}


def test_the_profile_shows_what_costs_something_and_adds_up() -> None:
    spent = {"smtpd": 0.5, "anvil": 0.01, cpu_shares.REST: 0.2}
    profile = {variants.PLAIN: spent, variants.PIPE: {"run by pipe archive": 20.0}}
    result = {
        "profile": {"load": targets.TARGET_LOAD, "cpu_ms": profile},
        "options": {"variants": list(profile)},
    }
    assert list(page._profile(result))[-4:] == [
        "| run by pipe archive |  | 20.00 |",
        "| smtpd | 0.50 |  |",
        "| what began and ended | 0.20 |  |",
        "| all | 0.71 | 20.00 |",
    ]


def test_the_profile_shows_where_ours_costs_more_than_the_null_filter() -> None:
    profile = {
        variants.NULL_LMTP: {"null_lmtp.py": 0.2, "qmgr": 0.5, "smtpd": 0.3},
        variants.LMTP: {"archive-lmtp": 2.0, "qmgr": 0.75, "smtpd": 0.32},
    }
    assert page._difference(profile, variants.LMTP, variants.NULL_LMTP) == (
        "lmtp compared with null-lmtp, +2.07 ms:"
        " archive-lmtp +2.00, qmgr +0.25, null_lmtp.py -0.20."
    )


def test_options_come_from_arguments_or_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROUNDS", "7")
    options = bench.options_of(["--sizes", "4,8"])
    assert (options.rounds, options.sizes) == (7, [4, 8])
    with pytest.raises(SystemExit):
        bench.options_of(["--variants", "plain,fast"])
    assert "no such variant: fast" in capsys.readouterr().err


def test_another_archive_gets_the_copies_of_always_bcc() -> None:
    main = variants._main(variants.BCC_SMTP, "archive.example.net:2525")
    assert main == {
        "always_bcc": "copy@peer.example.com",
        "transport_maps": "inline:{peer.example.com=smtp:[archive.example.net]:2525}",
    }
    options = bench.options_of(["--piler", "127.0.0.1:25"])
    assert options.variants == [*variants.NAMES, variants.BCC_SMTP]
    with pytest.raises(SystemExit):
        bench.options_of(["--piler", "127.0.0.1"])


def test_the_modes_are_compared_with_what_was_measured_of_them() -> None:
    result = {
        "runs": {targets.TARGET_LOAD: {"pipe": cell(8.0), "always_bcc": cell(80.0)}}
    }
    assert "| messages/s / always_bcc | 0.10 | not measured |" in "\n".join(
        page._modes(result)
    )
    assert all(len(row) == 5 for row in page.MODES)


def test_what_a_native_mode_costs_is_held_against_its_targets() -> None:
    result = {
        "profile": {
            "load": targets.TARGET_LOAD,
            "cpu_ms": {variants.NATIVE_LMTP: {"archive-lmtp": 0.9}},
        },
        "latency_ms": {"4 KB": {"plain": [2.0], variants.NATIVE_LMTP: [3.0]}},
    }
    worker, latency = list(targets.section(result, {}))[-2:]
    assert worker.endswith("| ≤ 1.00 | 0.90 | reached |")
    assert latency.endswith("| ≤ 1.20 | 1.50 | missed by 25% |")
