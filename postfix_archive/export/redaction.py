"""What a party may see who must not learn of blind recipients (--redact-bcc).

Used by export/run. A recipient of the envelope may be named if it is in a To: or Cc:
field of the message. All others are hidden: they are in no list, and header fields of
the message that are Bcc: or name one of them are left out of it. The body is not
changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from email.utils import getaddresses
from itertools import chain
from urllib.parse import unquote_to_bytes

from postfix_archive.errors import RecordDamaged
from postfix_archive.message import address, encoded_words, header
from postfix_archive.message.envelope import Recipient
from postfix_archive.system.spool import Spool

SHOWN_TO = (b"to", b"cc", b"resent-to", b"resent-cc")
BLIND = (b"bcc", b"resent-bcc")
# Fields that stay even if they name a hidden recipient: who wrote, and what about. The
# writer often is a blind recipient too. All other fields record the delivery.
KEPT = (
    *SHOWN_TO,
    *(b"from", b"sender", b"reply-to", b"resent-from", b"resent-sender"),
    *(b"subject", b"comments", b"keywords", b"date", b"message-id", b"references"),
    *(b"in-reply-to", b"mime-version", b"content-type", b"dkim-signature"),
)
NAME = re.compile(rb"[!-9;-~]+")  # RFC 5322 2.2
NO_FIELD = "(no field)"  # instead of the name of a line that is no header field
END_OF_HEADER = b"\r\n\r\n"
NOT_ADDRESS = re.compile(rb'[\s"\\]+')
NEXT_FIELD = re.compile(rb"(?<=\r\n)(?![ \t])")


class Redaction:
    """What is left out of one message.

    ``recipients`` are those that may be named, with the address that may be;
    ``removed`` the names of the header fields that are left out of the message.
    """

    def __init__(self, message: Spool, recipients: Iterable[Recipient]) -> None:
        """Raise RecordDamaged for a header that is too long to be checked."""
        head = message.head()
        # As if a line had ended before the first byte: the header may be empty.
        self._end = (b"\r\n" + head).find(END_OF_HEADER)
        if self._end < 0:
            self._end = len(head)
            if message.size > len(head):
                raise RecordDamaged(
                    f"the header has more than {header.HEAD_LIMIT} bytes: it cannot be"
                    " redacted; export this message without --redact-bcc"
                )
        fields = NEXT_FIELD.split(head[: self._end])
        shown = set(_addresses(each for each in fields if _name(each) in SHOWN_TO))
        self.recipients: dict[tuple[bytes, bytes], bytes] = {}
        hidden = set()
        for each in recipients:
            visible = _visible_address(each, shown)
            if visible:
                self.recipients[(each.final, each.original or each.final)] = visible
            hidden |= {
                form
                for address_ in (each.final, each.original)
                if address_ and _key(address_) not in shown
                for form in {_key(address_), _without_extension(_key(address_))} - shown
            }
        self._forms = {form for each in hidden for form in _written_forms(each)}
        self._kept = [each for each in fields if not self._is_removed(each)]
        removed = (_name(each) for each in fields if self._is_removed(each))
        names = (e.decode() if NAME.fullmatch(e) else NO_FIELD for e in removed)
        self.removed = [*dict.fromkeys(names)]

    def names_hidden(self, text: bytes) -> bool:
        """Tell whether text has the address of a hidden recipient.

        Also as VERP, folded, quoted, in an encoded word (RFC 2047) or in a URL.
        """
        if not self._forms:
            return False
        decoded = encoded_words.decode(text.replace(b"\r\n", b""))
        plain = decoded.encode("utf-8", "replace")
        texts = {_simplified(each) for each in (text, plain, unquote_to_bytes(plain))}
        return any(form in each for form in self._forms for each in texts)

    def content(self, message: Spool) -> Iterator[bytes]:
        """Yield the message without the removed fields."""
        return chain((b"".join(self._kept),), message.chunks(self._end))

    def _is_removed(self, field: bytes) -> bool:
        name = _name(field)
        return name in BLIND or name not in KEPT and self.names_hidden(field)


def others(
    recipients: Iterable[Recipient], own_addresses: Iterable[str]
) -> list[Recipient]:
    """Return the recipients that have none of these addresses, in lower case."""
    own = {each.encode() for each in own_addresses}
    return [e for e in recipients if not {e.final.lower(), e.original.lower()} & own]


def _visible_address(recipient: Recipient, shown: set[bytes]) -> bytes:
    """Return the address under which a recipient may be named, empty for none."""
    for each in (recipient.final, recipient.original):
        if each and _key(each) in shown:
            return each
    return b""


def _addresses(fields: Iterable[bytes]) -> Iterator[bytes]:
    for field in fields:
        value = field.partition(b":")[2].replace(b"\r\n", b"")
        for _, found in getaddresses([address.as_text(value)]):
            yield _key(address.as_bytes(found))


def _written_forms(key: bytes) -> tuple[bytes, ...]:
    """Return an address as it is written in fields, and within a VERP sender."""
    simple = _simplified(key)
    return simple, simple.replace(b"@", b"=")


def _without_extension(key: bytes) -> bytes:
    """Return an address without what follows the first "+" of its local part."""
    local, at, domain = key.rpartition(b"@")
    return (local.partition(b"+")[0] or local) + at + domain


def _simplified(text: bytes) -> bytes:
    """Return text in lower case without white space and quoting."""
    return NOT_ADDRESS.sub(b"", text).lower()


def _key(value: bytes) -> bytes:
    return value.lower()


def _name(field: bytes) -> bytes:
    return field.partition(b":")[0].strip().lower()
