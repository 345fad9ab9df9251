"""journal.last: number and hash of the last line of the journal beside it.

Used by journal. So a journal whose end was cut off is known; the note may lag behind by
what a crash kept from it, never lead. docs/store-format.md has its form.
"""

from __future__ import annotations

import posix as os
from _stat import S_ISREG

from postfix_archive.back import files
from postfix_archive.core import digest

NAME = "journal.last"
MODE = 0o600
NUMBER_DIGITS = 18  # more than events will ever be; int() takes 4,300 and no more
HASH = 64  # hexadecimal digits of SHA-256


def note(folder: str, number: int, last: str) -> None:
    """Note the last line. It is promised already: a note that fails is no failure.

    In place, where it has the length of the one before: so it is within a sector, and
    no crash leaves half of it. Else in a new file that takes the old one's name.
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
    """Return the number of the last line as it was noted, 0 if nothing says it."""
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
    """Tell whether text is a number that a line can have."""
    return text.isdigit() and len(text) <= NUMBER_DIGITS


def _same_length(path: str, length: int) -> int:
    """Open the note, to be written over; -1 if it is another, or no file of its own."""
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
    """Open a new file; what a crash has left there, or was put there, goes."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, MODE)


def _noted(number: int, last: str) -> bytes:
    """Return the text of journal.last, as long for every number."""
    return _proved(f"{number:0{NUMBER_DIGITS}d} {last}".encode())


def _proved(said: bytes) -> bytes:
    """Return number and hash of a line with the hash of both."""
    return said + f" {digest.hex_of(said)}\n".encode()
