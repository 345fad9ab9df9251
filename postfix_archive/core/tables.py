"""Lookup tables with ARCHIVE lines, and the native tables that they stand for.

Used by back/tablefile. A source is an ordinary table of Postfix (access(5),
header_checks(5), cidr_table(5), ...) in which an action may be ``ARCHIVE a@x, b@y``;
that becomes ``BCC <request recipient>``, and every other line stays byte for byte.
Lines are told apart as Postfix's readlline() does. This room never reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from postfix_archive.core import address, request
from postfix_archive.core.errors import TableWrong
from postfix_archive.core.keyring import Keyring

MARKER = b"# Made by postfix-archive tables "  # begins every native table of ours
PHYSICAL = re.compile(rb"[^\n]*\n|[^\n]+")
# postmap(1): a key ends at the first white space outside quotes.
KEY = re.compile(rb'(?:\\.|"(?:\\.|[^"\\])*(?:"|\Z)|[^\s"\\])+', re.S)
NETWORK = re.compile(rb"(?:!\s*)*\S+")
# regexp_table(5): any delimiter; behind the second one the flags. What a backslash
# stands before is read in one way only, or a line without end takes for ever.
EXPRESSION = re.compile(rb"(?:!\s*)*([^\w\s\\])(?:\\.|(?!\1)[^\\])*\1\S*", re.S)
PATTERNS = {"cidr": NETWORK, "regexp": EXPRESSION, "pcre": EXPRESSION}
CONDITION = re.compile(rb"(?P<end>end)?if(?![a-z0-9])\s*", re.I)
WORD = re.compile(rb"archive(?=\s|\Z)", re.I)
WORD_ANYWHERE = re.compile(rb"(?<!\S)archive(?!\S)", re.I)
REMARK = re.compile(rb"(?<=\s)#[^\n]*")


@dataclass(frozen=True)
class Line:
    """A logical line: its physical lines as they stand, and the remarks among them.

    A comment or blank line between logical lines has no text.
    """

    number: int
    raw: bytes
    text: bytes
    remarks: bytes = b""


@dataclass
class _Lines:
    """The physical lines of a logical line that may yet go on: see Line."""

    number: int = 0
    raw: list[bytes] = field(default_factory=list)
    text: list[bytes] = field(default_factory=list)
    remarks: list[bytes] = field(default_factory=list)

    @property
    def joined(self) -> Line:
        """The logical line."""
        raw, text, remarks = map(b"".join, (self.raw, self.text, self.remarks))
        return Line(self.number, raw, text, remarks)


@dataclass(frozen=True)
class Asked:
    """One ARCHIVE line: where it stands, for what, to which archives, and why."""

    number: int
    pattern: bytes
    archives: tuple[str, ...]
    remarks: bytes = b""


@dataclass(frozen=True)
class Compiled:
    """A native table: its bytes, its ARCHIVE lines, how many other lines it keeps."""

    native: bytes
    asked: tuple[Asked, ...]
    kept: int


def compiled(source: bytes, *, kind: str, place: str, keys: Keyring) -> Compiled:
    """Return the native table of a source; kind is its type, place its path.

    Raises TableWrong with place, line, and what to do.
    """

    def written(asked: Asked) -> bytes:
        return b"BCC " + request.recipient(",".join(asked.archives), keys)

    return _compiled(source, kind, place, written)


def marked(source: bytes, *, kind: str, place: str) -> Compiled:
    """Return the native table with each action ARCHIVE as the token of its line.

    Whoever asks it for a key learns from which line the answer is: see token().
    Raises TableWrong.
    """
    return _compiled(source, kind, place, lambda asked: token(asked.number))


def token(number: int) -> bytes:
    """Return what stands for the ARCHIVE action of a line."""
    return b"ARCHIVE-IN-LINE %d" % number


def _compiled(
    source: bytes, kind: str, place: str, written: Callable[[Asked], bytes]
) -> Compiled:
    native = [MARKER + b"from %s: edit that file.\n" % place.encode()]
    asked = []
    kept = 0
    for line in logical_lines(source):
        found = _asked(line, kind, f"{place}, line {line.number}")
        if found is None:
            native.append(line.raw)
            kept += bool(line.text)
        else:
            asked.append(found)
            native += [line.remarks, found.remarks]
            native.append(b"%s %s\n" % (found.pattern, written(found)))
    return Compiled(b"".join(native), tuple(asked), kept)


def logical_lines(source: bytes) -> Iterator[Line]:
    """Cut a table into logical lines; their raw bytes together are the table."""
    line = _Lines()
    resting = _Lines()  # remarks: of the line before if that goes on
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
    """Return the right hand side of a logical line, b"" where there is none."""
    try:
        return _parted(text.strip(), kind, "")[1]
    except TableWrong:
        return text.strip()


def _asked(line: Line, kind: str, where: str) -> Asked | None:
    """Return what an ARCHIVE line asks for, None for a native line."""
    if not line.text:
        return None
    text = line.text.strip()
    pattern, said = _parted(text, kind, where)
    if not WORD.match(said):
        return None
    if kind in PATTERNS and CONDITION.match(text):
        raise TableWrong(
            f"{where}: a line with if takes no action: write ARCHIVE in a line of its"
            " own, before endif"
        )
    words = said[len(b"archive") :]
    why = b"".join(each.strip() + b"\n" for each in REMARK.findall(words))
    return Asked(line.number, pattern, _archives(REMARK.sub(b"", words), where), why)


def _parted(text: bytes, kind: str, where: str) -> tuple[bytes, bytes]:
    """Part a logical line into pattern and action."""
    condition = CONDITION.match(text) if kind in PATTERNS else None
    if condition and condition["end"]:
        return condition[0], text[condition.end() :].lstrip()
    start = condition.end() if condition else 0
    found = PATTERNS.get(kind, KEY).match(text, start)
    if found is None or _is_bare(text, kind):
        if WORD_ANYWHERE.search(text) is None:
            return text, b""
        raise TableWrong(
            f"{where}: ARCHIVE without a pattern before it: write what it is for, as"
            f" in {_example(kind)} ARCHIVE legal@example.com"
        )
    end = found.end()
    return text[:end].replace(b"\n", b""), text[end:].lstrip()


def _is_bare(text: bytes, kind: str) -> bool:
    """Tell whether ARCHIVE stands where the pattern should; a host may be so named."""
    first, *rest = text.split(None, 2)
    return first.lower() == b"archive" and (not rest or b"@" in rest[0])


def _example(kind: str) -> str:
    examples = {"cidr": "192.0.2.0/24", "regexp": "/^Subject: deal/"}
    return examples.get("regexp" if kind == "pcre" else kind, "alice@example.com")


def _archives(words: bytes, where: str) -> tuple[str, ...]:
    """Return the archive addresses behind the word ARCHIVE."""
    if not words.strip():
        raise TableWrong(
            f"{where}: ARCHIVE without an address: write ARCHIVE legal@example.com"
        )
    named = [each.strip() for each in words.split(b",")]
    for each in named:
        _check(each, where)
    return tuple(dict.fromkeys(each.decode().lower() for each in named))


def _check(named: bytes, where: str) -> None:
    shown = address.one_line(named).decode("utf-8", "replace")
    if b"$" in named:
        raise TableWrong(
            f"{where}: {shown}: an archive is named in full, for Postfix would put"
            " nothing in for $: write one line for each archive"
        )
    if not address.is_plain(named):
        raise TableWrong(
            f"{where}: {shown!r} is no archive address: write ARCHIVE"
            " legal@example.com, and a comma between two"
        )
