"""Read and write journal.last: the number and SHA-256 of the journal's last line.

Used by journal. The file shows that a journal was truncated. After a crash it may name
an earlier line than the last, never a later one. docs/store-format.md specifies it.
"""

from __future__ import annotations

import posix as os
from _stat import S_ISREG

from postfix_archive.back import files
from postfix_archive.core import digest

NAME = "journal.last"
MODE = 0o600
NUMBER_DIGITS = 18  # enough for any journal; int() raises above 4,300
HASH = 64  # hexadecimal digits


def note(folder: str, number: int, last: str) -> None:
    """Write the number and SHA-256 of the last line; ignore OSError.

    The line itself is durable already, so an error here loses nothing. A file of the
    same length is overwritten in place: it lies within one disk sector, so no crash
    leaves half of it. Otherwise a new file replaces the old one.
    """
    path, noted = f"{folder}/{NAME}", _noted(number, last)
    try:
        opened = _same_length(path, len(noted))
        draft = f"{path}.draft" if opened < 0 else ""
        if draft:
            opened = _new(draft)
        try:
            files.write_all(opened, noted)
        finally:
            os.close(opened)
        if draft:
            os.rename(draft, path)
    except OSError:
        pass


def number(folder: str) -> int:
    """Return the number in journal.last, 0 if the file is missing or damaged."""
    try:
        opened = files.opened(f"{folder}/{NAME}")
    except OSError:
        return 0
    try:
        said = os.read(opened, 4 * HASH)
    finally:
        os.close(opened)
    found, _, rest = said.partition(b" ")
    last = rest[:HASH]
    if not is_number(found) or said != _proved(found + b" " + last):
        return 0
    return int(found)


def is_number(text: bytes) -> bool:
    """Return whether text is a valid line number."""
    return text.isdigit() and len(text) <= NUMBER_DIGITS


def _same_length(path: str, length: int) -> int:
    """Open a regular file of this length and one link for writing; else return -1."""
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        opened = os.open(path, flags)
    except OSError:
        return -1
    told = os.fstat(opened)
    if S_ISREG(told.st_mode) and told.st_nlink == 1 and told.st_size == length:
        return opened
    os.close(opened)
    return -1


def _new(path: str) -> int:
    """Create a file and open it for writing; remove what is at that path."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, MODE)


def _noted(number: int, last: str) -> bytes:
    """Return the content of journal.last; its length is always the same."""
    return _proved(f"{number:0{NUMBER_DIGITS}d} {last}".encode())


def _proved(said: bytes) -> bytes:
    """Append the SHA-256 of text to it."""
    return said + f" {digest.hex_of(said)}\n".encode()
