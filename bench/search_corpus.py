"""A corpus of mail to search in, the same in every run: words, threads, attachments.

    message(number) is one message of it: six languages, each with a vocabulary whose
    words are as frequent as Zipf's law says, 1 to 50 KB, half of them with HTML, one in
    ten with attachments, one in three an answer.

Chinese and Japanese have no spaces: they are runs of characters, chosen likewise.
"""

from __future__ import annotations

import base64
import functools
import itertools
import random
from collections.abc import Sequence
from email.header import Header
from typing import NamedTuple

from postfix_archive.message import dates

PEOPLE, DOMAINS = 2000, 40
VOCABULARY = 30_000  # words of a language
CHARACTERS = 3000  # of Chinese or Japanese
FIRST_DAY = 1_735_689_600  # 2025-01-01, Unix time
SECONDS_BETWEEN = 30  # between two messages
SIZE_LOG_MEAN, SIZE_LOG_SPREAD = 8.0, 0.9  # of the text, in characters: median 3,000
SMALLEST, LARGEST = 500, 40_000  # characters of text
HTML_SHARE, ATTACHMENT_SHARE, ANSWER_SHARE, BCC_SHARE = 0.5, 0.1, 0.33, 0.1
BLOCK = 64  # words or characters that are chosen at once
LANGUAGES = ("en", "de", "fr", "ru", "zh", "ja")
LANGUAGE_WEIGHTS = (50, 15, 10, 10, 10, 5)
SYLLABLES = {
    "en": "the ing er tion al re con st pro ment ly ness able dis tra sion ver com",
    "de": "ung ver schaft ge be stel ler keit über für än trag aus zei lich mög öff",
    "fr": "é tion ment re con ç eur é ais eau ré ê prin cip è té vous où à dé",
    "ru": "при по ста ние ова тель про ред ств ный раз го вор ком пан ия до",
}
CJK_FIRST = {"zh": 0x4E00, "ja": 0x5E00}
KANA = "のにをはがとでものからまでです"


class Message(NamedTuple):
    """A message: the original as Postfix received it, and its envelope."""

    original: bytes
    sender: str
    recipients: tuple[str, ...]
    arrival: int  # Unix time
    subject: str
    text: str  # of the body, without attachments
    attachments: tuple[tuple[str, str], ...]  # name and text
    header_recipients: tuple[str, ...]


def message(number: int) -> Message:
    """Return the message with this number."""
    chance = random.Random(number)
    language = chance.choices(LANGUAGES, LANGUAGE_WEIGHTS)[0]
    arrival = FIRST_DAY + number * SECONDS_BETWEEN
    sender, *recipients = _people(chance)
    visible = list(recipients)
    if len(recipients) > 1 and chance.random() < BCC_SHARE:
        visible.pop()
    parent = (
        chance.randrange(number) if number and chance.random() < ANSWER_SHARE else -1
    )
    subject = f"Re: {_subject(parent)}" if parent >= 0 else _subject(number)
    size = int(chance.lognormvariate(SIZE_LOG_MEAN, SIZE_LOG_SPREAD))
    text = _text(chance, language, min(max(size, SMALLEST), LARGEST))
    attachments = _attachments(chance, language, number)
    original = _received(number, sender, arrival) + _header(
        number, parent, sender, visible, subject, arrival
    )
    original += _body(text, attachments, has_html=chance.random() < HTML_SHARE)
    return Message(
        original,
        sender,
        tuple(recipients),
        arrival,
        subject,
        text,
        attachments,
        tuple(visible),
    )


@functools.cache
def people() -> tuple[str, ...]:
    """Return all addresses, the most frequent first."""
    chance = random.Random("people")
    return tuple(
        f"{word(chance, 'en', longest=3)}{number}@d{number % DOMAINS}.example"
        for number in range(PEOPLE)
    )


@functools.cache
def vocabulary(language: str) -> tuple[str, ...]:
    """Return the words of a language, the most frequent first."""
    chance = random.Random(language)
    words: dict[str, None] = {}
    while len(words) < VOCABULARY:
        words[word(chance, language, longest=2 if len(words) < 100 else 4)] = None
    return tuple(words)


def word(chance: random.Random, language: str, *, longest: int) -> str:
    """Return a word of one to so many syllables."""
    syllables = SYLLABLES[language].split()
    count = chance.randint(1, longest)
    return "".join(chance.choice(syllables) for _ in range(count))


@functools.cache
def characters(language: str) -> str:
    """Return the characters of Chinese or Japanese, the most frequent first."""
    first = CJK_FIRST[language]
    return "".join(map(chr, range(first, first + CHARACTERS)))


@functools.cache
def _weights(count: int) -> Sequence[float]:
    """Return the cumulated weights of Zipf's law."""
    return tuple(itertools.accumulate(1 / (rank + 2) for rank in range(count)))


def _people(chance: random.Random) -> list[str]:
    count = 2 + min(int(chance.expovariate(0.7)), 20)
    chosen = chance.choices(people(), cum_weights=_weights(PEOPLE), k=count + 5)
    return list(dict.fromkeys(chosen))[:count]


def _subject(number: int) -> str:
    chance = random.Random(f"subject {number}")
    language = chance.choices(LANGUAGES, LANGUAGE_WEIGHTS)[0]
    return _text(chance, language, 30).replace("\n", " ").strip(" .。")


def _text(chance: random.Random, language: str, size: int) -> str:
    """Return so many characters of text, or a few more."""
    pieces: list[str] = []
    length = 0
    while length < size:
        piece = _sentence(chance, language)
        pieces.append(piece)
        length += len(piece) + 1
    return "\n".join(pieces)


def _sentence(chance: random.Random, language: str) -> str:
    if language in CJK_FIRST:
        chosen = chance.choices(
            characters(language), cum_weights=_weights(CHARACTERS), k=BLOCK
        )
        if language == "ja":
            chosen[::3] = chance.choices(KANA, k=len(chosen[::3]))
        return "".join(chosen) + "。"
    words = vocabulary(language)
    chosen = chance.choices(words, cum_weights=_weights(VOCABULARY), k=BLOCK // 4)
    return " ".join(chosen) + "."


def _attachments(
    chance: random.Random, language: str, number: int
) -> tuple[tuple[str, str], ...]:
    if chance.random() >= ATTACHMENT_SHARE:
        return ()
    suffix = chance.choice(("txt", "csv", "html"))
    return ((f"report-{number}.{suffix}", _text(chance, language, 2000)),)


def _received(number: int, sender: str, arrival: int) -> bytes:
    host = sender.partition("@")[2]
    return (
        f"Received: from {host} ({host} [192.0.2.7])\r\n"
        f"\tby mail.example.com (Postfix) with ESMTP id 4Z{number:010d};\r\n"
        f"\t{dates.format_rfc5322(arrival).decode()}\r\n"
    ).encode()


def _header(
    number: int,
    parent: int,
    sender: str,
    visible: Sequence[str],
    subject: str,
    arrival: int,
) -> bytes:
    lines = [
        f"From: {sender.partition('@')[0].title()} <{sender}>",
        f"To: {', '.join(visible[:2])}",
        *([f"Cc: {', '.join(visible[2:])}"] if visible[2:] else []),
        f"Subject: {Header(subject, 'utf-8', header_name='Subject').encode()}",
        f"Date: {dates.format_rfc5322(arrival).decode()}",
        f"Message-ID: <{number}@corpus.example>",
        "MIME-Version: 1.0",
    ]
    if parent >= 0:
        reference = f"<{parent}@corpus.example>"
        lines += [f"In-Reply-To: {reference}", f"References: {reference}"]
    return "\r\n".join(lines).replace("\r\n", "\n").replace("\n", "\r\n").encode() + (
        b"\r\n"
    )


def _body(
    text: str, attachments: Sequence[tuple[str, str]], *, has_html: bool
) -> bytes:
    parts = [_part("text/plain", text)]
    if has_html:
        paragraphs = "".join(f"<p>{each}</p>\n" for each in text.split("\n"))
        page = f"<html><head><style>p {{ margin: 0 }}</style></head>{paragraphs}</html>"
        parts = [_multipart("alternative", [*parts, _part("text/html", page)])]
    for name, content in attachments:
        kind = {"txt": "plain", "csv": "csv", "html": "html"}[name.rpartition(".")[2]]
        disposition = f'Content-Disposition: attachment; filename="{name}"\r\n'
        parts.append(disposition.encode() + _part(f"text/{kind}", content))
    return parts[0] if len(parts) == 1 else _multipart("mixed", parts)


def _part(media_type: str, text: str) -> bytes:
    header = (
        f"Content-Type: {media_type}; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: {'7bit' if text.isascii() else 'base64'}\r\n\r\n"
    )
    if text.isascii():
        return header.encode() + text.replace("\n", "\r\n").encode() + b"\r\n"
    encoded = base64.encodebytes(text.encode()).replace(b"\n", b"\r\n")
    return header.encode() + encoded


def _multipart(subtype: str, parts: Sequence[bytes]) -> bytes:
    boundary = f"=-{subtype}"
    header = f'Content-Type: multipart/{subtype}; boundary="{boundary}"\r\n\r\n'
    delimiter = f"--{boundary}".encode()
    lines = b"".join(delimiter + b"\r\n" + each + b"\r\n" for each in parts)
    return header.encode() + lines + delimiter + b"--\r\n"
