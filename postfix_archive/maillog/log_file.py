"""Opens one file of the mail log, compressed or not.

Used by maillog.log_reader. All errors are LogUnreadable. Python 3.11 has no module for
Zstandard: the command zstd(1) reads .zst files.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from postfix_archive.errors import LogUnreadable

SKIP_SIZE = 1 << 20  # bytes read at once to reach an offset
CORRUPTION_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)


class ZstdFile(io.RawIOBase):
    """The uncompressed content of a .zst file, by zstd(1); seeks from the beginning."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._process = self._start()
        self._offset = 0

    def _start(self) -> subprocess.Popen[bytes]:
        command = ["zstd", "-dcq", "--", self._path]
        try:
            return subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except FileNotFoundError:
            raise LogUnreadable(
                f"{self._path}: there is no command zstd: install the package zstd"
            ) from None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer. Raises OSError at damaged content."""
        assert self._process.stdout is not None and self._process.stderr is not None
        size = cast(io.BufferedReader, self._process.stdout).readinto(buffer)
        if not size and self._process.wait():
            error_output = self._process.stderr.read().decode("utf-8", "replace")
            raise OSError(error_output.strip())
        self._offset += size
        return size

    def tell(self) -> int:
        """Return the offset in the uncompressed content."""
        return self._offset

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an absolute offset, at most to the end of the file."""
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("only absolute offsets")
        if offset < self._offset:
            self._stop()
            self._process, self._offset = self._start(), 0
        while self._offset < offset:
            if not self.readinto(bytearray(min(SKIP_SIZE, offset - self._offset))):
                break
        return self._offset

    def close(self) -> None:
        """End zstd(1)."""
        if not self.closed:
            self._stop()
        super().close()

    def _stop(self) -> None:
        with self._process as process:
            process.kill()


def _open_zstd(path: str, mode: str) -> IO[bytes]:
    open(path, mode).close()  # errors as those of any other file
    return io.BufferedReader(ZstdFile(path))


OPENERS = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
    ".zst": _open_zstd,
}


def is_compressed(path: Path) -> bool:
    """Tell by its name whether a file is compressed."""
    return path.suffix in OPENERS


def open_log(path: str) -> IO[bytes]:
    """Open a log file to read its uncompressed content."""
    try:
        opener = OPENERS.get(os.path.splitext(path)[1], open)
        return opener(path, "rb")  # type: ignore[no-any-return, operator]
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
