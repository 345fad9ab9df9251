"""Claims about the importer's marker: a forged one is disarmed, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from postfix_archive.message import archive_copy

FORGED = b"X-MS-Journal-Report: yes\r\n"
LOWERCASE = b"x-ms-journal-report: yes\r\n"


def chunks_of(content: bytes, size: int) -> list[bytes]:
    """Content in pieces of that size."""
    return [content[offset : offset + size] for offset in range(0, len(content), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 19, 20, 21, 1000])
@pytest.mark.parametrize("before", [b"", b"Subject: x\r\n", b"a: b\r\n\r\n" * 9])
def test_a_forged_marker_is_found_and_lowered_wherever_pieces_end(
    size: int, before: bytes
) -> None:
    content = before + FORGED + FORGED + b"\r\nbody\r\n"
    assert archive_copy.has_marker(chunks_of(content, size))
    lowercased = b"".join(archive_copy.lowercase_markers(chunks_of(content, size)))
    assert lowercased == before + LOWERCASE + LOWERCASE + b"\r\nbody\r\n"


@pytest.mark.parametrize(
    "content", [b"", b"\r\n", b"Subject: X-MS-Journal-Report:\r\n", LOWERCASE]
)
def test_a_message_without_one_stays_as_it_is(content: bytes) -> None:
    assert not archive_copy.has_marker([content])
    assert b"".join(archive_copy.lowercase_markers([content])) == content


@given(some.lists(some.sampled_from([b"\n", archive_copy.MARKER, b"X-MS", b"x", b""])))
def test_nothing_but_case_changes_and_no_marker_is_left(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    lowercased = b"".join(archive_copy.lowercase_markers(pieces))
    assert lowercased.lower() == content.lower()
    assert not archive_copy.has_marker([lowercased])
    assert archive_copy.has_marker(pieces) == (lowercased != content)
