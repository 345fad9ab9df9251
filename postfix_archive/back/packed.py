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
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)


def is_packed(path: Path) -> bool:
    """Tell by its name whether a file is compressed."""
    return path.suffix in OPENERS


def opened(path: str) -> IO[bytes]:
    """Open a log file to read its uncompressed content."""
    try:
        opener = OPENERS.get(os.path.splitext(path)[1])
        return opener(path, "rb") if opener else open(path, "rb")  # type: ignore
    except OSError as problem:
        raise LogUnreadable(
            f"{path}: {problem.strerror}; run the command as root"
        ) from problem


def lines(log: IO[bytes], path: str) -> Iterator[bytes]:
    """Yield the lines of an open log file; path is for the error message."""
    try:
        yield from log
    except DAMAGE as problem:
        raise LogUnreadable(
            f"{path}: {problem}; repair the file or move it away"
        ) from problem


def told(path: str) -> os.stat_result:
    """Return the stat result of a log file."""
    try:
        return os.stat(path)
    except OSError as problem:
        raise LogUnreadable(f"{path}: {problem.strerror}") from problem
