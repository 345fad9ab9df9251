"""Makes text safe for a terminal and a log line, and cuts it to columns.

Used by everything that prints values from mail, the store, the log or the queue. What
could move the cursor, end the line or reorder it is replaced; letters, emoji, spaces
and joiners of all scripts stay. Never raises.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from postfix_archive.message import address

REPLACEMENT = "\ufffd"  # for bytes that are not UTF-8, and for surrogates
# Format characters (Cf) that scripts and emoji need: soft hyphen, Arabic letter mark,
# zero width space, ZWNJ, ZWJ, left-to-right and right-to-left mark, word joiner. Not
# the bidi embeddings, overrides and isolates (U+202A-202E, U+2066-2069).
FORMAT_CHARS = frozenset("\u00ad\u061c\u200b\u200c\u200d\u200e\u200f\u2060")
ESCAPES = {c: f"\\x{c:02X}" for c in address.CONTROL_CHARS} | {9: " "}
# Emoji and ideographs newer than this Python's Unicode data.
UNASSIGNED_RANGES = ((0x1F000, 0x1FAFF), (0x20000, 0x323AF))
FLAG, TAGS = "\U0001f3f4", range(0xE0020, 0xE0080)  # emoji tag sequence: UTS 51 ED-14a
JOINER = "\u200d"
VIRAMA = 9  # canonical combining class: joins two consonants
SKIN_TONES = range(0x1F3FB, 0x1F400)
REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)  # two of them are a flag
ELLIPSIS = "\u2026"


def safe_text(value: bytes | str) -> str:
    """Return bytes (UTF-8) or text as one line that is safe on a terminal.

    Control characters become ``\\xNN``, a tab a space, other unsafe characters ``?``.
    """
    text = value if isinstance(value, str) else value.decode("utf-8", "replace")
    if text.isprintable():
        return text
    safe_chars: list[str] = []
    previous = ""
    for char in text.translate(ESCAPES):
        is_tag = ord(char) in TAGS and (
            previous == FLAG or ord(previous or " ") in TAGS
        )
        previous = char if is_tag else _safe_char(char)
        safe_chars.append(previous)
    return "".join(safe_chars)


def _safe_char(char: str) -> str:
    if char.isprintable() or char in FORMAT_CHARS:
        return char
    category = unicodedata.category(char)
    if category == "Cs":
        return REPLACEMENT
    is_new = any(first <= ord(char) <= last for first, last in UNASSIGNED_RANGES)
    is_shown = category == "Zs" or (category == "Cn" and is_new)
    return char if is_shown else "?"


def cut(text: str, columns: int) -> str:
    """Return text if it fits into these columns, else its start and an ellipsis.

    Never cuts inside a sequence of characters that are shown as one.
    """
    if 2 * len(text) <= columns:  # no character has more than two
        return text
    end = width = 0
    for cluster in _clusters(text):
        width += sum(map(_width, cluster))
        if width > columns:
            return text[:end] + ELLIPSIS
        if width < columns:  # leaves a column for the ellipsis
            end += len(cluster)
    return text


def width(text: str) -> int:
    """Return the columns of text on a terminal."""
    return sum(map(_width, text))


def _clusters(text: str) -> Iterator[str]:
    """Yield the characters of text, each with those that are shown as part of it."""
    cluster = ""
    for char in text:
        if cluster and not _continues(cluster, char):
            yield cluster
            cluster = ""
        cluster += char
    if cluster:
        yield cluster


def _continues(cluster: str, char: str) -> bool:
    last = cluster[-1]
    if unicodedata.category(char)[0] == "M" or char in FORMAT_CHARS:
        return True
    if ord(char) in SKIN_TONES or ord(char) in TAGS or last == JOINER:
        return True
    if ord(char) in REGIONAL_INDICATORS:
        return len(cluster) == 1 and ord(last) in REGIONAL_INDICATORS
    return char.isalpha() and any(
        unicodedata.combining(each) == VIRAMA for each in cluster[-2:]
    )


def _width(char: str) -> int:
    """Return the columns of a character on a terminal."""
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
