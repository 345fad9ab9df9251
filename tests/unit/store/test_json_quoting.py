"""Claims about JSON strings: they are those of json.dumps()."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postfix_archive.store import journal_format


@given(st.one_of(st.text(), st.text(st.characters(max_codepoint=127))))
@example("")
@example('\\"\\\\"')
@example("a\r\n\tb\n")
@example("\x7f")
@example("\udc80\ud83d\ude00é")
def test_a_string_is_quoted_as_json_quotes_it(text: str) -> None:
    assert journal_format.json_string(text) == json.dumps(text)


@pytest.mark.parametrize("number", range(0x180))
def test_each_character_is_quoted_as_json_quotes_it(number: int) -> None:
    assert journal_format.json_string(chr(number)) == json.dumps(chr(number))


def test_lines_of_ascii_need_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_json", None)
    assert journal_format.json_string('To: "x" <a\\b@c>\r\n\tid; y\r\n')
    with pytest.raises(ImportError):
        journal_format.json_string("é")
