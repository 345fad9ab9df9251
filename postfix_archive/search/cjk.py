"""Terms of Chinese, Japanese and Korean text, so that any substring can be found.

These scripts have no spaces between words, and FTS5 has no tokenizer for them. A run of
such characters is written as its overlapping pairs and its last character, ``東京都``
as ``東京 京都 都``. Each character begins one term: a substring of two or more is a
phrase of pairs, and a single character the prefix of a term. Pure; used by index_entry
and query_fields.
"""

from __future__ import annotations

import re

from postfix_archive.search import folding

# Unicode blocks: Hangul Jamo; radicals; kana, bopomofo, Hangul compatibility jamo with
# U+3005-3007; ideographs with extension A; Hangul syllables; compatibility ideographs;
# the ideographs beyond U+FFFF.
CHARACTERS = (
    "\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3041-\u3096"
    "\u309d-\u309f\u30a1-\u30fa\u30fc-\u318f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U000323af"
)
_RUN = re.compile(f"[{CHARACTERS}]+")


def to_terms(text: str) -> str:
    """Return normalized text as FTS5 gets it: folded, these scripts as their terms."""
    return text if text.isascii() else _RUN.sub(_run_terms, folding.fold(text))


def characters(text: str) -> str:
    """Return each character of these scripts in a normalized text once, with spaces.

    A term of its own for each: the prefix of pairs finds a single character, too, but
    in a large index a hundred times as slowly.
    """
    if text.isascii():
        return ""
    return " ".join(sorted({*"".join(_RUN.findall(text))}))


def is_character(text: str) -> bool:
    """Tell whether text is one character of these scripts."""
    normalized = folding.normalize(text).strip()
    return len(normalized) == 1 and _RUN.fullmatch(normalized) is not None


def query_terms(text: str) -> tuple[str, bool]:
    """Return the terms that find a normalized text as a substring.

    And whether the last term is the prefix of one: a single character is.
    """
    if text.isascii():
        return text, False
    text = folding.fold(text)
    terms = _RUN.sub(_run_terms, text).rstrip()
    last = list(_RUN.finditer(text))[-1:]
    if not last or last[0].end() != len(text):
        return terms, False
    if len(last[0].group()) == 1:
        return terms, True
    return terms.rpartition(" ")[0], False  # the run may go on in the text


def _run_terms(match: re.Match[str]) -> str:
    run = match.group()
    return f" {' '.join(map(str.__add__, run, run[1:] + ' '))} "
