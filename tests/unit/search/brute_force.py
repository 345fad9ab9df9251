"""Finds mails without an index: looks at each mail, word by word.

The other judge of what a query finds: it takes the nodes of a query, and the mails as
corpus describes them, not as they are stored.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from datetime import datetime, timedelta, timezone
from email.utils import parseaddr

from postfix_archive.search.query_nodes import All, Any, Node, Not, Range, Word

from unit.search.corpus import MAILS, Mail

CJK = re.compile("[\u3005\u3040-\u30ff\u3400-\u9fff\uac00-\ud7ff]")
FACTORS = {"k": 10**3, "M": 10**6, "G": 10**9}


def names_found(node: Node) -> set[str]:
    """The names of the mails that a query finds."""
    return {mail.name for mail in MAILS if is_found(node, mail)}


def is_found(node: Node, mail: Mail) -> bool:
    """Whether a query finds a mail."""
    match node:
        case All():
            return all(is_found(each, mail) for each in node.parts)
        case Any():
            return any(is_found(each, mail) for each in node.parts)
        case Not():
            return not is_found(node.part, mail)
        case Range():
            return _is_in_range(node, mail)
        case Word():
            return _has(node, mail)


def _has(word: Word, mail: Mail) -> bool:
    field, text = word.field, word.text
    if field in ("", "body", "subject", "file"):
        if not text and word.is_prefix:
            return True
        return _has_words(word, _columns(mail), field)
    if field in ("from", "to", "cc"):
        if "@" in text:
            return _has_address(text, [each[1] for each in _mailboxes(mail, field)])
        return _has_words(word, _columns(mail), field)
    if field in ("sender", "rcpt", "bcc"):
        addresses = _envelope(mail, field)
        if "@" in text or not (text or word.is_prefix):
            return _has_address(text, addresses)
        return _has_words(word, {"": "\0".join(addresses)}, "")
    return _has_value(word, mail)


@functools.cache
def size_of(mail: Mail) -> int:
    """The size of a mail in bytes."""
    return len(mail.message)


def _has_value(word: Word, mail: Mail) -> bool:
    text = word.text.lower()
    match word.field:
        case "archive":
            return _is_start(text, mail.archive, word.is_prefix)
        case "client":
            clients = (mail.client, "client.example.org")
            return any(_is_start(text, each, word.is_prefix) for each in clients)
        case "has":
            return bool(mail.files) and text in ("attachment", "attachments")
        case "id":
            return mail.archive_id.startswith(text)
        case "list":
            return text in mail.list_id or text in mail.list_name.lower()
        case "login":
            return bool(mail.login) and _is_start(text, mail.login, word.is_prefix)
        case "msgid":
            return word.text == mail.message_id
        case "queue":
            requeued = f"4Zr{mail.number:02d}Requeued" if mail.outcomes else ""
            return word.text in (mail.queue_id, requeued)
        case "outcome":
            known = len(mail.outcomes)
            kinds = {*mail.outcomes, *["unknown"] * (len(mail.recipients) > known)}
            return text in kinds
        case "stamp":
            return text == mail.verdict
        case "type":
            return any(_is_type(text, each) for each in mail.files)
        case "larger":
            return size_of(mail) > _size(text)
        case "smaller":
            return size_of(mail) < _size(text)
        case "size":
            return size_of(mail) == _size(text)
        case "after" | "before" | "date" | "sent" | "archived":
            return _is_on_day(word, mail)
    raise AssertionError(word)


def _is_start(text: str, value: str, is_prefix: bool) -> bool:
    return value.startswith(text) if is_prefix else value == text


def _is_type(text: str, file: tuple[str, str, int]) -> bool:
    name, media_type, _ = file
    return text in (media_type, *media_type.split("/")) or name.endswith(f".{text}")


def _time(field: str, mail: Mail) -> datetime:
    return mail.arrival - timedelta(minutes=2 if field == "sent" else 0)


def _is_on_day(word: Word, mail: Mail) -> bool:
    time = _time(word.field, mail)
    start = datetime.fromisoformat(word.text.replace("/", "-")).replace(
        tzinfo=timezone.utc
    )
    if word.field == "after":
        return time >= start
    if word.field == "before":
        return time < start
    return start <= time < start + timedelta(days=1)


def _is_in_range(node: Range, mail: Mail) -> bool:
    if node.field == "size":
        value, low, high = size_of(mail), _size(node.low), _size(node.high)
        is_above = not node.low or value > low or node.has_low and value == low
        return is_above and (
            not node.high or value < high or node.has_high and value == high
        )
    day = f"{_time(node.field, mail):%Y-%m-%d}"
    is_late = not node.low or day > node.low or node.has_low and day == node.low
    return is_late and (
        not node.high or day < node.high or node.has_high and day == node.high
    )


def _size(text: str) -> int:
    match = re.fullmatch("([0-9]*)([kMG]?)", text, re.IGNORECASE)
    assert match
    return int(match[1] or 0) * FACTORS.get(match[2].upper().replace("K", "k"), 1)


def _mailboxes(mail: Mail, field: str) -> list[tuple[str, str]]:
    if field == "from":
        return [mail.sender]
    return list(mail.to if field == "to" else mail.cc)


def _envelope(mail: Mail, field: str) -> list[str]:
    if field == "sender":
        return [mail.sender_address]
    if field == "bcc":
        return list(mail.bcc)
    mapped = dict(mail.mapped)
    return [each.lower() for each in [*mail.recipients, *mapped.values()]]


def _has_address(text: str, addresses: list[str]) -> bool:
    wanted = parseaddr(text)[1].lower() if not text.startswith("@") else text.lower()
    lowered = [each.lower() for each in addresses]
    if wanted.startswith("@"):
        return any(each.endswith(wanted) for each in lowered)
    return wanted in lowered


@functools.cache
def _columns(mail: Mail) -> dict[str, str]:
    return {
        "subject": mail.subject,
        "body": "\0".join(
            [
                mail.text + (" x" * 9 if mail.padding else ""),
                f"this\0{mail.link.partition('?')[0]}" if mail.link else "",
                mail.preamble.partition("\n")[2],
            ]
        ),
        **{
            field: "\0".join(" ".join(each) for each in _mailboxes(mail, field))
            for field in ("from", "to", "cc")
        },
        "file": "\0".join(name for name, _, _ in mail.files),
    }


def _has_words(word: Word, texts: dict[str, str], field: str) -> bool:
    values = [texts[field]] if field else texts.values()
    return any(_contains(each, word) for each in values)


@functools.cache
def _contains(text: str, word: Word) -> bool:
    if CJK.search(fold(word.text)):
        return fold(word.text) in fold(text)
    wanted, present = words(word.text), words(text)
    for start in range(len(present) - len(wanted) + 1):
        part = present[start : start + len(wanted)]
        if part[:-1] == wanted[:-1] and (
            part[-1].startswith(wanted[-1]) if word.is_prefix else part == wanted
        ):
            return True
    return False


LETTERS = dict(zip("ßæøđðłþı", "ss ae o d d l th i".split()))


@functools.cache
def fold(text: str) -> str:
    """Text without case, without accents of Latin and Greek letters, and marks."""
    folded = ""
    for char in unicodedata.normalize("NFKC", text):
        base = unicodedata.normalize("NFD", char)[0]
        script = unicodedata.name(base, "").split(" ")[0]
        if script in ("LATIN", "GREEK"):
            folded += LETTERS.get(base.lower(), base)
        elif char not in "\u00adـ" and script + unicodedata.category(char) not in (
            "ARABICMn",
            "HEBREWMn",
        ):
            folded += char
    return folded.lower().replace("ё", "е").replace("ς", "σ")


@functools.cache
def words(text: str) -> list[str]:
    """The words of text, folded; characters that need no spaces are none of them."""
    return re.findall(r"[^\W_]+", CJK.sub(" ", fold(text)))
