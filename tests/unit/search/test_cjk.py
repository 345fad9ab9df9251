"""Claims about Chinese, Japanese and Korean text: any substring is found, no more."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.search import cjk, folding

ALPHABET = "東京都会議カナ회의,、 \nab"
texts = st.text(ALPHABET, max_size=25)
queries = st.text("東京都会議カナ회의", min_size=1, max_size=4)


def is_found(text: str, query: str) -> bool:
    """Whether FTS5 finds a query in a text, as the index uses it."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE t USING fts5 (x, tokenize='unicode61')")
    db.execute("INSERT INTO t VALUES (?)", (cjk.to_terms(folding.normalize(text)),))
    phrase = f'"{cjk.query_terms(folding.normalize(query))}"'
    [count] = db.execute("SELECT count(*) FROM t WHERE t MATCH ?", (phrase,)).fetchone()
    db.close()
    return bool(count)


@given(text=texts, query=queries)
def test_a_query_is_found_if_it_is_a_substring(text: str, query: str) -> None:
    assert is_found(text, query) == (query in text)
    assert is_found(text + query + text, query)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("ﾊﾝｶｸ", "ハンカク"),
        ("ＦＵＬＬ", "full"),
        ("東京tower", "京tower"),
        ("東京 tower", "東京tower"),
        ("tower東京", "tower東"),
        ("Αθήνα", "αθηνα"),
        ("ещё", "еще"),
        ("Ärger", "arger"),
        ("Straße", "strasse"),
        ("STRASSE", "Straße"),
        ("ŒUVRE", "oeuvre"),
        ("Ǿ ǽ", "ø æ"),
        ("Čeľadeň ĦAL", "hal"),
        ("שִׁירָה", "שירה"),
        ("مُحَمَّد", "محمد"),
        ("مـحـمـد", "محمد"),
        ("zusam\u00admen", "zusammen"),
        ("a\0b\ud800c", "b"),
        ("𠮷野家", "𠮷野"),
    ],
)
def test_forms_of_a_text_are_one(text: str, query: str) -> None:
    assert is_found(text, query)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("мой", "мои"),
        ("東、京", "東京"),
        ("東\n京", "東京"),
        ("東京都tower", "東京tower"),
        ("ß", "s"),
        ("Müller", "mueller"),
    ],
)
def test_others_stay_apart(text: str, query: str) -> None:
    assert not is_found(text, query)
