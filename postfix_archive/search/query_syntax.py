"""Parses a query into nodes: luqum reads the language, this names what we support.

Used by query_fields. Pure. Raises QueryInvalid with the place of the error.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import luqum.exceptions
import luqum.thread  # luqum.parser has one lexer for all threads
from luqum import tree

from postfix_archive.errors import QueryInvalid
from postfix_archive.search.query_nodes import All, Any, Node, Not, Range, Word

LENGTH_LIMIT = 10_000  # characters of a query
DEPTH_LIMIT = 40  # of parentheses and operators; FTS5 allows 256, SQLite 1000
CACHE_SIZE = 20  # queries: a page of hits needs the nodes of one three times
TERM_LIMIT = 500  # words, phrases and ranges
POSITION = re.compile(r"at position ([0-9]+)")
ESCAPE = re.compile(r"\\(.)", re.DOTALL)
# A Message-ID or address in angle brackets, which luqum would take for "less than". <>
# is the null sender.
QUOTED_OR_BRACKETED = re.compile(r'"(?:\\.|[^"\\])*"|<([^\s<>"\\]*)>')


@functools.lru_cache(CACHE_SIZE)
def parse(query: str) -> Node:
    """Return the nodes of a query. Raises QueryInvalid."""
    if len(query) > LENGTH_LIMIT:
        text = f"the query is longer than {LENGTH_LIMIT} characters"
        raise QueryInvalid(text, query, LENGTH_LIMIT)
    if not query.strip():
        raise QueryInvalid("the query is empty; * finds everything", query, 0)
    try:
        root = luqum.thread.parse(QUOTED_OR_BRACKETED.sub(_quote, query))
    except luqum.exceptions.ParseError as error:
        raise _syntax_error(str(error), query) from None
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ):
        raise QueryInvalid("this cannot be read as a query", query, 0) from None
    return _Converter(query).node(root, "", 0)


def _quote(match: re.Match[str]) -> str:
    """Replace angle brackets with quotes, which are as long."""
    return match[0] if match[1] is None else f'"{match[1]}"'


def _syntax_error(text: str, query: str) -> QueryInvalid:
    found = POSITION.search(text)
    position = min(int(found[1]), len(query)) if found else len(query)
    if query[position : position + 1] == '"':
        reason = "a quote without a second one"
    elif position == len(query):
        reason = "the query ends too early: a word or a parenthesis is missing"
    else:
        reason = f"unexpected {query[position]!r}; put special characters in quotes"
    return QueryInvalid(reason, query, position)


class _Converter:
    """Converts luqum's tree of one query."""

    def __init__(self, query: str) -> None:
        self._query = query
        self._terms = 0

    def node(self, item: tree.Item, field: str, depth: int) -> Node:
        """Return the node of an item within a field, "" for any."""
        position = int(item.pos or 0)
        if depth > DEPTH_LIMIT:
            text = f"more than {DEPTH_LIMIT} parentheses, NOTs or signs in one another"
            raise self._error(text, position)
        match item:
            case tree.Word() | tree.Phrase():
                return self._word(item, field, position)
            case tree.SearchField():
                if field:
                    raise self._error(f"{field}: has a field in it", position)
                return self.node(item.expr, item.name.lower(), depth + 1)
            case tree.Group() | tree.FieldGroup() | tree.Plus():
                return self.node(item.children[0], field, depth + 1)
            case tree.Not() | tree.Prohibit():
                return Not(self.node(item.children[0], field, depth + 1))
            case tree.OrOperation():
                return Any(self._nodes(item.children, field, depth))
            case tree.AndOperation() | tree.UnknownOperation() | tree.BoolOperation():
                return All(self._nodes(item.children, field, depth))
            case tree.Range() | tree.From() | tree.To():
                return self._range(item, field, position)
            case tree.Fuzzy() | tree.Proximity():
                raise self._error("~ is not supported", position)
            case tree.Boost():
                raise self._error("^ is not supported", position)
            case tree.Regex():
                text = "regular expressions are not supported; put / in quotes"
                raise self._error(text, position)
        raise self._error("this is not supported", position)

    def _nodes(
        self, items: Sequence[tree.Item], field: str, depth: int
    ) -> tuple[Node, ...]:
        return tuple(self.node(each, field, depth + 1) for each in items)

    def _word(self, item: tree.Term, field: str, position: int) -> Word:
        self._terms += 1
        if self._terms > TERM_LIMIT:
            raise self._error(f"more than {TERM_LIMIT} words", position)
        value = str(item.value)
        if isinstance(item, tree.Phrase):
            return Word(field, _unescape(value[1:-1]), position)
        stem, has_star = (value[:-1], True) if _has_star(value) else (value, False)
        inner = ESCAPE.sub("", stem).find("*")
        if inner >= 0 and stem:
            text = "* is only possible at the end of a word"
            raise self._error(text, position + value.find("*"))
        return Word(field, _unescape(stem), position, has_star)

    def _range(
        self, item: tree.Range | tree.From | tree.To, field: str, position: int
    ) -> Range:
        if not field:
            raise self._error("a range needs a field, such as size:>5M", position)
        if isinstance(item, tree.Range):
            low, high = self._bound(item.low), self._bound(item.high)
            return Range(
                field, low, high, item.include_low, item.include_high, position
            )
        bound = self._bound(item.a)
        if isinstance(item, tree.From):
            return Range(field, bound, "", item.include, False, position)
        return Range(field, "", bound, False, item.include, position)

    def _bound(self, item: tree.Item) -> str:
        """Return the value of one end of a range, "" for ``*``."""
        self._terms += 1
        if isinstance(item, tree.Phrase):
            return _unescape(str(item.value)[1:-1])
        if not isinstance(item, tree.Word):
            raise self._error("not the end of a range", int(item.pos or 0))
        return "" if item.value == "*" else _unescape(str(item.value))

    def _error(self, reason: str, position: int) -> QueryInvalid:
        return QueryInvalid(reason, self._query, min(position, len(self._query)))


def _has_star(value: str) -> bool:
    """Tell whether a word ends with a star that no backslash escapes."""
    return ESCAPE.sub("", value).endswith("*")


def _unescape(value: str) -> str:
    return ESCAPE.sub(r"\1", value)
