"""Claims about the names that one queue file may have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.message import queue_ids

LONG = b"4jZ3353p6zzJBM6"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (LONG, LONG),
        (LONG, b"4jZ3353p6zzJC1q"),  # postsuper -S on another disk
        (LONG, b"82CCB20CC19"),  # as Postfix 3.7 renamed it: ids are short now
        (b"82CCB20CC19", b"82CCB4D"),  # moved to another disk
        (b"4Zx", b"4Zx"),
    ],
)
def test_a_queue_file_that_postfix_renamed_is_known(
    before: bytes, after: bytes
) -> None:
    assert queue_ids.is_same(before, after)
    assert queue_ids.is_same(after, before)


@pytest.mark.parametrize(
    "other",
    [
        b"4jZ3363p6zzJBM6",  # a second later
        b"4jZ3353p7zzJBM6",  # a microsecond later
        b"82CCC20CC19",
        b"82CCB",
        b"82ccb20cc19",
        b"",
        b"z",
        b"CHECK",
    ],
)
def test_another_queue_file_is_not_taken_for_it(other: bytes) -> None:
    assert not queue_ids.is_same(LONG, other)
    assert not queue_ids.is_same(other, LONG)


@pytest.mark.parametrize("other", [b"82CCC20CC19", b"82CC", b"FAKE", b""])
def test_another_short_id_is_not_taken_for_it(other: bytes) -> None:
    assert not queue_ids.is_same(b"82CCB20CC19", other)


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_strings_that_are_no_queue_ids_are_the_same_only_when_equal(
    one: bytes, other: bytes
) -> None:
    invalid_id = b"#" + one
    assert queue_ids.is_same(invalid_id, other) == (invalid_id == other)
    assert queue_ids.is_same(one, one)


@pytest.mark.parametrize(
    ("queue_id", "arrival"),
    [
        (b"4jZ3353p6zzJBM6", 1795572433),
        (b"82CCB20CC19", None),
        (b"CHECK", None),
        (b"", None),
        (b"0" * 30 + b"z1", None),
    ],
)
def test_a_long_queue_id_has_the_time(queue_id: bytes, arrival: int | None) -> None:
    assert queue_ids.arrival(queue_id) == arrival
