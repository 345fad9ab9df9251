"""Reads the header fields of a message that people search for.

Used by extraction and, in the parent process, by extraction_process. Never raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from postfix_archive.message import dates, encoded_words
from postfix_archive.search import charset
from postfix_archive.search.content import MessageContent
from postfix_archive.search.extraction_limits import FIELD_COUNT_LIMIT, FIELD_LIMIT

ADDRESS_FIELDS = ("from", "to", "cc", "bcc")
READ_FIELDS = frozenset(
    ADDRESS_FIELDS
    + ("date", "in-reply-to", "list-id", "message-id", "references", "subject")
)
_ADDRESS = r"[\w!#$%&'*+/=?^`{|}~.-]+@[A-Za-z0-9.-]+"
# A mailbox as most programs write it (RFC 5322 3.4), and the comma after it.
MAILBOX = re.compile(
    rf'(?:(?:\s*"([^"\\]*)"\s*|([^"\\()<>@,:;\[\]]*))<({_ADDRESS})>|\s*({_ADDRESS}))'
    r"\s*(?:,|\Z)",
    re.ASCII,
)
BRACKETED = re.compile(r"<([^<>\s]+)>")
NO_CONTENT = MessageContent((), (), (), (), "", None, "", "", "", (), "", (), ())
REFERENCE_LIMIT = 1000


def read(fields: Iterable[tuple[str, bytes]]) -> MessageContent:
    """Return the content of a message as its header alone says it.

    fields: names and unfolded values. Of a field that is there twice, lists
    of addresses and references have both, all else the first.
    """
    values: dict[str, list[bytes]] = {}
    for name, value in fields:
        name = name.lower()
        if name not in READ_FIELDS:
            continue
        same_name = values.setdefault(name, [])
        if len(same_name) < FIELD_COUNT_LIMIT:
            same_name.append(value[:FIELD_LIMIT])
    lists = [_addresses(values.get(each, [])) for each in ADDRESS_FIELDS]
    list_field = _first_text(values, "list-id")
    references = values.get("references", []) + values.get("in-reply-to", [])
    return NO_CONTENT._replace(
        from_=lists[0],
        to=lists[1],
        cc=lists[2],
        bcc=lists[3],
        subject=_first_text(values, "subject"),
        date=_date(_first_text(values, "date")),
        message_id=_id(_first_text(values, "message-id")),
        list_id=_id(list_field),
        list_name=_list_name(list_field),
        references=tuple(
            dict.fromkeys(
                match[1]
                for value in references
                for match in BRACKETED.finditer(value.decode("utf-8", "replace"))
            )
        )[-REFERENCE_LIMIT:],
    )


def text(value: bytes) -> str:
    """Return a field's value as text on one line, encoded words (RFC 2047) decoded."""
    return " ".join(encoded_words.decode(value, charset.decode_undeclared).split())


def _first_text(values: dict[str, list[bytes]], name: str) -> str:
    found = values.get(name)
    return text(found[0]) if found else ""


def _id(value: str) -> str:
    """Return what is between the last angle brackets, or else the whole value."""
    matches = BRACKETED.findall(value)
    return str(matches[-1]) if matches else value


def _list_name(value: str) -> str:
    """Return what is before the angle brackets of List-Id: (RFC 2919 3)."""
    return value.partition("<")[0].strip().strip('"') if "<" in value else ""


def _addresses(values: list[bytes]) -> tuple[str, ...]:
    """Return all addresses of a field; a value that is none as it stands."""
    addresses: list[str] = []
    for value in values:
        # Once for all names: a guess of the charset takes 10 ms.
        decoded = (
            value.decode() if value.isascii() else charset.decode_undeclared(value)
        )
        pairs = _simple_mailboxes(decoded) or _mailboxes(decoded)
        found = [_address(name, address) for name, address in pairs if address]
        if not any("@" in each for each in found):
            found = []  # the parser leaves out what it does not understand
        addresses += found or ([text(value)] if value.strip() else [])
    return tuple(addresses)


def _simple_mailboxes(value: str) -> list[tuple[str, str]]:
    """Return names and addresses, [] if one of them is not simple."""
    pairs = []
    position = 0
    while position < len(value):
        match = MAILBOX.match(value, position)
        if match is None:
            return []
        quoted, name, bracketed, plain = match.groups()
        pairs.append(((quoted or name or "").strip(), bracketed or plain))
        position = match.end()
    return pairs


def _mailboxes(value: str) -> list[tuple[str, str]]:
    """Return names and addresses, [] if they cannot be read."""
    import email.utils  # takes 7 ms, which most messages do not need

    try:
        return email.utils.getaddresses([value])
    except (ValueError, IndexError, RecursionError):
        return []


def _address(name: str, address: str) -> str:
    decoded = text(address.encode("utf-8", "replace"))
    if not name:
        return decoded
    return f"{text(name.encode('utf-8', 'replace'))} <{decoded}>"


def _date(value: str) -> float | None:
    """Return the Unix time of a Date field (RFC 5322 3.3), None if it is none."""
    seconds = dates.parse_rfc5322(value.encode("ascii", "replace"))
    if seconds is not None:
        return float(seconds)
    import email.utils  # see _mailboxes()

    try:
        parsed = email.utils.parsedate_tz(value)
        return None if parsed is None else float(email.utils.mktime_tz(parsed))
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
