"""200 queries on the corpus, with what each must find, and the same for notmuch.

Expected counts are made without an index, by looking at each message of the corpus:
words are runs of word characters, casefolded and without accents; Chinese and Japanese
is looked for as a substring.
"""

from __future__ import annotations

import random
import re
import time
import unicodedata
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

import search_corpus
from search_corpus import CJK_FIRST, Message

COUNT = 200
WORD = re.compile(r"\w+")
SECONDS_PER_DAY = 86_400
RANKS = ((0, 10), (10, 300), (300, 5000))  # of words: frequent, middling, rare
ALPHABETS = ("en", "en", "en", "de", "fr", "ru")


class Document(NamedTuple):
    """A message, as a query looks at it."""

    message: Message
    columns: tuple[str, ...]  # of each the words, with a space on both sides
    words: frozenset[str]
    raw: str  # all text as it was written

    def has_words(self, words: str) -> bool:
        """Tell whether these words follow each other somewhere."""
        return any(f" {words} " in each for each in self.columns)


Predicate = Callable[[Document], bool]


class Query(NamedTuple):
    """A query in our language and in that of notmuch ("" if it has none like it)."""

    kind: str
    text: str
    notmuch: str
    is_match: Predicate


def words_of(text: str) -> list[str]:
    """Return the words of a text."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text.casefold())
        text = "".join(each for each in decomposed if not unicodedata.combining(each))
    return WORD.findall(text.casefold())


def document(message: Message) -> Document:
    """Return a message as a query looks at it."""
    name = message.sender.partition("@")[0]
    texts = (
        "\n".join([message.text, *(text for _, text in message.attachments)]),
        message.subject,
        f"{name} {message.sender}",
        " ".join(message.header_recipients[:2]),
        " ".join(message.header_recipients[2:]),
        " ".join(name for name, _ in message.attachments),
    )
    columns = [words_of(each) for each in texts]
    return Document(
        message,
        tuple(f" {' '.join(each)} " for each in columns),
        frozenset(chain.from_iterable(columns)),
        "\n".join(texts[:2]),
    )


class Expected(NamedTuple):
    """What each query must find, and how much text there is, in bytes of UTF-8.

    ``text`` has each text once, ``alternatives`` is what is there again as HTML.
    """

    counts: list[int]
    text: int
    alternatives: int


def expect(queries: list[Query], count: int) -> Expected:
    """Look at each of so many messages."""
    counts = [0] * len(queries)
    text = alternatives = 0
    for number in range(count):
        message = search_corpus.message(number)
        each = document(message)
        for place, query in enumerate(queries):
            counts[place] += query.is_match(each)
        text += len(each.raw.encode()) + sum(map(len, each.columns[2:]))
        if b"multipart/alternative" in message.original:
            alternatives += len(message.text.encode())
    return Expected(counts, text, alternatives)


def make(count: int) -> list[Query]:
    """Return the queries on so many messages, the same ones each time."""
    chance = random.Random("queries")
    makers: tuple[tuple[int, Callable[[random.Random, int], Query]], ...] = (
        (40, _word),
        (20, _phrase),
        (35, _address),
        (25, _date),
        (45, _boolean),
        (15, _prefix),
        (20, _substring),
    )
    assert sum(number for number, _ in makers) == COUNT
    return [make(chance, count) for number, make in makers for _ in range(number)]


def _word(chance: random.Random, _: int) -> Query:
    language = chance.choice(ALPHABETS)
    first, last = chance.choice(RANKS)
    word = search_corpus.vocabulary(language)[chance.randrange(first, last)]
    [folded] = words_of(word)
    return Query("word", word, word, lambda each: folded in each.words)


def _phrase(chance: random.Random, count: int) -> Query:
    """Three words of a message that follow each other."""
    while True:
        message = search_corpus.message(chance.randrange(count))
        words = chance.choice(message.text.split("\n")).strip(".").split()
        if len(words) > 3:
            break
    start = chance.randrange(len(words) - 3)
    phrase = " ".join(words[start : start + 3])
    folded = " ".join(words_of(phrase))
    quoted = f'"{phrase}"'
    return Query("phrase", quoted, quoted, lambda each: each.has_words(folded))


def _address(chance: random.Random, _: int) -> Query:
    person = search_corpus.people()[int(chance.expovariate(1 / 100))]
    field = chance.choice(("from", "to", "cc", "rcpt", "bcc", "sender", "@"))
    if field == "@":
        domain = person.partition("@")[2]
        return Query(
            "address",
            f"from:@{domain}",
            f"from:{domain}",
            lambda each: each.message.sender.endswith(f"@{domain}"),
        )
    notmuch = f"{field}:{person}" if field in ("from", "to") else ""
    return Query(
        "address",
        f"{field}:{person}",
        notmuch,
        lambda each: person in _addresses(each.message, field),
    )


def _addresses(message: Message, field: str) -> tuple[str, ...]:
    if field in ("from", "sender"):
        return (message.sender,)
    shown = message.header_recipients
    if field == "bcc":
        return tuple(each for each in message.recipients if each not in shown)
    return {"to": shown[:2], "cc": shown[2:], "rcpt": message.recipients}[field]


def _date(chance: random.Random, count: int) -> Query:
    """Some days, in which the corpus has many messages or few; or with a word."""
    days = count * search_corpus.SECONDS_BETWEEN // SECONDS_PER_DAY + 1
    first = search_corpus.FIRST_DAY + chance.randrange(days) * SECONDS_PER_DAY
    end = first + chance.choice((1, 2, 7, 30)) * SECONDS_PER_DAY
    form = chance.choice(("date", "before", "after"))
    low, high = {"date": (first, end), "before": (0, first), "after": (first, 1 << 40)}[
        form
    ]
    text = f"{form}:{_day(first)}"
    if form == "date":
        text = f"date:[{_day(first)} TO {_day(end - 1)}]"
    notmuch = f"date:@{low}..@{high - 1}"
    if form == "after":
        notmuch = f"date:@{low}.."
    word = _word(chance, count)
    if chance.random() < 0.5:
        word = Query("", "", "", lambda _: True)
    return Query(
        "date",
        f"{text} {word.text}".strip(),
        f"{notmuch} {word.notmuch}".strip(),
        lambda each: low <= each.message.arrival < high and word.is_match(each),
    )


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _boolean(chance: random.Random, count: int) -> Query:
    one, two, three = (_any(chance, count) for _ in range(3))
    form = chance.choice(("{} {}", "{} OR {}", "{} NOT {}", "({} OR {}) {}"))
    texts = (one.text, two.text, three.text)
    others = (one.notmuch, two.notmuch, three.notmuch)
    notmuch = form.format(*others).lower() if all(others) else ""

    def is_match(each: Document) -> bool:
        if form == "{} {}":
            return one.is_match(each) and two.is_match(each)
        if form == "{} OR {}":
            return one.is_match(each) or two.is_match(each)
        if form == "{} NOT {}":
            return one.is_match(each) and not two.is_match(each)
        return (one.is_match(each) or two.is_match(each)) and three.is_match(each)

    return Query("and, or, not", form.format(*texts), notmuch, is_match)


def _any(chance: random.Random, count: int) -> Query:
    return chance.choice((_word, _word, _address, _substring, _subject))(chance, count)


def _subject(chance: random.Random, _: int) -> Query:
    word = search_corpus.vocabulary("en")[chance.randrange(100)]
    text = f"subject:{word}"
    return Query("", text, text, lambda each: f" {word} " in each.columns[1])


def _prefix(chance: random.Random, _: int) -> Query:
    word = search_corpus.vocabulary(chance.choice(ALPHABETS))[chance.randrange(5000)]
    start = word[: max(3, len(word) - chance.randrange(1, 4))]
    [folded] = words_of(start)
    return Query(
        "prefix",
        f"{start}*",
        f"{start}*",
        lambda each: any(f" {folded}" in column for column in each.columns),
    )


def _substring(chance: random.Random, count: int) -> Query:
    """One to four characters that follow each other in a Chinese or Japanese text."""
    for message in _messages(chance, count):
        if ord(message.text[0]) >= min(CJK_FIRST.values()):
            break
    line = chance.choice(message.text.split("\n"))
    start = chance.randrange(len(line) - 6)
    part = line[start : start + chance.randint(1, 4)]
    return Query("CJK substring", part, part, lambda each: part in each.raw)


def _messages(chance: random.Random, count: int) -> Iterator[Message]:
    while True:
        yield search_corpus.message(chance.randrange(count))
