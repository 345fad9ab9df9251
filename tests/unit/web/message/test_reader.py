"""Reading a message larger than what a page reads: its memory, and what is listed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import cast

import pytest

from postfix_archive.search.extraction_limits import MESSAGE_LIMIT
from postfix_archive.web.message import reader
from postfix_archive.web.visible.message import VisibleMessage

SIZE = MESSAGE_LIMIT + (1 << 20)
ONCE = MESSAGE_LIMIT * 5 // 4  # bytes: the message, in a buffer that has grown
TWICE = MESSAGE_LIMIT * 5 // 2  # and half of it once more, as bytes and as text
HEADER = b"Subject: large\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
SMALL = b"--b\r\nContent-Disposition: attachment\r\n\r\nsmall\r\n--b\r\n"
BASE64 = b"Content-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\n"


class Large:
    """A message that yields its original piece by piece, as VisibleMessage does."""

    size = SIZE

    def __init__(self, start: bytes, line: bytes) -> None:
        self._start, self._line = start, line

    def original_chunks(self) -> Iterator[bytes]:
        yield self._start
        block = self._line * ((1 << 16) // len(self._line))
        for _ in range(SIZE // len(block) + 1):
            yield block


def read(start: bytes, line: bytes) -> tuple[int, str, list[reader.ListedPart]]:
    """Return the peak of memory in bytes, the text and the parts."""
    message = cast(VisibleMessage, Large(start, line))
    tracemalloc.start()
    try:
        with reader.reading(message) as top:
            top.fields()
            text, parts = top.text(), top.listed_parts()
        assert "message: cut at 32 MB" in top.problems
        return tracemalloc.get_traced_memory()[1], text, parts
    finally:
        tracemalloc.stop()


# One character more or less: base64 without its end is decoded another way.
@pytest.mark.parametrize("shift", range(4))
def test_large_attachment_is_in_memory_once(shift: int) -> None:
    start = HEADER + SMALL + b"X: " + b"x" * shift + b"\r\n" + BASE64
    peak, text, parts = read(start, b"QUFB" * 19 + b"\r\n")
    assert peak < ONCE
    assert [each.size for each in parts] == [5, -1]


@pytest.mark.parametrize("shift", range(4))
def test_large_text_in_base64_is_decoded_as_far_as_it_is_shown(shift: int) -> None:
    start = b"X: " + b"x" * shift + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    for line in (b"VGhl" * 19 + b"\r\n", b"VGhl\r\n" * 9, b"VGhl"):
        peak, text, _ = read(start, line)
        assert peak < MESSAGE_LIMIT * 3 // 2
        assert text == "The" * (reader.TEXT_LIMIT // 3) + "Th"


def test_large_text_and_html_are_in_memory_not_three_times() -> None:
    for kind, limit in ((b"plain", ONCE), (b"html", TWICE)):
        start = b"Subject: large\r\nContent-Type: text/%s\r\n\r\n" % kind
        peak, text, parts = read(start, b"<p>The first <b>lines</b>.</p>\r\n")
        assert peak < limit
        assert "The first" in text


def test_a_part_that_is_cut_has_no_digest() -> None:
    """It would be that of other bytes than those which are downloaded."""
    _, _, parts = read(HEADER + SMALL + BASE64, b"QUFB" * 19 + b"\r\n")
    assert parts[0].sha256 and not parts[1].sha256
