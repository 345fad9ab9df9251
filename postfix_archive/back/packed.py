"""Opens the files of a log, packed or not. Foreign errors leave as LogUnreadable.

Used by logfile. Changes nothing.
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
    """Tell by its name whether a file is packed."""
    return path.suffix in OPENERS


def opened(path: str) -> IO[bytes]:
    """Open a file to read what it holds, unpacked."""
    try:
        opener = OPENERS.get(os.path.splitext(path)[1])
        return opener(path, "rb") if opener else open(path, "rb")  # type: ignore
    except OSError as problem:
        raise LogUnreadable(
            f"{path}: {problem.strerror}; run this as root, or as one who may read it"
        ) from problem


def lines(log: IO[bytes], path: str) -> Iterator[bytes]:
    """Give the lines of an open file; path is for what is said of it."""
    try:
        yield from log
    except DAMAGE as problem:
        raise LogUnreadable(
            f"{path}: {problem}; look at the file, or take it away"
        ) from problem


def told(path: str) -> os.stat_result:
    """Return what stat(2) tells of a file."""
    try:
        return os.stat(path)
    except OSError as problem:
        raise LogUnreadable(f"{path}: {problem.strerror}") from problem
