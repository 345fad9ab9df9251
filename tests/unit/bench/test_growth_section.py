"""The growth run compares what it says, and its section of the page tells it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import cpu_shares
import fill_store
import growth
import growth_section

GROWTH: dict[str, Any] = {
    "machine": {"version": "1.0", "commit": "", "date": "2026-11-25", "load_before": 1},
    "options": {"stored": [0, 1000000], "rounds": 2, "messages": 50, "large": 200},
    "held": {
        "0": {"messages": 0, "today": 0, "journal": 0},
        "1000000": {"messages": 1000123, "today": 100123, "journal": 1301000000},
    },
    "rates": {
        "lmtp": {
            "0": {"rate": [40.0, 20.0], "cpu_ms": [30.0, 30.0]},
            "1000000": {"rate": [38.0, 20.0], "cpu_ms": [31.0, 31.0]},
        }
    },
    "served": {"1000": {"rss_kb": 14336, "peak_kb": 15360, "private_kb": 5120}},
    "large_kb": {"lmtp": {"archive-lmtp": 20480}},
}


@pytest.mark.parametrize(("count", "days"), [(100_000, 9), (1_000_000, 90), (50, 9)])
def test_a_tenth_of_a_store_is_of_today_and_the_rest_of_days_before(
    count: int, days: int
) -> None:
    days_ago = Counter(fill_store._days_ago(number, count) for number in range(count))
    assert days_ago.pop(0) == count // 10
    assert sorted(days_ago) == list(range(1, days + 1))
    assert max(days_ago.values()) <= fill_store.MAX_PER_DAY


def test_mail_comes_in_the_order_of_its_days() -> None:
    days = [fill_store._days_ago(number, 2000) for number in range(2000)]
    assert days == sorted(days, reverse=True)


def test_the_section_holds_each_archive_against_the_empty_one() -> None:
    lines = list(growth_section.section(GROWTH))
    assert "version 1.0, 2026-11-25; load average at the start 1.0." in lines
    assert "| 1,000,000 | 1,000,123 | 100,123 | 1,301 |" in lines
    assert "| lmtp | 1,000,000 | 29.0 | 0.97 (0.95–1.00) | 31.0 |" in lines
    assert "| 1,000 | 14.00 | 15.00 | 5.00 |" in lines
    assert "| lmtp | archive-lmtp | 20.0 |" in lines


def test_without_a_growth_run_the_page_has_no_such_section() -> None:
    assert not list(growth_section.section({}))


@pytest.mark.parametrize("stored", ["0", "1000,2000"])
def test_there_is_nothing_to_compare_without_an_empty_archive_and_another(
    stored: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        growth.options_of(["--stored", stored])
    assert "0 and at least one other number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command_line", "name"),
    [
        ("smtpd -n 127.0.0.1:11025 -t inet -u", "smtpd"),
        ("smtpd -n 127.0.0.1:11026 -t inet -u", "smtpd archive-handback"),
        ("cleanup -z -t unix -u", "cleanup"),
        ("cleanup -n archive-cleanup -z -t unix -u", "cleanup archive-cleanup"),
        ("pipe -n archive -t unix user=nobody", "pipe archive"),
        ("/usr/lib/postfix/sbin/master -w", "master"),
        ("/usr/bin/python3 -IS /x/archive-lmtp --nexthop a@b.c", "archive-lmtp"),
        ("/usr/bin/python3 -I -S /x/null_lmtp.py 11026", "null_lmtp.py"),
    ],
)
def test_cpu_is_attributed_to_the_service_that_uses_it(
    command_line: str, name: str
) -> None:
    ports = {11025: "", 11026: "archive-handback"}
    assert cpu_shares._process_name(command_line.split(), ports) == name
