"""Claims about search: it finds what is there, all of it, in order, and nothing else.

queries.tsv has a query a line and after a tab the names of the mails of corpus that it
must find, ``-`` for none.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postfix_archive.errors import IndexMissing, QueryInvalid
from postfix_archive.search import index_reader, query_syntax, search
from postfix_archive.search.index_engine import ORDERS
from postfix_archive.search.query_fields import FIELDS as FIELDS_OF_QUERIES

from unit.search import brute_force, corpus
from unit.search.index_helpers import catch_up, names_found, settings_of

CASES = [
    line.split("\t")
    for line in (Path(__file__).parent / "queries.tsv").read_text().splitlines()
]
WORDS = "contract friday meeting bob anna example.com 東京 京 合同 회의 café".split()
FIELDS = "subject body from to rcpt bcc sender file cc".split()
TERMS = (
    [*WORDS, *(f"{field}:{word}" for field in FIELDS for word in WORDS)]
    + "has:attachment type:pdf size:>10k outcome:delivered archive:hr*".split()
    + "sent:>2026-02-01 from:@example.org fri* stamp:absent -contract *".split()
    + ['"the contract"', 'to:"bob example"', "date:[2025-12-22 TO 2026-01-10]"]
)
trees = st.recursive(
    st.sampled_from(TERMS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda e: f"({' AND '.join(e)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda e: f"({' OR '.join(e)})"),
        inner.map(lambda each: f"(* NOT ({each}))"),
    ),
    max_leaves=6,
)


@pytest.fixture(autouse=True)
def local_time() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def test_there_are_as_many_cases_as_the_language_needs() -> None:
    assert len(CASES) >= 300
    assert len({query for query, _ in CASES}) == len(CASES)


@pytest.mark.parametrize("index", ["stored", "caught_up"])
def test_each_query_finds_what_it_must(
    index: str, request: pytest.FixtureRequest
) -> None:
    store = request.getfixturevalue(index)
    wrong = {
        query: found
        for query, expected in CASES
        if (found := " ".join(names_found(store, query, "oldest")) or "-") != expected
    }
    assert wrong == {}


def test_a_mail_by_mail_look_finds_the_same() -> None:
    wrong = {
        query: found
        for query, expected in CASES
        if (found := brute_force.names_found(query_syntax.parse(query)))
        != set(expected.split()) - {"-"}
    }
    assert wrong == {}


@given(query=trees)
@settings(max_examples=60)
def test_any_combination_finds_what_a_mail_by_mail_look_finds(
    stored: Path, query: str
) -> None:
    expected = brute_force.names_found(query_syntax.parse(query))
    assert set(names_found(stored, query)) == expected
    assert search.Search(settings_of(stored), query).count() == len(expected)


@given(
    query=st.text(max_size=30)
    | st.text("()\"'*:<>[]{}~^/\\-+!&|?.@ aTO1東", max_size=20)
)
@settings(max_examples=150)
def test_any_text_is_a_query_or_has_a_place_of_error(stored: Path, query: str) -> None:
    try:
        search.Search(settings_of(stored), query).count()
        names_found(stored, query)
    except QueryInvalid as error:
        assert 0 <= error.position <= len(query)
        assert str(error)
        assert "\n" not in str(error)


@given(data=st.data())
@settings(max_examples=100)
def test_any_value_of_a_field_is_found_or_refused(
    stored: Path, data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(sorted(FIELDS_OF_QUERIES)))
    value = data.draw(
        st.text(max_size=12)
        | st.from_regex(r"[0-9]{1,5}[-/. ]?[0-9a-zA-Z:+ ]{0,12}", fullmatch=True)
    )
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    for query in (f'{field}:"{quoted}"', f'{field}:["{quoted}" TO *]'):
        try:
            names_found(stored, query)
        except QueryInvalid as error:
            assert 0 <= error.position <= len(query)


@pytest.mark.parametrize("sort", ORDERS)
@pytest.mark.parametrize(
    "query", ["*", "contract OR friday OR 京", "from:anna", "size:>400"]
)
@pytest.mark.parametrize("limit", [1, 7])
def test_pages_follow_each_other_without_gap_or_repetition(
    stored: Path, query: str, sort: str, limit: int
) -> None:
    whole = [
        each.archive_id
        for each in search.Search(settings_of(stored), query, sort=sort).hits()
    ]
    paged: list[str] = []
    after = ""
    while True:
        page = search.search(
            settings_of(stored), query, limit=limit, after=after, sort=sort
        )
        assert len(page.hits) <= limit
        paged += [each.archive_id for each in page.hits]
        after = page.next
        if not after:
            break
    assert paged == whole
    assert len({*whole}) == len(whole)


def test_the_order_is_that_of_times_or_sizes(stored: Path) -> None:
    newest = names_found(stored, "*")
    assert newest == [each.name for each in reversed(corpus.MAILS)]
    assert names_found(stored, "*", "oldest") == newest[::-1]
    by_size = sorted(corpus.MAILS, key=lambda each: (len(each.message), each.arrival))
    assert names_found(stored, "*", "smallest") == [each.name for each in by_size]
    assert names_found(stored, "*", "largest") == [each.name for each in by_size[::-1]]


def test_mail_that_was_archived_late_is_sorted_by_its_own_date(tmp_path: Path) -> None:
    """As an import does it, in any order."""
    store = tmp_path / "store"
    store.mkdir()
    mails = [*corpus.MAILS[4:8], *corpus.MAILS[16:19], *corpus.MAILS[:4]]
    for mail in mails:
        mail.store_in(store)
    catch_up(store)
    by_date = sorted(mails, key=lambda each: each.arrival)
    assert names_found(store, "*", "date-oldest") == [each.name for each in by_date]
    assert names_found(store, "*", "date") == [each.name for each in by_date[::-1]]
    some = names_found(store, "the", "date")
    assert some == [each.name for each in by_date[::-1] if each.name in some]
    page, after = list[str](), ""
    while not page or after:
        found = search.search(
            settings_of(store), "*", limit=2, after=after, sort="date"
        )
        page += [corpus.BY_ID[each.archive_id].name for each in found.hits]
        after = found.next
    assert page == [each.name for each in by_date[::-1]]


def test_a_hit_says_what_a_list_shows(stored: Path) -> None:
    [hit] = search.Search(settings_of(stored), "bcc:secret archive:legal*").hits()
    mail = corpus.BY_ID[hit.archive_id]
    assert hit.archive == mail.archive
    assert hit.arrived == hit.archived == mail.arrival.timestamp()
    assert hit.sent == mail.arrival.timestamp() - 120
    assert hit.size == len(mail.message)
    assert hit.sender == "anna.meier@example.org"
    assert hit.recipient_count == 2
    assert hit.attachment_count == 1
    assert hit.subject == "Team meeting"
    assert len(hit.offsets) == 3


def test_only_some_archives(stored: Path) -> None:
    found = search.Search(settings_of(stored), "*", archives=["hr@example.com"])
    names = [corpus.BY_ID[each.archive_id].name for each in found.hits()]
    assert names == ["hr-warning", "hr-leave", "hr-offer"]


@pytest.mark.parametrize(
    ("query", "position", "text"),
    [
        ('contract "half', 9, "quote"),
        ("(contract", 9, "too early"),
        ("contract AND", 12, "too early"),
        ("contract)", 8, "unexpected"),
        ("colour:red", 0, "no field colour"),
        ("fri*day", 3, "end of a word"),
        ("contract ~2", 0, "~ is not supported"),
        ("contract~2", 0, "~ is not supported"),
        ("-" * 60 + "a", 41, "more than 40"),
        ("NOT " * 60 + "a", 164, "more than 40"),
        ("(" * 60 + "a" + ")" * 60, 41, "more than 40"),
        ("contract^2", 0, "is not supported"),
        ("/con.*/", 0, "regular expressions"),
        ("a size:>5X", 7, "not a size"),
        ("a date:soon", 7, "not a date"),
        ("a date:[2026-13-01 TO *]", 7, "not a date"),
        ("newer_than:7", 11, "not an age"),
        ("a outcome:lost", 10, "no outcome"),
        ("has:wings", 4, "no has:wings"),
        ("subject:[a TO b]", 8, "no ranges"),
        ("[a TO b]", 0, "needs a field"),
        ("a ... b", 2, "no letter"),
        ("sha256:xyz", 7, "not a SHA-256"),
        ("from:(subject:x)", 6, "field in it"),
        ("", 0, "empty"),
        ("msgid:abc*", 6, "whole value"),
        ("a <>", 2, "nothing to search for"),
        ("rcpt:<>", 5, "nothing to search for"),
        ("sender:*", 7, "nothing to search for"),
    ],
)
def test_an_error_names_its_place(
    stored: Path, query: str, position: int, text: str
) -> None:
    with pytest.raises(QueryInvalid) as raised:
        search.Search(settings_of(stored), query)
    assert text in str(raised.value)
    assert raised.value.position == position


def test_a_query_without_end_is_refused(stored: Path) -> None:
    for query in ("(" * 500 + "a" + ")" * 500, "a " * 600, "x" * 20_000, "-" * 3000):
        with pytest.raises(QueryInvalid):
            search.Search(settings_of(stored), query)


def test_without_an_index_it_says_how_to_make_one(stored: Path, tmp_path: Path) -> None:
    settings = settings_of(stored)
    settings.archive_index_directory = str(tmp_path)
    with pytest.raises(IndexMissing, match="postfix-archive index"):
        search.Search(settings, "contract")
    settings.archive_store_directory = str(tmp_path)
    with pytest.raises(IndexMissing, match="no archive"):
        search.Search(settings, "contract")


def test_sqlite_is_as_old_as_it_may_be() -> None:
    assert sqlite3.sqlite_version_info >= (3, 40)


def test_the_documentation_names_every_field() -> None:
    text = (Path(__file__).parents[3] / "docs" / "searching.md").read_text()
    table = text.partition("## The query language")[2].partition("## The index")[0]
    examples = " ".join(re.findall("`([^`]+)`", table))
    documented = {*re.findall(r"(?:^|[ (-])([a-z0-9_]+):", examples)} - {"http"}
    assert documented == {*FIELDS_OF_QUERIES}


@pytest.mark.parametrize("sort", ORDERS)
@pytest.mark.parametrize("query", ["*", "from:anna", "client:192.0.2.7 OR friday"])
def test_a_long_stream_is_read_in_parts(
    stored: Path, query: str, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = names_found(stored, query, sort)
    monkeypatch.setattr(index_reader, "CHUNK_SIZE", 2)
    monkeypatch.setattr(index_reader, "MAX_CHUNK_SIZE", 5)
    found = search.Search(settings_of(stored), query, sort=sort)
    names = [corpus.BY_ID[each.archive_id].name for each in found.hits(first=2)]
    assert names == expected
