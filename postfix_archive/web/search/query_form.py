"""Writes a query from the fields of a form, for who does not know the language.

Used by search_page. What is typed is found literally: it becomes words of one field
each, in quotes where it could mean anything else. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping

FIELDS = (
    *("words", "subject", "from", "to", "since", "until", "attachment"),
    *("outcome", "archive", "larger", "smaller"),
)
EVERYTHING = "*"
OPERATORS = {"AND", "OR", "NOT", "TO"}
PLAIN = re.compile(r"[^\W_]+")
SPECIAL = re.compile(r'(["\\])')
AROUND_ADDRESS = "<>,;"


def compose(fields: Mapping[str, str]) -> str:
    """Return the query for some fields of FIELDS; EVERYTHING if all are empty."""
    return " ".join(_conditions(fields)) or EVERYTHING


def add(query: str, condition: str) -> str:
    """Return a query for what a query finds and meets a condition as well."""
    return condition if query.strip() == EVERYTHING else f"{query} {condition}"


def term(field: str, text: str) -> str:
    """Return the condition that a field ("" for any) has this word or value."""
    is_plain = PLAIN.fullmatch(text) and text not in OPERATORS
    value = text if is_plain else quoted(text)
    return f"{field}:{value}" if field else value


def quoted(text: str) -> str:
    """Return text as a phrase of the query language."""
    return '"' + SPECIAL.sub(r"\\\1", text) + '"'


def words(text: str) -> list[str]:
    """Return the words in a text: what stands between spaces and can be found."""
    shown = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)
    return [each for each in shown.split() if _can_be_found(each)]


def _can_be_found(text: str) -> bool:
    normalized = unicodedata.normalize("NFKC", text)
    return any(unicodedata.category(each)[0] in "LN" for each in normalized)


def _conditions(fields: Mapping[str, str]) -> Iterator[str]:
    for name, field in (("words", ""), ("subject", "subject")):
        yield from (term(field, each) for each in words(fields.get(name, "")))
    for name in ("from", "to"):
        for each in words(fields.get(name, "")):
            yield term(name, each.strip(AROUND_ADDRESS))
    since, until = (" ".join(words(fields.get(e, ""))) for e in ("since", "until"))
    if since or until:
        yield f"date:[{_bound(since)} TO {_bound(until)}]"
    if fields.get("attachment"):
        yield "has:attachment"
    for name in ("outcome", "archive"):
        for each in words(fields.get(name, "")):
            yield term(name, each)
    for name in ("larger", "smaller"):
        for each in words(fields.get(name, "")):
            yield term(name, f"{each}M")


def _bound(text: str) -> str:
    if re.fullmatch(r"[0-9]{4}(-[0-9]{2}){0,2}", text):
        return text
    return term("", text) if text else "*"
