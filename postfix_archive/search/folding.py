"""One form for text that can be written in several ways: for the index and for queries.

normalize() is for values that are compared and shown, fold() for words. FTS5 itself
folds case, and the accents of Latin letters (unicode61 remove_diacritics 2). Pure; used
by cjk, index_entry, query_fields and snippet.
"""

from __future__ import annotations

import re
import unicodedata

# Latin letters that Unicode does not compose of a base and an accent, as people write
# them where the keyboard lacks them.
_LATIN = {
    **dict(zip("ßæœøłđðþħıŧ", "ss ae oe o l d d th h i t".split(), strict=True)),
    **dict(zip("ẞÆŒØŁĐÞĦŦ", "ss ae oe o l d th h t".split(), strict=True)),
    "Ð": "d",
}
# Those with an accent besides, and Greek letters with theirs.
_COMPOSED = [*range(0xC0, 0x250), *range(0x386, 0x3CF), *range(0x1E00, 0x2000)]
# Vowel signs and points of Arabic and Hebrew, and the Arabic line that stretches a
# word; then what is not seen: soft hyphen, joiners, marks of the direction.
MARKS = (
    "\u0640\u064b-\u065f\u0670\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u00ad\u200c-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff"
)


def _base_letters() -> dict[str, str]:
    letters = {"Ё": "Е", "ё": "е", **_LATIN}  # й and others are letters of their own
    for letter in map(chr, _COMPOSED):
        base = unicodedata.normalize("NFD", letter)[0]
        if base != letter and not base.isascii():
            letters[letter] = _LATIN.get(base, base)
    return letters


_BASE_LETTERS = _base_letters()
_FOLDED = re.compile(f"[{''.join(_BASE_LETTERS)}{MARKS}]")


def normalize(text: str) -> str:
    """Return text in the one form that Unicode and SQLite have for it (NFKC, UTF-8).

    Full-width letters become Latin ones, half-width kana full-width ones. NUL and
    surrogates, which SQLite cannot take, become spaces and question marks.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).encode("utf-8", "replace").decode()
    return text.replace("\0", " ")


def fold(text: str) -> str:
    """Return a normalized text with one spelling for letters that FTS5 keeps apart.

    ``ß`` is ``ss``, ``ł`` is ``l``; Greek letters have no accents, Arabic and Hebrew
    words no vowel signs.
    """
    return text if text.isascii() else _FOLDED.sub(_base_letter, text)


def _base_letter(match: re.Match[str]) -> str:
    return _BASE_LETTERS.get(match[0], "")
