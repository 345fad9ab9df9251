"""Writes what the packages below the page say in the language of the page.

Their errors and notices know no language: they are English texts with values in them,
and some come from another process. The catalogue has each of these texts as a template,
"there is no hold %(name)s", in the context CONTEXT; tests/web_error_texts.py finds them
all. Here a text is recognised by the words of its template, and written anew with its
values, which can be such texts themselves. What is no such text stays as it is: raises
nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from postfix_archive.web import language

CONTEXT = "error"  # of the templates in the catalogue
LENGTH_LIMIT = 4000  # characters; longer texts stay as they are
DEPTH_LIMIT = 4  # texts within a text
PLACEHOLDER = re.compile(r"%\((\w+)\)s")
BETWEEN = "; "  # several texts in one
HALVES_LIMIT = 8  # places at which a text is cut in two


class Template(NamedTuple):
    """A text: the ``pieces`` around its values, and the ``names`` of these."""

    pieces: list[str]
    names: list[str]
    translation: str

    def values(self, text: str) -> dict[str, str] | None:
        """Return the values in a text, None if it is not of this template.

        Each value is as short as can be, which takes no longer than the text is long.
        """
        first, *others = self.pieces
        if not others:
            return {} if text == first else None
        last = others.pop()
        if not (text.startswith(first) and text.endswith(last)):
            return None
        place, end = len(first), len(text) - len(last)
        values = []
        for piece in others:
            found = text.find(piece, place, end)
            if found < 0:
                return None
            values.append(text[place:found])
            place = found + len(piece)
        if place > end:
            return None
        return dict(zip(self.names, [*values, text[place:end]], strict=True))


@functools.cache
def _templates(code: str) -> list[Template]:
    """Return the templates of a language, most words and fewest values first.

    So "there is no hold x; there are none" is not taken for a list with one name.
    """
    made = []
    for text, translation in language.texts_in_context(code, CONTEXT):
        first, *others = PLACEHOLDER.split(text)
        pieces = [each.replace("%%", "%") for each in (first, *others[1::2])]
        made.append(Template(pieces, others[::2], translation))
    return sorted(made, key=lambda each: (-sum(map(len, each.pieces)), len(each.names)))


def translated(text: object) -> str:
    """Return a text of the packages below in the language of this request."""
    original = str(text)
    if len(original) > LENGTH_LIMIT:
        return original
    return _translated(original, _templates(language.code()), DEPTH_LIMIT)


def _translated(text: str, templates: list[Template], depth: int) -> str:
    if not depth:
        return text
    written = _written(text, templates, depth)
    if written is not None:
        return written
    for first, rest in islice(_halves(text), HALVES_LIMIT):
        start, end = (_written(each, templates, depth) for each in (first, rest))
        if start is not None or end is not None:
            end = end or _translated(rest, templates, depth - 1)
            return (start or first) + BETWEEN + end
    return text


def _written(text: str, templates: list[Template], depth: int) -> str | None:
    """Return a text that is of one template as a whole, None if it is of none."""
    for template in templates:
        values = template.values(text)
        if values is not None:
            written = {
                name: (
                    _translated(value, templates, depth - 1) if " " in value else value
                )
                for name, value in values.items()
            }
            return template.translation % written
    return None


def _halves(text: str) -> Iterator[tuple[str, str]]:
    """Yield a text cut in two between two texts."""
    place = text.find(BETWEEN)
    while place >= 0:
        yield text[:place], text[place + len(BETWEEN) :]
        place = text.find(BETWEEN, place + 1)
