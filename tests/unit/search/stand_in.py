"""A plain extraction with the standard library alone, for tests of the index."""

from __future__ import annotations

import email
import email.policy
import re

from postfix_archive.search.content import Attachment, MessageContent


def extract(original: bytes) -> MessageContent:
    """The content of one of corpus's messages."""
    message = email.message_from_bytes(original, policy=email.policy.default)
    parts = [each for each in message.walk() if not each.is_multipart()]
    texts = [
        re.sub("<[^>]*>", " ", each.get_content())
        for each in parts
        if each.get_content_maintype() == "text" and not each.get_filename()
    ]
    date = message["date"]
    return MessageContent(
        from_=_mailboxes(message, "from"),
        to=_mailboxes(message, "to"),
        cc=_mailboxes(message, "cc"),
        bcc=(),
        subject=str(message["subject"] or ""),
        date=date.datetime.timestamp() if date else None,
        message_id=str(message["message-id"] or "").strip("<>"),
        list_id=str(message["list-id"] or "").strip("<>"),
        references=(),
        text="\n\n".join(texts),
        attachments=tuple(
            Attachment(
                each.get_filename() or "",
                each.get_content_type(),
                len(each.get_payload(decode=True)),
            )
            for each in parts
            if each.get_filename()
        ),
        problems=(),
    )


def _mailboxes(message: email.message.EmailMessage, name: str) -> tuple[str, ...]:
    return tuple(
        (
            f"{each.display_name} <{each.addr_spec}>"
            if each.display_name
            else each.addr_spec
        )
        for field in message.get_all(name, [])
        for each in field.addresses
    )
