"""Cuts the part of a message out that a query found, and marks its words.

Used by cli.search for the hits of one page; the index itself has no text. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from postfix_archive.search import cjk
from postfix_archive.search.query_nodes import All, Any, Node, Word

TEXT_FIELDS = ("", "body", "subject")
BEFORE = 40  # characters before the first word that was found
CJK_RUN = re.compile(f"[{cjk.CHARACTERS}]")


class Snippet(NamedTuple):
    """A part of a text, and where in it words were found: (start, end)."""

    text: str
    marks: tuple[tuple[int, int], ...]


def pattern(node: Node) -> re.Pattern[str] | None:
    """Return a pattern of the words and phrases of a query, None if it has none."""
    parts = [_word_pattern(each) for each in _words(node)]
    return re.compile("|".join(filter(None, parts))) if any(parts) else None


def cut(text: str, words: re.Pattern[str] | None, length: int) -> Snippet:
    """Return some characters of a text, around the first word that was found."""
    text = " ".join(text.split())
    folded = fold(text)
    first = words.search(folded) if words else None
    start = max(0, first.start() - BEFORE) if first else 0
    start = min(start, max(0, len(text) - length))
    end = start + length
    marks = [
        (match.start() - start, min(match.end(), end) - start)
        for match in (words.finditer(folded, start, end) if words else ())
    ]
    return Snippet(text[start:end], tuple(marks))


def fold(text: str) -> str:
    """Return text without case and accents, character by character."""
    if text.isascii():
        return text.lower()
    return "".join(
        unicodedata.normalize("NFKD", each)[0].lower()[:1] or each for each in text
    )


def _words(node: Node) -> Iterator[Word]:
    """Yield the words that a message has because it was found."""
    match node:
        case All() | Any():
            for part in node.parts:
                yield from _words(part)
        case Word() if node.field in TEXT_FIELDS and node.text:
            yield node


def _word_pattern(word: Word) -> str:
    text = fold(unicodedata.normalize("NFKC", word.text))
    if CJK_RUN.search(text):
        return re.escape(text)
    words = re.findall(r"[^\W_]+", text)
    if not words:
        return ""
    end = r"[^\W_]*" if word.is_prefix else r"(?![^\W_])"
    return r"(?<![^\W_])" + r"[\W_]+".join(map(re.escape, words)) + end
