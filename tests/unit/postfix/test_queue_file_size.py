"""The size of a message in the queue file, by the way rec_put() writes records."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.postfix import queue_file_size
from postfix_archive.postfix.queue_file_size import content_size, milter_reserve


def record_size(length: int) -> int:
    """Return the size of one record with a text of this length."""
    length_bytes = 1
    rest = length >> 7
    while rest:
        length_bytes += 1
        rest >>= 7
    return 1 + length_bytes + length


def written_size(lines: list[int], limit: int) -> int:
    """Return the size of lines of these lengths, split at line_length_limit."""
    size = 0
    for length in lines:
        while length > limit:
            size += record_size(limit)
            length -= limit
        size += record_size(length)
    return size


LENGTHS = st.one_of(
    st.integers(0, 200),
    st.integers(0, 20_000),
    st.sampled_from([127, 128, 511, 512, 513, 2047, 2048, 2049, 4096, 16383, 16384]),
)


@given(
    st.lists(LENGTHS, max_size=20),
    st.sampled_from([512, 998, 2048, 4096, 65536]),
    st.integers(1, 5000),
)
def test_what_postfix_writes_lies_between_the_two(
    lines: list[int], limit: int, step: int
) -> None:
    message = b"".join(b"x" * length + b"\r\n" for length in lines)
    pieces = [message[at : at + step] for at in range(0, len(message), step)]
    smallest, largest = content_size(pieces)
    assert len(message) <= smallest <= written_size(lines, limit) <= largest


@given(st.lists(st.integers(0, 511), max_size=20))
def test_ordinary_lines_are_counted_exactly(lines: list[int]) -> None:
    message = b"".join(b"x" * length + b"\r\n" for length in lines)
    assert content_size([message]) == (written_size(lines, 2048),) * 2


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=20))
def test_a_message_without_its_last_line_is_smaller(lines: list[int]) -> None:
    pieces = [b"x" * length + b"\r\n" for length in lines]
    last = lines[-1]
    assert content_size(pieces)[0] - content_size(pieces[:-1])[0] >= last + 2


def test_a_milter_has_room_after_short_header_lines() -> None:
    pointer = queue_file_size.POINTER_RECORD
    long_line = b"Subject: long enough\r\n"
    assert milter_reserve(long_line) == 2 * pointer  # the last line is empty
    assert milter_reserve(long_line + b"To: a@b\r\n") == 3 * pointer
