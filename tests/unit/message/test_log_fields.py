"""Our lines in Postfix's log: what is built is what is read."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.message import log_fields

KEYS = st.text(string.ascii_lowercase + "_", min_size=1).filter(
    lambda key: key != log_fields.PROSE_KEY
)
VALUES = st.text(min_size=1).filter(lambda value: value.split() == [value])
PROSE = st.text(min_size=1).map(lambda text: " ".join(text.split())).filter(bool)


@given(st.dictionaries(KEYS, VALUES), st.just("") | PROSE)
def test_what_is_built_is_what_is_parsed(fields: dict[str, str], prose: str) -> None:
    expected = {**fields, **({log_fields.PROSE_KEY: prose} if prose else {})}
    line = log_fields.build({log_fields.PROSE_KEY: prose, **fields})
    assert log_fields.parse(line) == expected
    assert list(log_fields.parse(line)) == list(expected)


@given(st.dictionaries(KEYS | st.just(log_fields.PROSE_KEY), st.text()))
def test_any_value_gives_one_line_with_no_other_key(fields: dict[str, str]) -> None:
    line = log_fields.build(fields)
    assert len(line.splitlines()) <= 1
    assert set(log_fields.parse(line)) <= set(fields)


@given(st.text())
def test_any_text_can_be_parsed(text: str) -> None:
    assert all(map(log_fields.is_key, log_fields.parse(text)))


def test_prose_cannot_add_a_field() -> None:
    line = log_fields.build({"reason": "550 said as=4Zforged", "id": "x"})
    assert line == "id=x reason=550 said as=4Zforged"
    assert "as" not in log_fields.parse(line)


def test_an_empty_value_has_no_key() -> None:
    assert log_fields.build({"id": "", "as": "4Z", "reason": " "}) == "as=4Z"


def test_the_first_of_two_values_counts() -> None:
    assert log_fields.parse("id=a id=b") == {"id": "a"}
