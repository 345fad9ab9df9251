"""The form that writes queries: what is typed is what is looked for."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postfix_archive.search import search
from postfix_archive.search.query_nodes import All, Any, Node, Not, Range, Word
from postfix_archive.web.search import query_form

ANYTHING = st.text(
    st.one_of(
        st.sampled_from('"\\ ()[]{}:*?~^+-/<>=!&|,;@.aB1ORANDTO\n'),
        st.characters(codec="utf-8"),
    ),
    max_size=30,
)
FORMS = st.fixed_dictionaries(
    {each: ANYTHING for each in ("words", "subject", "from", "to")}
)


def conditions(query: str) -> list[Node]:
    node = search.parse(query)
    return [*node.parts] if isinstance(node, All) else [node]


@given(FORMS)
@example({"words": "AND OR NOT TO", "subject": '"', "from": "a@b", "to": "<a@b>,"})
@example({"words": "x) OR (*", "subject": "y OR bcc:z", "from": "a*", "to": "-a"})
def test_what_is_typed_is_found_literally(fields: dict[str, str]) -> None:
    expected = [("", each) for each in query_form.words(fields["words"])]
    expected += [("subject", each) for each in query_form.words(fields["subject"])]
    for name in ("from", "to"):
        for each in query_form.words(fields[name]):
            expected.append((name, each.strip("<>,;")))
    found = conditions(query_form.compose(fields))
    if not expected:
        expected = [("", "")]
    words = [each for each in found if isinstance(each, Word)]
    assert len(words) == len(found)
    assert [(each.field, each.text) for each in words] == expected
    assert [each.is_prefix for each in words] == [not each for _, each in expected]


@given(ANYTHING)
def test_words_leave_out_nothing_that_can_be_found(text: str) -> None:
    left = [each for each in text.split() if not query_form.words(each)]
    assert not any(each.isalnum() for word in left for each in word)


@pytest.mark.parametrize(
    ("fields", "query"),
    [
        ({}, "*"),
        ({"words": "contract friday"}, "contract friday"),
        ({"since": "2026-03-01"}, "date:[2026-03-01 TO *]"),
        ({"until": "2026-03-01"}, "date:[* TO 2026-03-01]"),
        ({"attachment": "1", "outcome": "failed"}, "has:attachment outcome:failed"),
        ({"archive": "legal@example.com"}, 'archive:"legal@example.com"'),
        ({"larger": "5", "smaller": "7.5"}, 'larger:5M smaller:"7.5M"'),
    ],
)
def test_fields(fields: dict[str, str], query: str) -> None:
    assert query_form.compose(fields) == query
    search.parse(query)


def test_dates_cannot_be_anything_else() -> None:
    query = query_form.compose({"since": "* TO *] OR bcc:a [", "until": "x"})
    [found] = conditions(query)
    assert isinstance(found, Range)
    assert (found.field, found.high) == ("date", "x")


QUERIES = st.recursive(
    st.sampled_from(["a", '"b c"', "from:d", "size:>5k", "sender:<>", "*", "e*"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" ", " OR ", " AND "]), inner).map("".join),
        inner.map("NOT {}".format),
        inner.map("({})".format),
        inner.map("-({})".format),
    ),
    max_leaves=6,
)


def parts(node: Node) -> list[object]:
    """Return what must be true, without groups and places."""
    match node:
        case All():
            return [each for part in node.parts for each in parts(part)]
        case Any():
            return [[parts(each) for each in node.parts]]
        case Not():
            return [("not", parts(node.part))]
        case _:
            return [node._replace(position=0)]


@given(QUERIES)
def test_a_condition_is_added_to_all_of_a_query(query: str) -> None:
    before = [] if query == "*" else parts(search.parse(query))
    added = parts(search.parse(query_form.add(query, "date:2026")))
    assert added == [*before, Word("date", "2026", 0)]
