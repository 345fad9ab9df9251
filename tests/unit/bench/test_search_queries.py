"""The queries of make bench-search, and what they are expected to find."""

from __future__ import annotations

import search_queries


def test_queries_are_the_same_in_each_run() -> None:
    queries = [each.text for each in search_queries.make(100)]
    assert queries == [each.text for each in search_queries.make(100)]
    assert len(queries) == search_queries.COUNT


def test_expected_counts_ignore_case_and_accents() -> None:
    assert search_queries.words_of("Été, über_all 12") == ["ete", "uber_all", "12"]
