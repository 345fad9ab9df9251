"""Claims about setting a message aside, in memory and in a file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.errors import SpoolFailed
from postfix_archive.system import spool
from postfix_archive.system.spool import Spool

from unit import examples

LARGE_CONTENT = b"".join(b"line %07d\r\n" % number for number in range(420000))
OFFSETS = [
    0,
    1,
    7,
    65535,
    65536,
    65537,
    len(LARGE_CONTENT) // 2,
    len(LARGE_CONTENT) - 1,
    len(LARGE_CONTENT),
]

MakeSpool = Callable[[list[bytes]], Spool]


@pytest.fixture(scope="module")
def large_message(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spool]:
    """A message that is too large for memory."""
    message = Spool()
    directory = str(tmp_path_factory.mktemp("spool"))
    for offset in range(0, len(LARGE_CONTENT), 100001):
        message.add(LARGE_CONTENT[offset : offset + 100001], directory)
    yield message
    message.close()


def spool_in_memory(pieces: list[bytes]) -> Spool:
    message = Spool()
    for piece in pieces:
        message.add(piece, "/nowhere")
    return message


def spool_from_pipe(content: bytes, directory: str) -> Spool:
    """What the stamp filter makes of content on its stdin."""
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(content)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        return spool.read(reading, directory)
    finally:
        os.set_blocking(reading, True)
        while os.read(reading, 1 << 16):
            pass
        feeder.join()
        os.close(reading)


def test_the_large_message_is_larger_than_what_stays_in_memory() -> None:
    assert len(LARGE_CONTENT) > spool.MEMORY_LIMIT


@given(st.binary(max_size=80), examples.OFFSETS, st.integers(0, 90), st.integers(0, 90))
def test_any_range_of_a_message_in_memory_is_its_bytes(
    content: bytes, marks: list[int], start: int, stop: int
) -> None:
    message = spool_in_memory(examples.split_at(content, marks))
    assert message.size == len(content)
    assert b"".join(message.chunks(start, stop)) == content[start:stop]
    assert b"".join(message.chunks(start)) == content[start:]


@given(
    st.sampled_from(OFFSETS), st.sampled_from([0, 1, 65536, 70000, len(LARGE_CONTENT)])
)
def test_any_range_of_a_message_in_a_file_is_its_bytes(
    large_message: Spool, start: int, length: int
) -> None:
    assert (
        b"".join(large_message.chunks(start, start + length))
        == LARGE_CONTENT[start:][:length]
    )


def test_a_message_in_a_file_can_be_read_many_times(large_message: Spool) -> None:
    assert large_message.size == len(LARGE_CONTENT)
    for _ in range(2):
        assert b"".join(large_message.chunks()) == LARGE_CONTENT


def test_two_readers_of_one_message_do_not_disturb_each_other(
    large_message: Spool,
) -> None:
    one, two = large_message.chunks(), large_message.chunks(65536)
    chunks = [next(one), next(two), next(one), next(two)]
    assert chunks[0] + chunks[2] == LARGE_CONTENT[: len(chunks[0] + chunks[2])]
    assert LARGE_CONTENT[65536:].startswith(chunks[1] + chunks[3])


@given(st.binary(max_size=60), examples.OFFSETS, st.sets(st.integers(0, 60)))
def test_digests_from_any_offsets_are_those_of_the_bytes(
    content: bytes, marks: list[int], offsets: set[int]
) -> None:
    valid_offsets = sorted(offset for offset in offsets if offset <= len(content))
    message = spool_in_memory(examples.split_at(content, marks))
    assert message.digests(valid_offsets) == examples.digests(content, valid_offsets)


def test_digests_of_a_message_in_a_file_are_those_of_the_bytes(
    large_message: Spool,
) -> None:
    assert large_message.digests(OFFSETS) == examples.digests(LARGE_CONTENT, OFFSETS)


def test_the_head_is_what_the_limit_lets_see(large_message: Spool) -> None:
    assert large_message.head(limit=100) == LARGE_CONTENT[:100]
    assert large_message.head(65500, limit=100) == LARGE_CONTENT[65500:65600]
    assert len(large_message.head()) == 1 << 20


def test_the_properties_are_those_of_the_given_range() -> None:
    message = spool_in_memory([b"gr\xfcn\r\n", b"a" * 1000 + b"\r\n", b"plain\r\n"])
    assert message.shape().encoding == b"binary"
    assert not message.shape().is_ascii
    assert message.shape(6).is_ascii
    assert message.shape(6 + 1002).encoding == b"7bit"


def test_a_message_of_exactly_the_limit_stays_in_memory() -> None:
    message = spool_in_memory([b"x" * spool.MEMORY_LIMIT])
    assert message.size == spool.MEMORY_LIMIT


def test_a_large_message_leaves_no_name_in_the_directory(tmp_path: Path) -> None:
    message = Spool()
    message.add(LARGE_CONTENT, str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert b"".join(message.chunks()) == LARGE_CONTENT
    message.close()


def test_a_message_that_grows_out_of_memory_keeps_its_order(tmp_path: Path) -> None:
    message = Spool()
    for piece in (b"first\r\n", LARGE_CONTENT, b"last\r\n"):
        message.add(piece, str(tmp_path))
    assert b"".join(message.chunks()) == b"first\r\n" + LARGE_CONTENT + b"last\r\n"
    message.close()


def test_a_closed_message_is_forgotten(tmp_path: Path) -> None:
    message = Spool()
    message.add(LARGE_CONTENT, str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    message.close()
    message.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


@pytest.mark.parametrize(
    "content",
    [b"", b"a", b"a\n", b"a\n\nb", b".\n..\n", b"\0\xff\n", b"x" * 200000 + b"\n"],
)
def test_what_pipe_passes_becomes_canonical(content: bytes, tmp_path: Path) -> None:
    message = spool_from_pipe(content, str(tmp_path))
    complete = content if content.endswith(b"\n") or not content else content + b"\n"
    assert b"".join(message.chunks()) == complete.replace(b"\n", b"\r\n")
    assert message.size == len(complete.replace(b"\n", b"\r\n"))


def test_a_large_message_from_a_pipe_is_complete(tmp_path: Path) -> None:
    message = spool_from_pipe(LARGE_CONTENT.replace(b"\r\n", b"\n"), str(tmp_path))
    assert b"".join(message.chunks()) == LARGE_CONTENT
    message.close()


def test_a_missing_directory_defers_and_names_the_setting(
    tmp_path: Path,
) -> None:
    with pytest.raises(SpoolFailed, match="archive_spool_directory = .*/none"):
        spool_from_pipe(LARGE_CONTENT, f"{tmp_path}/none")


def test_a_stdin_that_cannot_be_read_defers(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(SpoolFailed):
            spool.read(descriptor, str(tmp_path))
    finally:
        os.close(descriptor)
