"""Finds the other messages of a thread that a user may see.

The index has no References: field. So the messages to which this one refers are found
by their ids, and its answers among those with the same subject, whose headers are read.
Used by message_page. Raises what VisibleArchives.search() raises.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from postfix_archive.errors import (
    QueryInvalid,
    RecordDamaged,
    RecordNotFound,
    StoreFailed,
)
from postfix_archive.message import header
from postfix_archive.search import extraction_header
from postfix_archive.search.content import MessageContent
from postfix_archive.search.index_engine import Hit
from postfix_archive.web.search import query_form
from postfix_archive.web.visible.archives import VisibleArchives

ID_LIMIT = 25  # Message-IDs that are looked up; a query has 10,000 characters
ID_LENGTH_LIMIT = 300  # characters of one; programs make some 80
CANDIDATE_LIMIT = 50  # messages with the same subject whose header is read
READ_LIMIT = 2 << 20  # bytes of such a message; larger ones are left out
SUBJECT_LIMIT = 300  # characters
REPLY = re.compile(r"\s{0,9}(?:re|aw|sv|antw|fwd?|wg|tr)\s?(?:\[\d+\])?:", re.I)


def thread(archives: VisibleArchives, content: MessageContent) -> list[Hit]:
    """Return the messages of the thread of one, itself included, oldest first.

    content: what its header says.
    """
    ids = [
        each
        for each in dict.fromkeys((content.message_id, *reversed(content.references)))
        if 0 < len(each) <= ID_LENGTH_LIMIT
    ][:ID_LIMIT]
    hits = [*_named(archives, ids), *_answers(archives, content.subject, {*ids})]
    found = {(each.archive, each.archive_id): each for each in hits}
    return sorted(found.values(), key=lambda each: each.arrived)


def _named(archives: VisibleArchives, ids: list[str]) -> list[Hit]:
    if not ids:
        return []
    query = " OR ".join(f"msgid:{query_form.quoted(each)}" for each in ids)
    with contextlib.suppress(QueryInvalid):  # an id that is none
        return archives.search(query, limit=CANDIDATE_LIMIT).hits
    return []


def _answers(archives: VisibleArchives, subject: str, ids: set[str]) -> Iterator[Hit]:
    """Yield the newest messages with a subject that refer to one of these ids."""
    while match := REPLY.match(subject):
        subject = subject[match.end() :]
    subject = subject.strip()[:SUBJECT_LIMIT]
    if not (subject and ids):
        return
    with contextlib.suppress(QueryInvalid):  # a subject without a letter
        query = f"subject:{query_form.quoted(subject)}"
        for hit in archives.search(query, limit=CANDIDATE_LIMIT).hits:
            if hit.size <= READ_LIMIT and not ids.isdisjoint(
                _references(archives, hit)
            ):
                yield hit


def _references(archives: VisibleArchives, hit: Hit) -> tuple[str, ...]:
    """Return the ids in References: and In-Reply-To:, () of a damaged copy."""
    with contextlib.suppress(RecordNotFound, RecordDamaged, StoreFailed):
        head = archives.message_of(hit).head()
        fields = header.fields(head[: header.HEAD_LIMIT])
        return extraction_header.read(
            (each.name.decode("ascii"), each.value) for each in fields
        ).references
    return ()
