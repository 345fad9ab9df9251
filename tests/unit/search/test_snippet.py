"""Claims about snippets: they show the words that were found, marked, and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.search import query_syntax, snippet


def marked(text: str, query: str, length: int = 60) -> str:
    """A snippet with its marked words in brackets."""
    part = snippet.cut(text, snippet.pattern(query_syntax.parse(query)), length)
    result, end = "", 0
    for start, stop in part.marks:
        result += f"{part.text[end:start]}[{part.text[start:stop]}]"
        end = stop
    return result + part.text[end:]


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("contract", "Please sign the Contract.", "Please sign the [Contract]."),
        ("contract", "contracts", "contracts"),
        ("contr*", "all contracts", "all [contracts]"),
        ('"sign the"', "Please sign\n the", "Please [sign the]"),
        ("strasse", "Die Straße hier", "Die [Straße] hier"),
        ("straße", "Die STRASSE hier", "Die [STRASSE] hier"),
        ("lodz OR aero", "Łódź, Ærø!", "[Łódź], [Ærø]!"),
        ("שלום", "ו שָׁלוֹם ר", "ו [שָׁלוֹם] ר"),
        ("zusammen", "zusam\u00admen", "[zusam\u00admen]"),
        ("회", "횐 회의", "횐 [회]의"),
        ("cafe", "ein Café hier", "ein [Café] hier"),
        ("京", "東京都", "東[京]都"),
        ("body:a -b subject:c", "a b c", "[a] b [c]"),
        ("from:a", "a b", "a b"),
        ("*", "a b", "a b"),
        ("rock'n'roll", "rock-n-roll", "[rock-n-roll]"),
    ],
)
def test_the_words_that_were_found_are_marked(
    query: str, text: str, expected: str
) -> None:
    assert marked(text, query) == expected


def test_a_snippet_begins_a_little_before_the_first_word() -> None:
    text = "x " * 500 + "needle " + "y " * 500
    part = marked(text, "needle")
    assert part.startswith("x x") and "[needle]" in part and "y" in part
    assert len(part) == 62
    assert marked(text + "end", "end").endswith("[end]")


@given(
    text=st.text(max_size=80), word=st.text("aßé東 İi\u0301", min_size=1, max_size=5)
)
def test_marks_are_within_the_text(text: str, word: str) -> None:
    words = snippet.pattern(query_syntax.parse(f'"{word}x"'))
    part = snippet.cut(text + word + "x", words, 20)
    assert len(part.text) <= 20
    assert all(0 <= a <= b <= len(part.text) for a, b in part.marks)


@given(
    st.lists(st.sampled_from(["alpha", "Über", "del", "x" * 300, " " * 300, "ß"])),
    st.sampled_from(["del", "del*", '"über alpha"', "x*"]),
    st.integers(0, 40_000),
)
def test_a_long_text_is_cut_as_a_short_one(
    pieces: list[str], query: str, place: int
) -> None:
    """However far from its start the word is: only a part is looked at first."""
    text = " ".join(pieces) + "y " * (place // 2) + "über alpha delta del " + "z " * 99
    words = snippet.pattern(query_syntax.parse(query))
    whole = " ".join(text.split())
    assert snippet.cut(text, words, 240) == snippet._cut(whole, words, 240)[1]
