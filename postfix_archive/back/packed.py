"""Opens and reads the files of a log, compressed or not.

Used by maillog.reader. Changes nothing. Raises only LogUnreadable.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from postfix_archive.core.errors import LogUnreadable

OPENERS = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
CORRUPTION_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)


def is_compressed(path: Path) -> bool:
    """Tell by its name whether a file is compressed."""
    return path.suffix in OPENERS


def open_log(path: str) -> IO[bytes]:
    """Open a log file to read its uncompressed content."""
    try:
        opener = OPENERS.get(os.path.splitext(path)[1])
        return opener(path, "rb") if opener else open(path, "rb")  # type: ignore
    except OSError as error:
        raise LogUnreadable(
            f"{path}: {error.strerror}; run the command as root"
        ) from error


def packed_lines(log: IO[bytes], path: str) -> Iterator[bytes]:
    """Yield the lines of an open log file; path is for the error message."""
    try:
        yield from log
    except CORRUPTION_ERRORS as error:
        raise LogUnreadable(
            f"{path}: {error}; repair the file or move it away"
        ) from error


def stat_file(path: str) -> os.stat_result:
    """Return the stat result of a log file."""
    try:
        return os.stat(path)
    except OSError as error:
        raise LogUnreadable(f"{path}: {error.strerror}") from error
