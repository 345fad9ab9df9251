"""Compile the source of a lookup table with ARCHIVE actions to a table for Postfix.

Used by tables.table_file, tables.explain and doctor. A source is an ordinary Postfix
table (access(5), header_checks(5), cidr_table(5), ...) in which an action may be
``ARCHIVE a@x, b@y``; that becomes ``BCC <request recipient>``, and every other line
stays byte for byte. Logical lines are those of Postfix's readlline(). Pure; raises
TableInvalid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from postfix_archive.errors import TableInvalid
from postfix_archive.message import address, printable, request
from postfix_archive.message.keyring import Keyring

MARKER = b"# Made by postfix-archive tables "  # first bytes of every compiled table
PHYSICAL_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
# postmap(1): a key ends at the first white space outside quotes.
DATABASE_KEY = re.compile(rb'(?:\\.|"(?:\\.|[^"\\])*(?:"|\Z)|[^\s"\\])+', re.S)
CIDR_PATTERN = re.compile(rb"(?:!\s*)*\S+")
# regexp_table(5): any delimiter, flags after the second one. A backslash and its next
# character match in one way only: otherwise a pattern without its second delimiter
# takes exponential time.
REGEXP_PATTERN = re.compile(rb"(?:!\s*)*([^\w\s\\])(?:\\.|(?!\1)[^\\])*\1\S*", re.S)
PATTERNS_BY_TYPE = {
    "cidr": CIDR_PATTERN,
    "regexp": REGEXP_PATTERN,
    "pcre": REGEXP_PATTERN,
}
IF_OR_ENDIF = re.compile(rb"(?P<end>end)?if(?![a-z0-9])\s*", re.I)
ARCHIVE_ACTION = re.compile(rb"archive(?=\s|\Z)", re.I)
ARCHIVE_WORD = re.compile(rb"(?<!\S)archive(?!\S)", re.I)
COMMENT = re.compile(rb"(?<=\s)#[^\n]*")


@dataclass(frozen=True)
class LogicalLine:
    """A logical line: raw are its physical lines, comments those among them.

    Comments and blank lines between logical lines are a LogicalLine without text.
    """

    number: int
    raw: bytes
    text: bytes
    comments: bytes = b""


@dataclass
class _LineBuilder:
    """A logical line under construction; see LogicalLine."""

    number: int = 0
    raw: list[bytes] = field(default_factory=list)
    text: list[bytes] = field(default_factory=list)
    comments: list[bytes] = field(default_factory=list)

    @property
    def logical_line(self) -> LogicalLine:
        """The finished logical line."""
        raw, text, comments = map(b"".join, (self.raw, self.text, self.comments))
        return LogicalLine(self.number, raw, text, comments)


@dataclass(frozen=True)
class ArchiveLine:
    """One ARCHIVE line: its number, pattern, archive addresses and comments."""

    number: int
    pattern: bytes
    archives: tuple[str, ...]
    comments: bytes = b""


@dataclass(frozen=True)
class CompiledTable:
    """A compiled table: its bytes, its ARCHIVE lines, the count of other lines."""

    content: bytes
    archive_lines: tuple[ArchiveLine, ...]
    other_line_count: int


def compile_table(
    source: bytes, *, table_type: str, path: str, keys: Keyring
) -> CompiledTable:
    """Return the compiled table; table_type and path are those of the source.

    Raises TableInvalid with path and line number.
    """

    def make_action(line: ArchiveLine) -> bytes:
        return b"BCC " + request.make_recipient(",".join(line.archives), keys)

    return _compile(source, table_type, path, make_action)


def compile_with_tokens(source: bytes, *, table_type: str, path: str) -> CompiledTable:
    """Return the table with each ARCHIVE action replaced by the token of its line.

    The result of a lookup in it names the line: see line_token(). Raises TableInvalid.
    """
    return _compile(source, table_type, path, lambda line: line_token(line.number))


def line_token(number: int) -> bytes:
    """Return the value that replaces the ARCHIVE action of a line."""
    return b"ARCHIVE-IN-LINE %d" % number


def _compile(
    source: bytes,
    table_type: str,
    path: str,
    make_action: Callable[[ArchiveLine], bytes],
) -> CompiledTable:
    parts = [MARKER + b"from %s: edit that file.\n" % path.encode()]
    archive_lines = []
    other_line_count = 0
    for line in logical_lines(source):
        action_line = _parse_archive_line(
            line, table_type, f"{path}, line {line.number}"
        )
        if action_line is None:
            parts.append(line.raw)
            other_line_count += bool(line.text)
        else:
            archive_lines.append(action_line)
            parts += [line.comments, action_line.comments]
            parts.append(b"%s %s\n" % (action_line.pattern, make_action(action_line)))
    return CompiledTable(b"".join(parts), tuple(archive_lines), other_line_count)


def logical_lines(source: bytes) -> Iterator[LogicalLine]:
    """Split a table into logical lines; their raw bytes joined are the table."""
    line = _LineBuilder()
    pending = (
        _LineBuilder()
    )  # comments that belong to line if that continues after them
    for number, raw in enumerate(PHYSICAL_LINE.findall(source), 1):
        if not raw.strip() or raw.lstrip().startswith(b"#"):
            pending.number = pending.number or number
            pending.raw.append(raw)
        elif raw[:1].isspace() and line.text:
            line.raw += [*pending.raw, raw]
            line.comments += pending.raw
            line.text.append(raw)
            pending = _LineBuilder()
        else:
            yield from (each.logical_line for each in (line, pending) if each.raw)
            line, pending = _LineBuilder(), _LineBuilder()
            line.number, line.raw, line.text = number, [raw], [raw]
    yield from (each.logical_line for each in (line, pending) if each.raw)


def right_side(text: bytes, table_type: str) -> bytes:
    """Return the right hand side of a logical line, b"" if there is none."""
    try:
        return _split(text.strip(), table_type, "")[1]
    except TableInvalid:
        return text.strip()


def _parse_archive_line(
    line: LogicalLine, table_type: str, location: str
) -> ArchiveLine | None:
    """Return a line with an ARCHIVE action, None for any other line."""
    if not line.text:
        return None
    text = line.text.strip()
    pattern, value = _split(text, table_type, location)
    if not ARCHIVE_ACTION.match(value):
        return None
    if table_type in PATTERNS_BY_TYPE and IF_OR_ENDIF.match(text):
        raise TableInvalid(
            f"{location}: a line with if has no action: write ARCHIVE on a line of its"
            " own, before endif"
        )
    argument = value[len(b"archive") :]
    comments = b"".join(each.strip() + b"\n" for each in COMMENT.findall(argument))
    archives = _parse_archives(COMMENT.sub(b"", argument), location)
    return ArchiveLine(line.number, pattern, archives, comments)


def _split(text: bytes, table_type: str, location: str) -> tuple[bytes, bytes]:
    """Split a logical line into pattern and right hand side."""
    condition = IF_OR_ENDIF.match(text) if table_type in PATTERNS_BY_TYPE else None
    if condition and condition["end"]:
        return condition[0], text[condition.end() :].lstrip()
    start = condition.end() if condition else 0
    match = PATTERNS_BY_TYPE.get(table_type, DATABASE_KEY).match(text, start)
    if match is None or _has_no_key(text, table_type):
        if ARCHIVE_WORD.search(text) is None:
            return text, b""
        raise TableInvalid(
            f"{location}: ARCHIVE without a pattern before it: write a line such as"
            f" {_example_key(table_type)} ARCHIVE legal@example.com"
        )
    end = match.end()
    return text[:end].replace(b"\n", b""), text[end:].lstrip()


def _has_no_key(text: bytes, table_type: str) -> bool:
    """Tell whether the line begins with ARCHIVE as its action, not as a key."""
    first, *rest = text.split(None, 2)
    return first.lower() == b"archive" and (not rest or b"@" in rest[0])


def _example_key(table_type: str) -> str:
    examples = {"cidr": "192.0.2.0/24", "regexp": "/^Subject: deal/"}
    return examples.get(
        "regexp" if table_type == "pcre" else table_type, "alice@example.com"
    )


def _parse_archives(argument: bytes, location: str) -> tuple[str, ...]:
    """Return the archive addresses after the word ARCHIVE."""
    if not argument.strip():
        raise TableInvalid(
            f"{location}: ARCHIVE without an address: write ARCHIVE legal@example.com"
        )
    addresses = [each.strip() for each in argument.split(b",")]
    for each in addresses:
        _check_archive(each, location)
    return tuple(dict.fromkeys(each.decode().lower() for each in addresses))


def _check_archive(archive: bytes, location: str) -> None:
    """Raise TableInvalid if this cannot be an archive address."""
    text = printable.safe_text(archive)
    if b"$" in archive:
        raise TableInvalid(
            f"{location}: {text}: $ is not expanded here; write the archive"
            " address in full, on a line for each archive"
        )
    if not address.is_plain(archive):
        raise TableInvalid(
            f"{location}: {text!r} is not an archive address: write ARCHIVE"
            " legal@example.com, with a comma between two addresses"
        )
