"""Show the content of a message: header, parts and text, as text and as JSON.

Used by show. Whatever a sender wrote, the output is safe for a terminal.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from postfix_archive.message.printable import safe_text
from postfix_archive.search import extraction_parts, mime_entity
from postfix_archive.search.content import MessageContent
from postfix_archive.search.extraction_parts import Part

RECORD_FIELDS = ("Subject", "Message-ID")  # record_view shows them


def parts(original: bytes) -> list[Part]:
    """Return the parts of a message, numbered as --part counts them."""
    return list(extraction_parts.parts(mime_entity.parse(original), []))


def lines(content: MessageContent, parts: list[Part]) -> Iterator[str]:
    """Yield the lines about a message: header fields, parts, problems, text."""
    yield "Header:"
    for name, value in _header(content).items():
        if value and name not in RECORD_FIELDS:
            text = value if isinstance(value, str) else ", ".join(value)
            yield f"  {name + ':':12} {safe_text(text)}"
    yield "Parts:"
    for part in parts:
        name = safe_text(part.name)
        text = f"{part.number:3}  {safe_text(part.media_type)}  {part.size()} bytes"
        yield f"  {text}  {name}".rstrip()
    for problem in content.problems:
        yield f"Not read:    {safe_text(problem)}"
    if content.text:
        yield "Text:"
        for line in content.text.splitlines():
            yield f"  {safe_text(line)}".rstrip()


def to_json(content: MessageContent, parts: list[Part]) -> dict[str, Any]:
    """Return a message as a JSON object."""
    return {
        "header": {
            name.lower().replace("-", "_"): value
            for name, value in _header(content).items()
        },
        "parts": [
            {
                "part": part.number,
                "media_type": part.media_type,
                "name": part.name,
                "size": part.size(),
                "is_attachment": part.is_attachment,
            }
            for part in parts
        ],
        "text": content.text,
        "not_read": content.problems,
    }


def _header(content: MessageContent) -> dict[str, str | tuple[str, ...]]:
    return {
        "From": content.from_,
        "To": content.to,
        "Cc": content.cc,
        "Bcc": content.bcc,
        "Subject": content.subject,
        "Date": _date(content.date),
        "Message-ID": content.message_id,
        "List-Id": content.list_id,
        "References": content.references,
    }


def _date(seconds: float | None) -> str:
    """Return a time in UTC (RFC 3339), "" for none and for one beyond year 9999."""
    if seconds is None:
        return ""
    try:
        date = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return ""
    return date.isoformat().replace("+00:00", "Z")
