"""Claims about Outlook files: what is refused before readpst sees it, and that a
second run of readpst gives the same messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from postfix_archive.errors import ImportFailed
from postfix_archive.mail_import import pst

SIZE = 10_000


def header(*, version: int = 23, size: int = SIZE, method: int = 1) -> bytes:
    """Return the header of an Outlook file ([MS-PST] 2.2.2.6), filled up to SIZE."""
    is_ansi = version in pst.ANSI_VERSIONS
    size_offset, size_bytes, method_offset = (
        pst.ANSI_OFFSETS if is_ansi else pst.UNICODE_OFFSETS
    )
    content = bytearray(SIZE)
    content[:4] = b"!BDN"
    content[10:12] = version.to_bytes(2, "little")
    content[size_offset : size_offset + size_bytes] = size.to_bytes(
        size_bytes, "little"
    )
    content[method_offset] = method
    return bytes(content)


@pytest.mark.parametrize("version", [14, 15, 23, 36])
@pytest.mark.parametrize("method", [0, 1, 2])
def test_a_whole_file_is_read_with_any_encoding(
    tmp_path: Path, version: int, method: int
) -> None:
    path = tmp_path / "x.pst"
    path.write_bytes(header(version=version, method=method))
    pst.check(path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (header(size=SIZE + 1), "ends in the middle: it has 10000 of 10001 bytes"),
        (header(version=14, size=SIZE + 1), "ends in the middle"),
        (header(method=16), "encrypted with Windows Information Protection"),
        (header()[:500], "its header is cut off"),
    ],
)
def test_what_readpst_would_not_notice_is_refused(
    tmp_path: Path, content: bytes, text: str
) -> None:
    path = tmp_path / "x.pst"
    path.write_bytes(content)
    with pytest.raises(ImportFailed, match=text):
        pst.check(path)


def run(number: int) -> bytes:
    """Return what readpst 0.6.76 writes, with the numbers and the time of a run."""
    other = 7 * number
    return b"""Subject: meeting
Content-Type: multipart/mixed;
\tboundary="--boundary-LibPST-iamunique-%(a)d_-_-"

----boundary-LibPST-iamunique-%(a)d_-_-
Content-Type: multipart/alternative;
\tboundary="alt---boundary-LibPST-iamunique-%(b)d_-_-"

--alt---boundary-LibPST-iamunique-%(b)d_-_---
----boundary-LibPST-iamunique-%(a)d_-_-
Content-Type: text/calendar; charset="utf-8"; name="i%(a)d.ics"
Content-Disposition: attachment; filename="i%(a)d.ics"

UID:0x%(b)x
DTSTAMP:20261130T1342%(c)02dZ
----boundary-LibPST-iamunique-%(a)d_-_---
""" % {b"a": number, b"b": other, b"c": number % 60}


def test_two_runs_give_the_same_message() -> None:
    first, second = (
        b"".join(pst.stable_lines(run(number).splitlines(keepends=True)))
        for number in (11, 1516114213)
    )
    assert first == second
    assert first.count(b"iamunique-1_-_-") == 4
    assert first.count(b"iamunique-2_-_-") == 2


def test_other_lines_stay() -> None:
    lines = [b"UID:1@x\r\n", b"DTSTAMP:x\r\n", b'name="invite1.ics"\r\n', b"0x1\r\n"]
    assert list(pst.stable_lines(lines)) == lines
