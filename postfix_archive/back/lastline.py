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

    In place: it fits a sector, and one that a crash has torn says nothing.
    """
    noted = _noted(number, last)
    try:
        opened = _opened(f"{folder}/{NAME}")
        try:
            files.write_all(opened, noted)
            if os.fstat(opened).st_size != len(noted):
                os.ftruncate(opened, len(noted))
        finally:
            os.close(opened)
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
    last = rest[:HASH].decode("latin-1")
    if not is_number(found) or said != _noted(int(found), last):
        return 0
    return int(found)


def is_number(text: bytes) -> bool:
    """Tell whether text is a number that a line can have."""
    return text.isdigit() and len(text) <= NUMBER_DIGITS


def _opened(path: str) -> int:
    """Open the note to be written over; what is no file of its own is taken away."""
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        opened = os.open(path, flags)
    except OSError:
        return _new(path)
    told = os.fstat(opened)
    if S_ISREG(told.st_mode) and told.st_nlink == 1:
        return opened
    os.close(opened)
    return _new(path)


def _new(path: str) -> int:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, MODE)


def _noted(number: int, last: str) -> bytes:
    """Return the text of journal.last: number, hash, and the hash of both."""
    said = f"{number:d} {last}"
    return f"{said} {digest.hex_of(said.encode())}\n".encode()
