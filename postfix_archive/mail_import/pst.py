"""Reads the messages of an Outlook file (.pst, .ost) with readpst of pst-utils.

Used by mail_import/sources. readpst makes an Internet message of each item of
Outlook's, since a .pst has none: what it makes is what is imported. A password of
Outlook's is not encryption: readpst does not ask for it. readpst reads a damaged file
as far as it can and says nothing: the size and the encryption are checked here first
([MS-PST] 2.2.2.6). Raises ImportFailed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from postfix_archive.errors import ImportFailed
from postfix_archive.system import privileges

MAGIC = b"!BDN"
HEADER_SIZE = 564
ANSI_VERSIONS = (14, 15)
# Offsets in the header, of an ANSI and of a Unicode file: size of the file (ibFileEof),
# its bytes, and the encryption (bCryptMethod).
ANSI_OFFSETS = (168, 4, 461)
UNICODE_OFFSETS = (184, 8, 513)
PROTECTED = 0x10  # Windows Information Protection
PROGRAM = "readpst"
BOUNDARY_NAME = b"boundary-LibPST-iamunique-"
RANDOM_NUMBER = re.compile(
    rb"(boundary-LibPST-iamunique-(?=\d+_-_-)|^UID:(?=0x)|name=\"i(?=\d+\.ics\"))"
    rb"(0x[0-9a-f]+|\d+)"
)
TIMESTAMP = re.compile(rb"DTSTAMP:\d{8}T\d{6}Z")


def check(path: Path) -> None:
    """Raise ImportFailed for a file that is cut, or encrypted so that none reads it."""
    with path.open("rb") as file:
        header = file.read(HEADER_SIZE)
    size = path.stat().st_size
    version = int.from_bytes(header[10:12], "little")
    is_ansi = version in ANSI_VERSIONS
    size_offset, size_bytes, method_offset = (
        ANSI_OFFSETS if is_ansi else UNICODE_OFFSETS
    )
    if len(header) < HEADER_SIZE:
        raise ImportFailed("not an Outlook file: its header is cut off")
    if header[method_offset] == PROTECTED:
        raise ImportFailed(
            "encrypted with Windows Information Protection; save it in Outlook without"
        )
    full_size = int.from_bytes(header[size_offset : size_offset + size_bytes], "little")
    if full_size > size:
        raise ImportFailed(
            f"ends in the middle: it has {size} of {full_size} bytes; copy it again"
        )


def stable_lines(file: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a message of readpst, the same in each of its runs.

    It takes random numbers for boundaries and for UID and file name of a calendar part,
    which are numbered here, and the time of the run for its DTSTAMP.
    """
    numbers: dict[bytes, bytes] = {}

    def numbered(match: re.Match[bytes]) -> bytes:
        number = numbers.setdefault(match[2], b"%d" % (len(numbers) + 1))
        return match[1] + number

    for line in file:
        if line.startswith(b"DTSTAMP:"):
            line = TIMESTAMP.sub(b"DTSTAMP:19700101T000000Z", line)
        elif line.startswith(b"UID:0x") or b".ics" in line or BOUNDARY_NAME in line:
            line = RANDOM_NUMBER.sub(numbered, line)
        yield line


def extract(path: Path, directory: Path) -> None:
    """Write each message of an Outlook file as a file below directory.

    Root runs readpst as the owner of directory, with a copy of the file: it parses what
    others have made.
    """
    check(path)
    program = shutil.which(PROGRAM)
    if program is None:
        raise ImportFailed(
            f"{PROGRAM} is not installed; install it: apt-get install pst-utils"
        )
    source = path.absolute()
    owner = directory.stat()
    is_root = not os.geteuid() and owner.st_uid != 0
    if is_root:
        with privileges.as_ids(owner.st_uid, owner.st_gid):
            copy = os.open(directory / "source.pst", os.O_WRONLY | os.O_CREAT, 0o600)
        with open(copy, "wb") as target, source.open("rb") as file:
            shutil.copyfileobj(file, target, 1 << 20)
        source = directory / "source.pst"
    messages = directory / "messages"
    with privileges.as_ids(owner.st_uid, owner.st_gid):
        messages.mkdir()
    result = subprocess.run(
        [program, "-D", "-e", "-te", "-j0", "-q", "-o", str(messages), str(source)],
        capture_output=True,
        text=True,
        errors="replace",
        user=owner.st_uid if is_root else None,
        group=owner.st_gid if is_root else None,
        extra_groups=[] if is_root else None,
        check=False,
    )
    if result.returncode:
        output = " ".join((result.stderr or result.stdout).split())[:200]
        raise ImportFailed(f"{PROGRAM}: {output or f'exit code {result.returncode}'}")
