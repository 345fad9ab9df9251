"""What can be found of one message: header fields, text, attachments. Pure values.

Made by extraction, used by the index and by show.
"""

from __future__ import annotations

from typing import NamedTuple


class Attachment(NamedTuple):
    """One attached file: name, media type (RFC 2045 5), size in decoded bytes."""

    name: str
    media_type: str
    size: int


class MessageContent(NamedTuple):
    """The decoded content of one message.

    Addresses are text such as ``Name <a@example.org>``. ``date`` is that of the header,
    in Unix time. ``message_id``, ``list_id`` and ``references`` are without angle
    brackets, ``list_name`` is what List-Id: has before them. ``text`` is that of all
    parts and attachments, with an empty line between them. ``problems`` say what could
    not be extracted, for example ``pdf: encrypted``.
    """

    from_: tuple[str, ...]
    to: tuple[str, ...]
    cc: tuple[str, ...]
    bcc: tuple[str, ...]
    subject: str
    date: float | None
    message_id: str
    list_id: str
    list_name: str
    references: tuple[str, ...]
    text: str
    attachments: tuple[Attachment, ...]
    problems: tuple[str, ...]
