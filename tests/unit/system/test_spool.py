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

LARGE = b"".join(b"line %07d\r\n" % number for number in range(420000))
OFFSETS = [0, 1, 7, 65535, 65536, 65537, len(LARGE) // 2, len(LARGE) - 1, len(LARGE)]

Kept = Callable[[list[bytes]], Spool]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spool]:
    """A message that is too large for memory."""
    kept = Spool()
    folder = str(tmp_path_factory.mktemp("spool"))
    for at in range(0, len(LARGE), 100001):
        kept.add(LARGE[at : at + 100001], folder)
    yield kept
    kept.close()


def in_memory(pieces: list[bytes]) -> Spool:
    kept = Spool()
    for piece in pieces:
        kept.add(piece, "/nowhere")
    return kept


def through_a_pipe(content: bytes, folder: str) -> Spool:
    """What the door makes of content on its stdin."""
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as opened:
            opened.write(content)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        return spool.read(reading, folder)
    finally:
        os.set_blocking(reading, True)
        while os.read(reading, 1 << 16):
            pass
        feeder.join()
        os.close(reading)


def test_the_large_message_is_larger_than_what_stays_in_memory() -> None:
    assert len(LARGE) > spool.MEMORY_LIMIT


@given(st.binary(max_size=80), examples.MARKS, st.integers(0, 90), st.integers(0, 90))
def test_any_range_of_a_message_in_memory_is_its_bytes(
    content: bytes, marks: list[int], start: int, stop: int
) -> None:
    kept = in_memory(examples.cut(content, marks))
    assert kept.size == len(content)
    assert b"".join(kept.chunks(start, stop)) == content[start:stop]
    assert b"".join(kept.chunks(start)) == content[start:]


@given(st.sampled_from(OFFSETS), st.sampled_from([0, 1, 65536, 70000, len(LARGE)]))
def test_any_range_of_a_message_in_a_file_is_its_bytes(
    large: Spool, start: int, length: int
) -> None:
    assert b"".join(large.chunks(start, start + length)) == LARGE[start:][:length]


def test_a_message_in_a_file_can_be_read_many_times(large: Spool) -> None:
    assert large.size == len(LARGE)
    for _ in range(2):
        assert b"".join(large.chunks()) == LARGE


def test_two_readers_of_one_message_do_not_disturb_each_other(large: Spool) -> None:
    one, two = large.chunks(), large.chunks(65536)
    seen = [next(one), next(two), next(one), next(two)]
    assert seen[0] + seen[2] == LARGE[: len(seen[0] + seen[2])]
    assert LARGE[65536:].startswith(seen[1] + seen[3])


@given(st.binary(max_size=60), examples.MARKS, st.sets(st.integers(0, 60)))
def test_digests_from_any_offsets_are_those_of_the_bytes(
    content: bytes, marks: list[int], offsets: set[int]
) -> None:
    wanted = sorted(offset for offset in offsets if offset <= len(content))
    kept = in_memory(examples.cut(content, marks))
    assert kept.digests(wanted) == examples.digests(content, wanted)


def test_digests_of_a_message_in_a_file_are_those_of_the_bytes(large: Spool) -> None:
    assert large.digests(OFFSETS) == examples.digests(LARGE, OFFSETS)


def test_the_head_is_what_the_limit_lets_see(large: Spool) -> None:
    assert large.head(limit=100) == LARGE[:100]
    assert large.head(65500, limit=100) == LARGE[65500:65600]
    assert len(large.head()) == 1 << 20


def test_the_shape_is_that_of_the_part_that_was_asked_for() -> None:
    kept = in_memory([b"gr\xfcn\r\n", b"a" * 1000 + b"\r\n", b"plain\r\n"])
    assert kept.shape().encoding == b"binary"
    assert not kept.shape().is_ascii
    assert kept.shape(6).is_ascii
    assert kept.shape(6 + 1002).encoding == b"7bit"


def test_a_message_of_exactly_the_limit_stays_in_memory() -> None:
    kept = in_memory([b"x" * spool.MEMORY_LIMIT])
    assert kept.size == spool.MEMORY_LIMIT


def test_a_large_message_leaves_no_name_in_the_folder(tmp_path: Path) -> None:
    kept = Spool()
    kept.add(LARGE, str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert b"".join(kept.chunks()) == LARGE
    kept.close()


def test_a_message_that_grows_out_of_memory_keeps_its_order(tmp_path: Path) -> None:
    kept = Spool()
    for piece in (b"first\r\n", LARGE, b"last\r\n"):
        kept.add(piece, str(tmp_path))
    assert b"".join(kept.chunks()) == b"first\r\n" + LARGE + b"last\r\n"
    kept.close()


def test_a_closed_message_is_forgotten(tmp_path: Path) -> None:
    kept = Spool()
    kept.add(LARGE, str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    kept.close()
    kept.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


@pytest.mark.parametrize(
    "content",
    [b"", b"a", b"a\n", b"a\n\nb", b".\n..\n", b"\0\xff\n", b"x" * 200000 + b"\n"],
)
def test_what_pipe_hands_over_becomes_canonical(content: bytes, tmp_path: Path) -> None:
    kept = through_a_pipe(content, str(tmp_path))
    ended = content if content.endswith(b"\n") or not content else content + b"\n"
    assert b"".join(kept.chunks()) == ended.replace(b"\n", b"\r\n")
    assert kept.size == len(ended.replace(b"\n", b"\r\n"))


def test_a_large_message_from_a_pipe_is_whole(tmp_path: Path) -> None:
    kept = through_a_pipe(LARGE.replace(b"\r\n", b"\n"), str(tmp_path))
    assert b"".join(kept.chunks()) == LARGE
    kept.close()


def test_a_folder_that_is_not_there_defers_and_names_the_setting(
    tmp_path: Path,
) -> None:
    with pytest.raises(SpoolFailed, match="archive_spool_directory = .*/none"):
        through_a_pipe(LARGE, f"{tmp_path}/none")


def test_a_stdin_that_cannot_be_read_defers(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(SpoolFailed):
            spool.read(descriptor, str(tmp_path))
    finally:
        os.close(descriptor)
