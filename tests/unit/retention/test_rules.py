"""Claims about retention rules: periods, the file, which rule counts."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.config import retention_period
from postfix_archive.errors import IndexFailed, RetentionRuleInvalid, SettingInvalid
from postfix_archive.retention import rules
from postfix_archive.search import index_update
from postfix_archive.search.match import Matcher

from sample_store import ARRIVAL, LEGAL, SampleStore
from unit.examples import make_settings
from unit.retention.stores import index

HR = "hr@example.com"
LEAP_DAY = datetime.date(2028, 2, 29)


@pytest.mark.parametrize(
    ("arrived", "period", "last_day"),
    [
        (LEAP_DAY, "1y", datetime.date(2029, 2, 28)),
        (LEAP_DAY, "4y", datetime.date(2032, 2, 29)),
        (LEAP_DAY, "12mo", datetime.date(2029, 2, 28)),
        (LEAP_DAY, "365d", datetime.date(2029, 2, 28)),
        (LEAP_DAY, "1w", datetime.date(2028, 3, 7)),
        (datetime.date(2026, 8, 31), "18mo", datetime.date(2028, 2, 29)),
        (datetime.date(2026, 12, 31), "2mo", datetime.date(2027, 2, 28)),
        (datetime.date(2026, 11, 30), "10Y", datetime.date(2036, 11, 30)),
        (datetime.date(2026, 11, 30), "permanent", None),
    ],
)
def test_periods_follow_the_calendar(
    arrived: datetime.date, period: str, last_day: datetime.date | None
) -> None:
    assert rules.last_day(arrived, retention_period.parse(period)) == last_day


@pytest.mark.parametrize(
    ("period", "text"),
    [
        ("10", "years (10y), months (10mo), weeks (10w) or days (10d)?"),
        ("10m", "months are 10mo"),
        ("10x", "no unit 'x'"),
        ("0d", "from 1 day to 1000 years"),
        ("1001y", "from 1 day to 1000 years"),
        ("999999d", "from 1 day to 1000 years"),
        ("ten", "write 10y, 18mo, 12w, 90d or permanent"),
        ("1y6mo", "is not a period"),
        ("-1y", "is not a period"),
        ("١y", "is not a period"),
        ("9" * 5000 + "d", "is not a period"),
    ],
)
def test_a_period_that_is_none_says_what_one_is(period: str, text: str) -> None:
    with pytest.raises(ValueError, match="period|unit") as raised:
        retention_period.parse(period)
    assert text in str(raised.value)


def test_each_archive_has_one_period() -> None:
    settings = make_settings(
        "archive_retention = Legal@example.com=10y, board@example.com=permanent\n"
        "archive_purge_limit = 12 %\n"
    )
    assert settings.archive_retention == {
        "legal@example.com": (10, "y"),
        "board@example.com": retention_period.PERMANENT,
    }
    assert settings.archive_purge_limit == 12


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("archive_retention = legal@example.com=10", "10 what? years (10y)"),
        ("archive_retention = legal@example.com", "must be address=period"),
        ("archive_retention = 10y", "must be address=period"),
        ("archive_retention = a@b.c=1y, A@b.c=2y", "each address once"),
        ("archive_purge_limit = 5", "a percentage from 0% to 100%"),
        ("archive_purge_limit = 101%", "a percentage from 0% to 100%"),
        ("archive_purge_limit = -1%", "a percentage from 0% to 100%"),
    ],
)
def test_an_invalid_setting_is_named(line: str, text: str) -> None:
    with pytest.raises(SettingInvalid) as raised:
        make_settings(f"{line}\n")
    assert "/archive.cf, line 1: " in str(raised.value) and text in str(raised.value)


def write_rules(store: SampleStore, *lines: str) -> None:
    (store.directory / "archive.retention").write_text("\n".join(lines) + "\n")


def set_retention(store: SampleStore, value: str) -> None:
    with (store.directory / "archive.cf").open("a") as file:
        file.write(f"archive_retention = {value}\n")


@pytest.mark.parametrize(
    ("line", "place", "text"),
    [
        ("subject:invoice 10", "line 2, column 17: ", "10 what? years (10y)"),
        ("10y", "line 2, column 1: ", "a query is missing"),
        ("subject:(a b 10y", "line 2, column 13: ", "the query ends too early"),
        ("  nofield:a 10y", "line 2, column 3: ", "there is no field nofield"),
        ("subject:invoice", "line 2, column 1: ", "a query is missing"),
        ("size:>many 1y", "line 2, column 6: ", "is not a size"),
    ],
)
def test_a_rule_that_cannot_be_read_is_named_with_its_place(
    tmp_path: Path, line: str, place: str, text: str
) -> None:
    store = SampleStore(tmp_path)
    write_rules(store, "# rules", line, "* permanent")
    with pytest.raises(RetentionRuleInvalid) as raised:
        rules.load(store.settings)
    message = str(raised.value)
    assert f"{tmp_path}/archive.retention, {place}" in message
    assert text in message and "\n" not in message


@pytest.mark.parametrize("content", [b"\xff\xfe 10y\n", None])
def test_a_file_that_cannot_be_read_is_no_file_without_rules(
    tmp_path: Path, content: bytes | None
) -> None:
    store = SampleStore(tmp_path)
    path = tmp_path / "archive.retention"
    path.write_bytes(content) if content else path.mkdir()
    with pytest.raises(RetentionRuleInvalid, match="archive.retention: "):
        rules.load(store.settings)


def test_the_first_rule_that_matches_counts(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    set_retention(store, f"{LEGAL}=10y")
    write_rules(
        store, "subject:invoice AND rcpt:tax@example.com  6y", "subject:invoice  8y"
    )
    tax = store.add(b"Subject: invoice\r\n\r\n", recipients=(b"tax@example.com",))
    invoice = store.add(b"Subject: Invoice 7\r\n\r\n")
    other = store.add(b"Subject: hello\r\n\r\n")
    elsewhere = store.add(b"Subject: hello\r\n\r\nx\r\n", archive=HR)
    for archive in (LEGAL, HR):
        index_update.catch_up(store.settings, archive, print)
    loaded = rules.load(store.settings)
    decisions = loaded.decide(LEGAL, [tax, invoice, other])
    assert [decisions[e].until_text for e in (tax, invoice, other)] == [
        "2032-11-22",
        "2034-11-22",
        "2036-11-22",
    ]
    assert decisions[tax].rule == "subject:invoice AND rcpt:tax@example.com"
    assert decisions[other].rule == "archive_retention"
    assert loaded.decide(HR, [elsewhere]) == {elsewhere: rules.KEPT_FOR_EVER}


def test_without_any_rule_nothing_is_asked_of_the_index(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    one = store.add(b"Subject: hello\r\n\r\n")
    loaded = rules.load(store.settings)
    assert loaded.decide(LEGAL, [one]) == {one: rules.KEPT_FOR_EVER}


def test_a_record_that_the_index_lacks_is_not_decided(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    set_retention(store, f"{LEGAL}=10y")
    store.add(b"Subject: hello\r\n\r\n")
    index_update.catch_up(store.settings, LEGAL, print)
    late = store.add(b"Subject: late\r\n\r\n", arrival=ARRIVAL + 1)
    with pytest.raises(IndexFailed, match=late):
        rules.load(store.settings).decide(LEGAL, [late])


def test_more_records_than_one_statement_of_sql_takes(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    set_retention(store, f"{LEGAL}=1d")
    ids = [store.add(b"Subject: %d\r\n\r\n" % number) for number in range(310)]
    index_update.catch_up(store.settings, LEGAL, print)
    decisions = rules.load(store.settings).decide(LEGAL, ids)
    assert {each.until_text for each in decisions.values()} == {"2026-11-23"}
    assert len(decisions) == 310


def test_an_index_that_vanishes_meanwhile_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SampleStore(tmp_path)
    with (tmp_path / "archive.cf").open("a") as file:
        file.write(f"archive_retention = {LEGAL}=1y\n")
    archive_id = store.add(b"Subject: x\r\n\r\n")
    index(store)

    def vanishing(*arguments: Any) -> Matcher:
        matcher = Matcher(*arguments)
        (tmp_path / "index" / LEGAL / "2026.db").unlink()
        return matcher

    monkeypatch.setattr(rules, "Matcher", vanishing)
    with pytest.raises(IndexFailed, match="has changed meanwhile"):
        rules.load(store.settings).decide(LEGAL, [archive_id])
