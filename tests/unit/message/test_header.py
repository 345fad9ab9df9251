"""Claims about reading header fields where they stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.message import header

HEAD = b"From: ann\r\nSubject: one\r\n\ttwo\r\n three\r\nTo: bob\r\n\r\nBody: no\r\n"
LINE_NOISE = st.lists(
    st.sampled_from(
        [b"\r\n", b":", b" ", b"\t", b"A", b"Subject", b"\0", b"\xff", b"\r", b"\n"]
    ),
    max_size=25,
).map(b"".join)


def names(head: bytes) -> list[bytes]:
    return [field.name for field in header.fields(head)]


def test_fields_come_from_the_top_in_lower_case() -> None:
    assert names(HEAD) == [b"from", b"subject", b"to"]


def test_a_folded_field_is_one_field_with_its_exact_bytes() -> None:
    field = header.first(HEAD, b"subject")
    assert field is not None
    assert field.raw == b"Subject: one\r\n\ttwo\r\n three\r\n"
    assert field.value == b"one\ttwo three"


def test_the_first_of_several_fields_counts() -> None:
    field = header.first(b"A: 1\r\nB: 2\r\nA: 3\r\n\r\n", b"a")
    assert field is not None and field.value == b"1"


def test_a_field_that_is_not_there_is_none() -> None:
    assert header.first(HEAD, b"body") is None


def test_the_body_begins_behind_the_empty_line() -> None:
    assert HEAD[header.body_start(HEAD) :] == b"Body: no\r\n"


def test_a_message_without_header_has_its_body_behind_the_empty_line() -> None:
    assert header.body_start(b"\r\nbody\r\n") == 2


@pytest.mark.parametrize(
    "head",
    [b"", b"From: ann\r\n", b"From: ann", b"From: ann\r\nno field\r\n\r\n", b"body"],
)
def test_a_header_without_its_end_has_no_body(head: bytes) -> None:
    assert header.body_start(head) == -1


@pytest.mark.parametrize(
    "line",
    [
        b"no colon here",
        b": no name",
        b"two words: x",
        b"gr\xfcn: x",
        b"ctrl\x01: x",
        b"nul\0: x",
    ],
)
def test_what_is_no_field_ends_the_header(line: bytes) -> None:
    assert names(b"A: 1\r\n" + line + b"\r\nC: 3\r\n") == [b"a"]


def test_a_first_line_that_begins_with_a_blank_is_no_field() -> None:
    assert names(b" A: 1\r\nB: 2\r\n\r\n") == []


def test_a_colon_in_a_continuation_makes_no_field() -> None:
    assert names(b"no name\r\n folded: x\r\nA: 1\r\n\r\n") == []


def test_white_space_before_the_colon_belongs_to_no_name() -> None:
    assert names(b"Subject : x\r\n\r\n") == [b"subject"]


def test_a_field_that_is_cut_off_is_no_field() -> None:
    assert names(b"A: 1\r\nB: cut o") == [b"a"]


def test_a_lone_lf_ends_no_line() -> None:
    field = header.first(b"A: 1\nB: 2\r\n\r\n", b"a")
    assert field is not None and field.value == b"1\nB: 2"


def test_twenty_thousand_lines_are_read() -> None:
    head = b"".join(b"X-%d: y\r\n" % n for n in range(20000)) + b"\r\n"
    assert len(names(head)) == 20000
    assert header.body_start(head) == len(head)


def test_a_line_of_a_megabyte_is_read() -> None:
    head = b"A: " + b"x" * (1 << 20) + b"\r\nB: 2\r\n\r\n"
    assert names(head) == [b"a", b"b"]


@given(LINE_NOISE)
def test_reading_never_raises_and_fields_adjoin(head: bytes) -> None:
    end = 0
    for field in header.fields(head):
        assert field.start == end
        assert field.raw.endswith(b"\r\n")
        end = field.end
    assert header.body_start(head) in (-1, end + 2)
