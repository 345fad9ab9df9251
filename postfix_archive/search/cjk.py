"""Terms of Chinese, Japanese and Korean text, so that any substring can be found.

These scripts have no spaces between words, and FTS5 has no tokenizer for them. Each
such character is a term, a run of them ends with the term RUN_END, and a substring is a
phrase: ``東京、都`` is ``東 京 RUN_END 都 RUN_END``, in which 東京 is found and 京都 is
not. Pairs of characters as terms would be found faster, but are three times as large
and take eight times as long to index. Pure; used by index_entry and query_fields.
"""

from __future__ import annotations

import functools
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
RUN_END = "\ue000"  # for private use: a letter for FTS5, and in no text


def to_terms(text: str) -> str:
    """Return normalized text as FTS5 gets it: folded, these scripts as their terms."""
    return text if text.isascii() else _run().sub(_run_terms, folding.fold(text))


def query_terms(text: str) -> str:
    """Return the terms that find a normalized text as a substring."""
    # A run at its end may go on in the text that is searched.
    return to_terms(text).removesuffix(f" {RUN_END} ")


@functools.cache
def _run() -> re.Pattern[str]:
    """Return the pattern of a run; it takes 2 ms, and most queries need none."""
    # Not "[…]+", whose start re does not search for: it takes eight times as long.
    return re.compile(f"[{CHARACTERS}][{CHARACTERS}]*")


def _run_terms(match: re.Match[str]) -> str:
    return f" {' '.join(match.group())} {RUN_END} "
