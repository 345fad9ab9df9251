"""Writes a zip file (APPNOTE.TXT 6.3) whose directory is not kept in memory.

Used by export/writers. Entries of any size and number (ZIP64); each is deflated. The
module zipfile keeps an object for each entry until the file is closed, and cannot go
on after a crash: here the caller has the fields of each entry in its manifest, and
gives them back at the end.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from postfix_archive.system import files

VERSION = 45  # 4.5: ZIP64
UNIX = 3 << 8  # made on Unix
MODE = (0o100600 << 16) & 0xFFFFFFFF  # external attributes: a file, mode 0600
DEFLATED = 8
UTF8_NAME = 1 << 11
LIMIT_32 = 0xFFFFFFFF
LIMIT_16 = 0xFFFF
FIRST_YEAR = 1980  # of a DOS date
LAST_YEAR = 2107
LOCAL = struct.Struct("<4sHHHHHLLLHH")
CENTRAL = struct.Struct("<4sHHHHHHLLLHHHHHLL")
END_64 = struct.Struct("<4sQHHLLQQQQ")
LOCATOR_64 = struct.Struct("<4sLQL")
END = struct.Struct("<4sHHHHLLH")


class ZipEntry(NamedTuple):
    """One entry: its name, where it begins, sizes in bytes, CRC-32, Unix time."""

    name: str
    offset: int
    size: int
    compressed_size: int
    crc32: int
    mtime: float


def write_entry(
    descriptor: int, offset: int, name: str, chunks: Iterable[bytes], mtime: float
) -> ZipEntry:
    """Write an entry at offset; return it. The file's position is after it then.

    Its header, which has the sizes, is written last. Raises OSError.
    """
    encoded_name = name.encode()
    os.lseek(descriptor, offset + LOCAL.size + 20 + len(encoded_name), os.SEEK_SET)
    compressor = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = compressed_size = crc32 = 0
    for chunk in _with_end(chunks):
        if chunk is None:
            compressed = compressor.flush()
        else:
            size, crc32 = size + len(chunk), zlib.crc32(chunk, crc32)
            compressed = compressor.compress(chunk)
        files.write_all(descriptor, compressed)
        compressed_size += len(compressed)
    entry = ZipEntry(name, offset, size, compressed_size, crc32, mtime)
    os.pwrite(descriptor, _local_header(entry), offset)
    return entry


def end_of(entry: ZipEntry) -> int:
    """Return the offset after an entry."""
    return len(_local_header(entry)) + entry.offset + entry.compressed_size


def directory(entries: Iterable[ZipEntry], offset: int) -> Iterator[bytes]:
    """Yield the directory of these entries, which begins at offset."""
    count, size = 0, 0
    for each in entries:
        header = _central_header(each)
        count, size = count + 1, size + len(header)
        yield header
    end_64 = END_64.pack(
        b"PK\x06\x06",
        END_64.size - 12,
        UNIX | VERSION,
        VERSION,
        0,
        0,
        count,
        count,
        size,
        offset,
    )
    yield end_64
    yield LOCATOR_64.pack(b"PK\x06\x07", 0, offset + size, 1)
    short_count = min(count, LIMIT_16)
    yield END.pack(
        b"PK\x05\x06",
        0,
        0,
        short_count,
        short_count,
        min(size, LIMIT_32),
        min(offset, LIMIT_32),
        0,
    )


def _with_end(chunks: Iterable[bytes]) -> Iterator[bytes | None]:
    yield from chunks
    yield None


def _local_header(entry: ZipEntry) -> bytes:
    """Return the header before an entry's bytes; its sizes are in the ZIP64 field."""
    name = entry.name.encode()
    extra = struct.pack("<HHQQ", 1, 16, entry.size, entry.compressed_size)
    day, clock = _dos_time(entry.mtime)
    values = (VERSION, UTF8_NAME, DEFLATED, clock, day, entry.crc32)
    lengths = (LIMIT_32, LIMIT_32, len(name), len(extra))
    return LOCAL.pack(b"PK\x03\x04", *values, *lengths) + name + extra


def _central_header(entry: ZipEntry) -> bytes:
    name = entry.name.encode()
    sizes = (entry.size, entry.compressed_size, entry.offset)
    extra = struct.pack("<HHQQQ", 1, 24, *sizes)
    day, clock = _dos_time(entry.mtime)
    values = (UNIX | VERSION, VERSION, UTF8_NAME, DEFLATED, clock, day, entry.crc32)
    lengths = (LIMIT_32, LIMIT_32, len(name), len(extra), 0, 0, 0, MODE, LIMIT_32)
    return CENTRAL.pack(b"PK\x01\x02", *values, *lengths) + name + extra


def _dos_time(seconds: float) -> tuple[int, int]:
    """Return date and time (UTC) as DOS has them, within the years that it knows."""
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    year = min(max(year, FIRST_YEAR), LAST_YEAR)
    date = (year - FIRST_YEAR) << 9 | month << 5 | day
    return date, hour << 11 | minute << 5 | min(second, 59) // 2
