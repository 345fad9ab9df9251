"""Compile the source of a lookup table with ARCHIVE actions to a table for Postfix.

Used by tables.table_file, tables.explain and doctor. A source is an ordinary Postfix
table (access(5), header_checks(5), cidr_table(5), ...) in which an action may be
``ARCHIVE a@x, b@y``; that becomes ``BCC <request recipient>``, and every other line
stays byte for byte. Logical lines are those of Postfix's readlline(). Pure; raises
TableWrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from postfix_archive.core import address, request
from postfix_archive.core.errors import TableWrong
from postfix_archive.core.keyring import Keyring

MARKER = b"# Made by postfix-archive tables "  # first bytes of every compiled table
PHYSICAL = re.compile(rb"[^\n]*\n|[^\n]+")
# postmap(1): a key ends at the first white space outside quotes.
KEY = re.compile(rb'(?:\\.|"(?:\\.|[^"\\])*(?:"|\Z)|[^\s"\\])+', re.S)
NETWORK = re.compile(rb"(?:!\s*)*\S+")
# regexp_table(5): any delimiter, flags after the second one. A backslash and its next
# character match in one way only: otherwise a pattern without its second delimiter
# takes exponential time.
EXPRESSION = re.compile(rb"(?:!\s*)*([^\w\s\\])(?:\\.|(?!\1)[^\\])*\1\S*", re.S)
PATTERNS = {"cidr": NETWORK, "regexp": EXPRESSION, "pcre": EXPRESSION}
CONDITION = re.compile(rb"(?P<end>end)?if(?![a-z0-9])\s*", re.I)
WORD = re.compile(rb"archive(?=\s|\Z)", re.I)
WORD_ANYWHERE = re.compile(rb"(?<!\S)archive(?!\S)", re.I)
REMARK = re.compile(rb"(?<=\s)#[^\n]*")


@dataclass(frozen=True)
class Line:
    """A logical line: raw are its physical lines, comments those among them.

    Comments and blank lines between logical lines are a LogicalLine without text.
    """

    number: int
    raw: bytes
    text: bytes
    remarks: bytes = b""


@dataclass
class _Lines:
    """A logical line under construction; see LogicalLine."""

    number: int = 0
    raw: list[bytes] = field(default_factory=list)
    text: list[bytes] = field(default_factory=list)
    remarks: list[bytes] = field(default_factory=list)

    @property
    def joined(self) -> Line:
        """The finished logical line."""
        raw, text, remarks = map(b"".join, (self.raw, self.text, self.remarks))
        return Line(self.number, raw, text, remarks)


@dataclass(frozen=True)
class Asked:
    """One ARCHIVE line: its number, pattern, archive addresses and comments."""

    number: int
    pattern: bytes
    archives: tuple[str, ...]
    remarks: bytes = b""


@dataclass(frozen=True)
class Compiled:
    """A compiled table: its bytes, its ARCHIVE lines, the count of other lines."""

    native: bytes
    asked: tuple[Asked, ...]
    kept: int


def compiled(source: bytes, *, kind: str, place: str, keys: Keyring) -> Compiled:
    """Return the compiled table; table_type and path are those of the source.

    Raises TableWrong with path and line number.
    """

    def written(asked: Asked) -> bytes:
        return b"BCC " + request.recipient(",".join(asked.archives), keys)

    return _compiled(source, kind, place, written)


def marked(source: bytes, *, kind: str, place: str) -> Compiled:
    """Return the table with each ARCHIVE action replaced by the token of its line.

    The result of a lookup in it names the line: see line_token(). Raises TableWrong.
    """
    return _compiled(source, kind, place, lambda line: token(line.number))


def token(number: int) -> bytes:
    """Return the value that replaces the ARCHIVE action of a line."""
    return b"ARCHIVE-IN-LINE %d" % number


def _compiled(
    source: bytes, kind: str, place: str, written: Callable[[Asked], bytes]
) -> Compiled:
    native = [MARKER + b"from %s: edit that file.\n" % place.encode()]
    asked = []
    kept = 0
    for line in logical_lines(source):
        action_line = _asked(line, kind, f"{place}, line {line.number}")
        if action_line is None:
            native.append(line.raw)
            kept += bool(line.text)
        else:
            asked.append(action_line)
            native += [line.remarks, action_line.remarks]
            native.append(b"%s %s\n" % (action_line.pattern, written(action_line)))
    return Compiled(b"".join(native), tuple(asked), kept)


def logical_lines(source: bytes) -> Iterator[Line]:
    """Split a table into logical lines; their raw bytes joined are the table."""
    line = _Lines()
    resting = _Lines()  # comments that belong to line if that continues after them
    for number, raw in enumerate(PHYSICAL.findall(source), 1):
        if not raw.strip() or raw.lstrip().startswith(b"#"):
            resting.number = resting.number or number
            resting.raw.append(raw)
        elif raw[:1].isspace() and line.text:
            line.raw += [*resting.raw, raw]
            line.remarks += resting.raw
            line.text.append(raw)
            resting = _Lines()
        else:
            yield from (each.joined for each in (line, resting) if each.raw)
            line, resting = _Lines(), _Lines()
            line.number, line.raw, line.text = number, [raw], [raw]
    yield from (each.joined for each in (line, resting) if each.raw)


def action(text: bytes, kind: str) -> bytes:
    """Return the right hand side of a logical line, b"" if there is none."""
    try:
        return _parted(text.strip(), kind, "")[1]
    except TableWrong:
        return text.strip()


def _asked(line: Line, kind: str, where: str) -> Asked | None:
    """Return a line with an ARCHIVE action, None for any other line."""
    if not line.text:
        return None
    text = line.text.strip()
    pattern, right_side = _parted(text, kind, where)
    if not WORD.match(right_side):
        return None
    if kind in PATTERNS and CONDITION.match(text):
        raise TableWrong(
            f"{where}: a line with if has no action: write ARCHIVE on a line of its"
            " own, before endif"
        )
    argument = right_side[len(b"archive") :]
    remarks = b"".join(each.strip() + b"\n" for each in REMARK.findall(argument))
    archives = _archives(REMARK.sub(b"", argument), where)
    return Asked(line.number, pattern, archives, remarks)


def _parted(text: bytes, kind: str, where: str) -> tuple[bytes, bytes]:
    """Split a logical line into pattern and right hand side."""
    condition = CONDITION.match(text) if kind in PATTERNS else None
    if condition and condition["end"]:
        return condition[0], text[condition.end() :].lstrip()
    start = condition.end() if condition else 0
    match = PATTERNS.get(kind, KEY).match(text, start)
    if match is None or _is_bare(text, kind):
        if WORD_ANYWHERE.search(text) is None:
            return text, b""
        raise TableWrong(
            f"{where}: ARCHIVE without a pattern before it: write a line such as"
            f" {_example(kind)} ARCHIVE legal@example.com"
        )
    end = match.end()
    return text[:end].replace(b"\n", b""), text[end:].lstrip()


def _is_bare(text: bytes, kind: str) -> bool:
    """Tell whether the line begins with ARCHIVE as its action, not as a key."""
    first, *rest = text.split(None, 2)
    return first.lower() == b"archive" and (not rest or b"@" in rest[0])


def _example(kind: str) -> str:
    examples = {"cidr": "192.0.2.0/24", "regexp": "/^Subject: deal/"}
    return examples.get("regexp" if kind == "pcre" else kind, "alice@example.com")


def _archives(words: bytes, where: str) -> tuple[str, ...]:
    """Return the archive addresses after the word ARCHIVE."""
    if not words.strip():
        raise TableWrong(
            f"{where}: ARCHIVE without an address: write ARCHIVE legal@example.com"
        )
    addresses = [each.strip() for each in words.split(b",")]
    for each in addresses:
        _check(each, where)
    return tuple(dict.fromkeys(each.decode().lower() for each in addresses))


def _check(named: bytes, where: str) -> None:
    """Raise TableWrong if this cannot be an archive address."""
    shown = address.one_line(named).decode("utf-8", "replace")
    if b"$" in named:
        raise TableWrong(
            f"{where}: {shown}: $ is not expanded here; write the archive address in"
            " full, on a line for each archive"
        )
    if not address.is_plain(named):
        raise TableWrong(
            f"{where}: {shown!r} is not an archive address: write ARCHIVE"
            " legal@example.com, with a comma between two addresses"
        )
