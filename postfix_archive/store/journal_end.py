"""Read and write journal.last: the number and SHA-256 of the journal's last line.

Used by journal. The file shows that a journal was truncated. After a crash it may name
an earlier line than the last, never a later one. docs/store-format.md specifies it.
"""

from __future__ import annotations

import posix as os
from _stat import S_ISREG

from postfix_archive.errors import StoreFailed
from postfix_archive.message import digest
from postfix_archive.system import files

FILE_NAME = "journal.last"
NUMBER_DIGITS = 18  # enough for any journal; int() raises above 4,300
SHA256_DIGITS = 64  # hexadecimal digits


def write(directory: str, number: int, sha256: str) -> None:
    """Write the number and SHA-256 of the last line; ignore errors.

    The line itself is durable already, so an error here loses nothing. A file of the
    same length is overwritten in place: it lies within one disk sector, so no crash
    leaves half of it. Otherwise a new file replaces the old one.
    """
    path, content = f"{directory}/{FILE_NAME}", _format(number, sha256)
    descriptor = _open_same_length(path, len(content))
    try:
        if descriptor < 0:
            files.replace(path, content, is_durable=False)
        else:
            files.write_all(descriptor, content)
    except (OSError, StoreFailed):
        pass
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def read_number(directory: str) -> int:
    """Return the number in journal.last, 0 if the file is missing or damaged."""
    try:
        descriptor = files.open_regular(f"{directory}/{FILE_NAME}")
    except OSError:
        return 0
    try:
        content = os.read(descriptor, 4 * SHA256_DIGITS)
    finally:
        os.close(descriptor)
    number_text, _, rest = content.partition(b" ")
    sha256 = rest[:SHA256_DIGITS]
    if not is_number(number_text) or content != _with_checksum(
        number_text + b" " + sha256
    ):
        return 0
    return int(number_text)


def is_number(text: bytes) -> bool:
    """Return whether text is a valid line number."""
    return text.isdigit() and len(text) <= NUMBER_DIGITS


def _open_same_length(path: str, length: int) -> int:
    """Open a regular file of this length and one link for writing; else return -1."""
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return -1
    stat = os.fstat(descriptor)
    if S_ISREG(stat.st_mode) and stat.st_nlink == 1 and stat.st_size == length:
        return descriptor
    os.close(descriptor)
    return -1


def _format(number: int, sha256: str) -> bytes:
    """Return the content of journal.last; its length is always the same."""
    return _with_checksum(f"{number:0{NUMBER_DIGITS}d} {sha256}".encode())


def _with_checksum(text: bytes) -> bytes:
    """Append the SHA-256 of text to it."""
    return text + f" {digest.sha256_hex(text)}\n".encode()
