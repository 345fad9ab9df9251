"""Claims about text on a terminal: nothing in it is obeyed, and nothing is lost."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.message import printable

from unit.samples import is_safe_line

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"  # three emoji and two joiners
WALES = "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"
ACCENT = "e\u0301"
CONJUNCT = "\u0915\u094d\u200d\u0937"
WHOLE = [
    "日本語\u3000の件名",
    "prix\u00a0: 5\u202f€",
    FAMILY,
    WALES,
    "\u2764\ufe0f",  # with a variation selector
    "\U0001f44d\U0001f3fd",  # with a skin tone
    "\U0001f1e9\U0001f1ea",  # a flag of two letters
    "\U0001fae8",  # an emoji of Unicode 15, unknown to Python 3.11
    "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # with a ZWNJ
    CONJUNCT,
    ACCENT,
    "\u05e9\u05dc\u05d5\u05dd\u200f!",  # with a right-to-left mark
]
ANYTHING = st.text(alphabet=st.characters(exclude_categories=[]))  # surrogates too


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"bob@example.com", "bob@example.com"),
        ("grün".encode(), "grün"),
        (b"\x1b[31mred", "\\x1B[31mred"),
        ("\u202eevil\u0085".encode(), "?evil?"),
        (b"\xff", "\ufffd"),
        ("\udcff\ud83d", "\ufffd\ufffd"),
        (b"a\tb\r\nc\x7f", "a b\\x0D\\x0Ac\\x7F"),
        ("a\u2028b\u2029c\u2066d\ufeffe\ue000", "a?b?c?d?e?"),
        ("a\U000e0067", "a?"),  # a tag that belongs to no flag hides text
    ],
)
def test_what_is_shown_is_safe_on_a_terminal(value: bytes | str, text: str) -> None:
    assert printable.safe_text(value) == text


@pytest.mark.parametrize("text", WHOLE)
def test_text_of_every_script_is_shown_as_it_is(text: str) -> None:
    assert printable.safe_text(text) == printable.safe_text(text.encode()) == text


@given(st.binary(max_size=60) | ANYTHING)
def test_nothing_that_is_shown_can_drive_a_terminal(value: bytes | str) -> None:
    shown = printable.safe_text(value)
    assert is_safe_line(shown)
    assert printable.safe_text(shown) == shown


def test_no_character_at_all_can_drive_a_terminal() -> None:
    every_character = "".join(map(chr, range(0x110000)))
    assert is_safe_line(printable.safe_text(every_character))


@given(st.lists(st.sampled_from(WHOLE)).map(" ".join))
def test_sequences_stay_whole_among_others(text: str) -> None:
    assert printable.safe_text(text) == text


@pytest.mark.parametrize("cluster", [FAMILY, WALES, ACCENT, CONJUNCT, *WHOLE[4:7]])
def test_a_cut_is_never_inside_a_sequence(cluster: str) -> None:
    text = f"a{cluster}b{cluster}c"
    whole = {"", "a", f"a{cluster}", f"a{cluster}b", f"a{cluster}b{cluster}"}
    cuts = {printable.cut(text, columns) for columns in range(40)}
    assert cuts - {text} <= {f"{each}\u2026" for each in whole}
    assert len(cuts) > 3


@pytest.mark.parametrize(
    ("columns", "text"),
    [(8, "合同编号"), (7, "合同编…"), (6, "合同…"), (5, "合同…"), (1, "…")],
)
def test_an_ideograph_takes_two_columns(columns: int, text: str) -> None:
    assert printable.cut("合同编号", columns) == text


@given(ANYTHING, st.integers(1, 30))
def test_what_is_cut_fits_and_is_the_start(text: str, columns: int) -> None:
    shown = printable.cut(printable.safe_text(text), columns)
    start = shown.removesuffix("\u2026")
    assert printable.safe_text(text).startswith(start)
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in shown)
    marks = sum(unicodedata.category(each) in ("Mn", "Me", "Cf") for each in shown)
    assert len(shown) + wide - marks <= columns
