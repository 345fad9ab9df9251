"""The fields of the query language, and what each of them asks the index.

Used by index_reader. Pure but for the local time zone. Raises QueryInvalid with the
place of the error. docs/searching.md lists the fields; a test compares.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from postfix_archive.errors import QueryInvalid
from postfix_archive.search import (
    cjk,
    folding,
    index_entry,
    index_schema,
    query_condition,
    query_values,
)
from postfix_archive.search.query_condition import Condition
from postfix_archive.search.query_nodes import All, Any, Node, Not, Range, Word

HIGHEST = "\U0010ffff"  # sorts after all that begins with the same characters
DIGITS = 64  # of a SHA-256

TEXT_COLUMNS = {
    "body": "body",
    "cc": "header_cc",
    "file": "file",
    "from": "header_from",
    "subject": "subject",
    "to": "header_to",
}
ROLES = {
    "bcc": index_schema.BCC,
    "cc": index_schema.CC,
    "from": index_schema.FROM,
    "rcpt": index_schema.RECIPIENT,
    "sender": index_schema.SENDER,
    "to": index_schema.TO,
}
TIME_COLUMNS = {
    "after": "arrived",
    "archived": "archived",
    "before": "arrived",
    "date": "arrived",
    "newer_than": "arrived",
    "older_than": "arrived",
    "sent": "sent",
    "until": "keep_until",
}
RANGES = ("archived", "date", "sent", "until")
LABEL_SQL = "SELECT message FROM label_use WHERE label IN (SELECT number FROM label"
HAS = {
    "attachment": Condition("m.attachments > 0"),
    "problem": query_condition.of_source(
        f"{LABEL_SQL} WHERE kind = ?)", index_schema.LABELS.index("problem")
    ),
    "retention": Condition("m.keep_until IS NOT NULL"),
}


class Compiler:
    """Makes the conditions of one query on one archive."""

    def __init__(self, query: str, archive: str, now: float) -> None:
        """Begin; now (Unix time) is that of newer_than: and of dates without a year."""
        self._query = query
        self._archive = archive
        self._now = now

    def conditions(self, node: Node) -> list[Condition]:
        """Return the conditions that a message must meet, all of them."""
        parts = node.parts if isinstance(node, All) else (node,)
        return query_condition.all_of([self._condition(each) for each in parts])

    def _condition(self, node: Node) -> Condition:
        match node:
            case Not():
                return query_condition.negate(self._condition(node.part))
            case Any():
                return query_condition.any_of([*map(self._condition, node.parts)])
            case All():
                return query_condition.combine([*map(self._condition, node.parts)])
            case Word() | Range():
                return self._term(node)

    def _term(self, term: Word | Range) -> Condition:
        if term.field and term.field not in FIELDS:
            before = self._query[: term.position].lower()
            raise QueryInvalid(
                f"there is no field {term.field}; put text with a colon in quotes (the"
                f" fields are {', '.join(sorted(FIELDS))})",
                self._query,
                max(0, before.rfind(f"{term.field}:")),
            )
        try:
            if isinstance(term, Range):
                return self._range(term)
            if not term.text and term.is_prefix and not term.field:
                return query_condition.ALWAYS
            if not (term.text.strip() or _is_null_sender(term)):
                raise ValueError("there is nothing to search for")
            return FIELDS[term.field](self, term) if term.field else _text(self, term)
        except ValueError as error:
            raise self._error(str(error), term) from None

    def _range(self, term: Range) -> Condition:
        if term.field == "size":
            low, high = (_size(each) for each in (term.low, term.high))
        elif term.field in RANGES:
            low, high = self._times(term)
        else:
            raise ValueError(
                f"{term.field}: has no ranges; {', '.join(RANGES)} and size have"
            )
        column = TIME_COLUMNS.get(term.field, term.field)
        if low is not None and not term.has_low and term.field == "size":
            low += 1
        if high is not None and not term.has_high and term.field == "size":
            high -= 1
        return query_condition.between(column, low, high)

    def _times(self, term: Range) -> tuple[int | None, int | None]:
        """Return first and last second; a day that is left out is left out whole."""
        low = high = None
        if term.low:
            start, end = query_values.parse_date(term.low, self._now)
            low = start if term.has_low else end
        if term.high:
            start, end = query_values.parse_date(term.high, self._now)
            high = (end if term.has_high else start) - 1
        return low, high

    def _error(self, reason: str, term: Word | Range) -> QueryInvalid:
        return QueryInvalid(reason, self._query, min(term.position, len(self._query)))

    def date(self, word: Word) -> Condition:
        """A day, month or year; also the start or end of one."""
        column = TIME_COLUMNS[word.field]
        start, end = query_values.parse_date(word.text, self._now)
        if word.field == "after":
            return query_condition.between(column, start, None)
        if word.field == "before":
            return query_condition.between(column, None, start - 1)
        return query_condition.between(column, start, end - 1)

    def age(self, word: Word) -> Condition:
        """An age such as 7d."""
        limit = query_values.parse_age(word.text, self._now)
        if word.field == "newer_than":
            return query_condition.between("arrived", limit, None)
        return query_condition.between("arrived", None, limit - 1)

    def archive(self, word: Word) -> Condition:
        """An archive address, or its beginning."""
        text = word.text.lower()
        is_match = self._archive == text or (
            word.is_prefix and self._archive.startswith(text)
        )
        return query_condition.ALWAYS if is_match else query_condition.NEVER


def _size(text: str) -> int | None:
    return query_values.parse_size(text) if text else None


def _fts_phrase(word: Word) -> str:
    """Return the text of a word or phrase as a string of FTS5."""
    terms = cjk.query_terms(folding.normalize(word.text))
    if not any(unicodedata.category(each)[0] in "LN" for each in terms):
        raise ValueError(f"{word.text!r} has no letter and no digit to search for")
    quoted = terms.replace('"', " ")
    return f'"{quoted}"' + (" *" if word.is_prefix else "")


def _text(_: Compiler, word: Word) -> Condition:
    phrase = _fts_phrase(word)
    column = TEXT_COLUMNS.get(word.field, "")
    return query_condition.of_match(f"{column} : {phrase}" if column else phrase)


def _mailbox(compiler: Compiler, word: Word) -> Condition:
    """An address or @domain exactly; words in names and addresses of the header."""
    return _address(compiler, word) if _is_address(word) else _text(compiler, word)


def _is_null_sender(word: Word) -> bool:
    """Tell whether it is ``sender:<>``; query_syntax makes "" of the brackets."""
    return word.field == "sender" and not (word.text or word.is_prefix)


def _is_address(word: Word) -> bool:
    is_whole = not (word.is_prefix or " " in word.text.strip())
    return _is_null_sender(word) or ("@" in word.text and is_whole)


def _address(_: Compiler, word: Word) -> Condition:
    """An address or @domain exactly; words in addresses of the envelope."""
    name = index_entry.normalize_name(word.text)
    if not _is_address(word):
        found = "SELECT rowid FROM address_text WHERE address_text MATCH ?"
        value = _fts_phrase(word)
    elif name.startswith("@"):
        found, value = "SELECT number FROM address WHERE domain = ?", name[1:]
    else:
        found, value = "SELECT number FROM address WHERE name = ?", name
    role = ROLES[word.field]
    return query_condition.of_source(
        f"SELECT message FROM address_use WHERE address IN ({found})"
        f" AND roles & {role}",
        value,
    )


def _label(_: Compiler, word: Word) -> Condition:
    """A value that many messages have, or its beginning."""
    name = index_entry.normalize_name(word.text)
    kind = index_schema.LABELS.index(word.field)
    names, values = "name = ?", [name]
    if word.is_prefix:
        names, values = "name >= ? AND name < ?", [name, name + HIGHEST]
    elif word.field in ("list", "problem"):
        names = "instr(name, ?)"
    elif word.field == "type" and "/" not in name:
        # application/pdf, image/*, or the extension of a file name
        names = "name = ? OR name = ? OR name LIKE ? ESCAPE '\\'"
        literal = name.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
        names += " OR name LIKE ? ESCAPE '\\'"
        values = [name, f".{name}", f"{literal}/%", f"%/{literal}"]
    return query_condition.of_source(
        f"{LABEL_SQL} WHERE kind = ? AND ({names}))", kind, *values
    )


def _key(_: Compiler, word: Word) -> Condition:
    """A Message-ID or queue id, whole."""
    if word.is_prefix:
        raise ValueError(f"{word.field}: needs the whole value, without *")
    text = word.text.strip().strip("<>")
    return query_condition.of_source(
        "SELECT message FROM message_key WHERE hash = ?",
        index_entry.key_hash((word.field, folding.normalize(text))),
    )


def _id(_: Compiler, word: Word) -> Condition:
    """An archive id, or its beginning."""
    text = word.text.lower()
    return query_condition.of_source(
        "SELECT number FROM message WHERE archive_id >= ? AND archive_id < ?",
        text,
        text + HIGHEST,
    )


def _sha256(_: Compiler, word: Word) -> Condition:
    """The SHA-256 of the original, or its first digits."""
    text = word.text.lower()
    if text.strip("0123456789abcdef") or len(text) > DIGITS:
        raise ValueError(f"{word.text!r} is not a SHA-256 in hexadecimal digits")
    return query_condition.of_source(
        "SELECT number FROM message WHERE sha256 BETWEEN ? AND ?",
        bytes.fromhex(text.ljust(DIGITS, "0")),
        bytes.fromhex(text.ljust(DIGITS, "f")),
    )


def _outcome(_: Compiler, word: Word) -> Condition:
    """What became of one of the recipients."""
    bit = index_schema.OUTCOME_BITS.get(word.text.lower())
    if bit is None or word.is_prefix:
        kinds = ", ".join(index_schema.OUTCOME_KINDS)
        raise ValueError(f"there is no outcome {word.text!r}; there are {kinds}")
    all_bits = 2 * max(index_schema.OUTCOME_BITS.values())
    masks = ", ".join(str(each) for each in range(all_bits) if each & bit)
    return Condition(
        f"m.outcomes & {bit}",
        source=f"SELECT number FROM message WHERE outcomes IN ({masks})",
    )


def _has(_: Compiler, word: Word) -> Condition:
    """Something that a message has or has not."""
    name = word.text.lower().removesuffix("s")
    if name not in HAS or word.is_prefix:
        raise ValueError(f"there is no has:{word.text}; there are {', '.join(HAS)}")
    return HAS[name]


def _bytes(_: Compiler, word: Word) -> Condition:
    """The size of the original; also its least and its limit."""
    size = query_values.parse_size(word.text)
    if word.field == "larger":
        return query_condition.between("size", size + 1, None)
    if word.field == "smaller":
        return query_condition.between("size", None, size - 1)
    return query_condition.between("size", size, size)


Maker = Callable[[Compiler, Word], Condition]
FIELDS: dict[str, Maker] = {
    "after": Compiler.date,
    "archive": Compiler.archive,
    "archived": Compiler.date,
    "bcc": _address,
    "before": Compiler.date,
    "body": _text,
    "cc": _mailbox,
    "client": _label,
    "date": Compiler.date,
    "file": _text,
    "from": _mailbox,
    "has": _has,
    "id": _id,
    "larger": _bytes,
    "list": _label,
    "login": _label,
    "msgid": _key,
    "newer_than": Compiler.age,
    "older_than": Compiler.age,
    "outcome": _outcome,
    "problem": _label,
    "queue": _key,
    "rcpt": _address,
    "sender": _address,
    "sent": Compiler.date,
    "sha256": _sha256,
    "size": _bytes,
    "smaller": _bytes,
    "stamp": _label,
    "subject": _text,
    "to": _mailbox,
    "type": _label,
    "until": Compiler.date,
}
