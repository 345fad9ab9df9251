"""The rows of a page of hits: subject and a part of the text, with the words marked.

Used by search_page. The text of a message is read from its copy, as the user may see
it, as long as SECONDS suffice: a page does not wait for large or slow ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from re import Pattern
from typing import NamedTuple
from urllib.parse import quote, urlencode

from postfix_archive.errors import RecordDamaged, RecordNotFound, StoreFailed
from postfix_archive.retention.hold_names import Names
from postfix_archive.search import query_syntax, snippet
from postfix_archive.search.index_engine import Hit
from postfix_archive.web import extractors
from postfix_archive.web.language import gettext as _
from postfix_archive.web.visible.archives import VisibleArchives

SECONDS = 0.1  # for the texts of one page; the page must come within 0.3
SIZE_LIMIT = 2 << 20  # bytes of a message that is read for its row
READ_LIMIT = 256 << 10  # bytes of it in which the words are looked for
LENGTH = 240  # characters

Pieces = list[tuple[str, bool]]  # parts of a text, and whether each is marked


class Row(NamedTuple):
    """One hit. ``problem`` is why there is no text, "" where there is."""

    hit: Hit
    url: str
    author: str
    subject: Pieces
    text: Pieces
    problem: str
    holds: Names

    @property
    def value(self) -> str:
        """What a form sends for this hit."""
        return f"{self.hit.archive}/{self.hit.archive_id}"


class Rows(NamedTuple):
    """The rows of a page; ``without_text`` counts those for which there was no time."""

    rows: list[Row]
    without_text: int


def make(
    archives: VisibleArchives,
    hits: list[Hit],
    query: str,
    holds: dict[tuple[str, str], Names],
) -> Rows:
    """Return the rows of hits that archives.search() has returned for a query."""
    words = snippet.pattern(query_syntax.parse(query))
    deadline = time.monotonic() + SECONDS
    rows = []
    without_text = 0
    for hit in hits:
        author, text, problem = hit.sender, "", ""
        if hit.size > SIZE_LIMIT:
            problem = _("too large to show a part of it here")
        elif time.monotonic() > deadline:
            without_text += 1
        else:
            author, text, problem = _read(archives, hit)
        rows.append(
            Row(
                hit,
                message_url(hit.archive, hit.archive_id, query),
                author,
                _marked(hit.subject, words, len(hit.subject)),
                _marked(text, words, LENGTH),
                problem,
                holds.get((hit.archive, hit.archive_id), ()),
            )
        )
    return Rows(rows, without_text)


def message_url(archive: str, archive_id: str, query: str) -> str:
    """Return the URL of a message; query is the search that led to it."""
    parameters = urlencode({"q": query})
    return f"/message/{quote(archive, safe='@')}/{quote(archive_id)}?{parameters}"


def _read(archives: VisibleArchives, hit: Hit) -> tuple[str, str, str]:
    """Return From, the text, and why there is none."""
    try:
        message = archives.message_of(hit)
        if message.is_moved:
            return hit.sender, "", _("kept in the object storage: open it to read it")
        content = extractors.extract(message.original[:READ_LIMIT])
    except RecordNotFound:
        return hit.sender, "", _("removed a moment ago")
    except (OSError, RecordDamaged, StoreFailed):
        return hit.sender, "", _("its copy is missing or damaged")
    author = content.from_[0] if content.from_ else hit.sender
    return author, content.text, ""


def _marked(text: str, words: Pattern[str] | None, length: int) -> Pieces:
    """Return the part of a text around the first word, in pieces."""
    part = snippet.cut(text, words, length)
    return [*_pieces(part)]


def _pieces(part: snippet.Snippet) -> Iterator[tuple[str, bool]]:
    end = 0
    for start, stop in part.marks:
        yield part.text[end:start], False
        yield part.text[start:stop], True
        end = stop
    yield part.text[end:], False
