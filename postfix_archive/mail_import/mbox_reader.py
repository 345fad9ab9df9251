"""Reads an mbox of any dialect: mboxo, mboxrd, mboxcl, mboxcl2.

Used by mail_import/sources. A From_ line begins a message if an empty line is before
it, and it has a day of the week and a time. In mboxcl and mboxcl2 Content-Length says
where a message ends: it is believed if a From_ line or the end of the file is there.
One ``>`` is taken from lines that are quoted ``From `` lines, except where a message of
mboxcl2 has an unquoted one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from typing import BinaryIO

from postfix_archive.errors import ImportFailed
from postfix_archive.mail_import import source_message
from postfix_archive.system.spool import Spool

FROM_LINE = re.compile(
    rb"From (?P<sender>.{0,1000}?) ?"
    rb"(?P<date>(Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? .{0,40}?\d\d?:\d\d.{0,80})\r?\n?"
)
QUOTED_FROM = re.compile(rb">+From ")
CONTENT_LENGTH = re.compile(rb"content-length[ \t]*:[ \t]*(\d{1,18})\s*", re.IGNORECASE)
HEADER_LINES_LIMIT = 100_000  # lines in which Content-Length is searched
NO_SENDERS = (b"", b"-", b"MAILER-DAEMON")


@dataclass
class MboxMessage:
    """A message of an mbox: its bytes, what its From_ line says, where it began.

    ``sender`` is None where the line has none. ``number`` counts from 1. ``is_cut``:
    the file ends in the middle of it.
    """

    content: Spool
    sender: bytes | None
    arrival: int | None
    number: int
    is_cut: bool = False


def messages(file: BinaryIO, spool_directory: str) -> Iterator[MboxMessage]:
    """Yield the messages of an mbox; the caller closes their content.

    Raises ImportFailed for a file that is none, OSError and SpoolFailed.
    """
    line = _next_line(file)
    if not line.startswith(b"From "):
        raise ImportFailed("not an mbox: it does not begin with a From_ line")
    number = 0
    while line:
        number += 1
        region = _Region(file)
        content = source_message.read(region.pieces(), spool_directory)
        sender, arrival = _parse(line)
        yield MboxMessage(content, sender, arrival, number, region.is_cut)
        line = region.next_line


class _Region:
    """The lines of one message, after its From_ line.

    When pieces() has ended, ``next_line`` is the From_ line of the next message, empty
    at the end of the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.is_cut = False
        self.next_line = b""

    def pieces(self) -> Iterator[bytes]:
        begin = self._file.tell()
        length, has_header_end = _content_length(self._file)
        body = self._file.tell()
        self._file.seek(begin)
        if length is not None and _is_end(self._file, body + length):
            yield from self._until(begin, body, body + length)
            self._file.seek(body + length)
            self.next_line = _next_line(self._file)
            return
        yield from self._until_from_line()
        if not self.next_line:
            end = self._file.tell()
            is_short = length is not None and body + length > end
            self.is_cut = self.is_cut or not has_header_end or is_short

    def _until(self, begin: int, body: int, end: int) -> Iterator[bytes]:
        """Yield the bytes up to end; unquote them unless there are unquoted ones."""
        self._file.seek(body)
        lines = _lines(self._file, end)
        is_quoted = not any(each.startswith(b"From ") for each in lines)
        self._file.seek(begin)
        for each in _lines(self._file, end):
            yield _unquote(each) if is_quoted else each

    def _until_from_line(self) -> Iterator[bytes]:
        """Yield the lines before the next From_ line, less the empty one above it."""
        blank = last = b""
        for line in iter(self._file.readline, b""):
            if blank and _is_from_line(line):
                self.next_line = line
                return
            if blank:
                yield blank
                blank = b""
            last = line
            if line in (b"\n", b"\r\n"):
                blank = line
            else:
                yield _unquote(line)
        self.is_cut = not last.endswith(b"\n")


def _is_from_line(line: bytes) -> bool:
    return line.startswith(b"From ") and FROM_LINE.fullmatch(line) is not None


def _parse(line: bytes) -> tuple[bytes | None, int | None]:
    """Return sender and time (UTC, RFC 4155) of a From_ line, None where unknown."""
    match = FROM_LINE.fullmatch(line)
    if not match:
        return None, None
    sender = match["sender"].strip()
    fields = parsedate_tz(match["date"].decode("latin-1"))
    try:
        seconds = mktime_tz((*fields[:9], fields[9] or 0)) if fields else -1
    except (ValueError, OverflowError):
        seconds = -1
    is_address = b"@" in sender and not re.search(rb"\s", sender)
    if sender in NO_SENDERS or not is_address:
        return None, seconds if seconds >= 0 else None
    return sender, seconds if seconds >= 0 else None


def _content_length(file: BinaryIO) -> tuple[int | None, bool]:
    """Read a header; return Content-Length, and whether an empty line ended it."""
    length = None
    for _ in range(HEADER_LINES_LIMIT):
        line = file.readline()
        if line in (b"\n", b"\r\n", b""):
            return length, bool(line)
        match = CONTENT_LENGTH.fullmatch(line)
        if match:
            length = int(match[1])
    return None, True


def _is_end(file: BinaryIO, offset: int) -> bool:
    """Tell whether a message can end here: a From_ line follows, or nothing."""
    position = file.tell()
    size = file.seek(0, 2)
    try:
        if offset > size:
            return False
        file.seek(offset)
        line = file.readline()
        if line in (b"\n", b"\r\n"):  # a second empty line is of the message
            line = file.readline()
        return not line or _is_from_line(line)
    finally:
        file.seek(position)


def _next_line(file: BinaryIO) -> bytes:
    """Return the next line that is not empty, b"" at the end."""
    for line in iter(file.readline, b""):
        if line.strip():
            return line
    return b""


def _lines(file: BinaryIO, end: int) -> Iterator[bytes]:
    remaining = end - file.tell()
    while remaining > 0:
        line = file.readline(remaining)
        if not line:
            return
        remaining -= len(line)
        yield line


def _unquote(line: bytes) -> bytes:
    return line[1:] if QUOTED_FROM.match(line) else line
