"""Whether the end of stdin is the end of the message: by the parent and by the size."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from postfix_archive.errors import MessageIncomplete
from postfix_archive.intake import end_of_file
from postfix_archive.postfix import postfix_command
from postfix_archive.system import spool

from unit.hosts import make_config

MESSAGE = b"Subject: x\n\nbody\n"
SIZE = (10 + 2) + (0 + 2) + (4 + 2)
WHOLE, CUT, OTHER = 0, 75, 1


def judge(descriptor: int, size: bytes, directory: str = "/nonexistent") -> int:
    """Return WHOLE or CUT for what can be read from a descriptor."""
    message = spool.read(descriptor, "/tmp")
    try:
        end_of_file.require_complete(message, size, directory)
    except MessageIncomplete:
        return CUT
    return WHOLE


def verdict_below(
    parent: Callable[[int], None], size: bytes, *, name: str = "pipe"
) -> int:
    """Return what a transport says whose parent has this name and writes to it.

    parent gets the descriptor to write to; it runs in a process of its own.
    """
    answer_read, answer_write = os.pipe()
    pid = os.fork()
    if not pid:
        Path("/proc/self/comm").write_text(name)
        stdin, to_write = os.pipe()
        if not os.fork():
            os.close(to_write)
            code = OTHER
            try:
                code = judge(stdin, size)
            finally:
                os.write(answer_write, bytes([code]))
                os._exit(0)
        os.close(stdin)
        parent(to_write)
        os.close(to_write)
        os.wait()
        os._exit(0)
    os.close(answer_write)
    answer = os.read(answer_read, 1)
    os.close(answer_read)
    os.waitpid(pid, 0)
    return answer[0]


def write_all(descriptor: int) -> None:
    """Write the whole message."""
    os.write(descriptor, MESSAGE)


def write_and_die(descriptor: int) -> None:
    """Write all and be killed before the end of file."""
    os.write(descriptor, MESSAGE)
    os.kill(os.getpid(), signal.SIGKILL)


def write_a_part(descriptor: int) -> None:
    """Write the beginning, as from a damaged queue file."""
    os.write(descriptor, MESSAGE[:-5])


@pytest.mark.parametrize("size", [b"", b"%d" % SIZE])
def test_the_end_of_file_of_a_living_pipe_is_the_end(size: bytes) -> None:
    assert verdict_below(write_all, size) == WHOLE


@pytest.mark.parametrize("size", [b"", b"%d" % SIZE])
def test_the_end_of_file_of_a_dead_pipe_is_not(size: bytes) -> None:
    """Fifty times: the parent dies at any moment of the look at it."""
    assert {verdict_below(write_and_die, size) for _ in range(50)} == {CUT}


def test_a_damaged_queue_file_is_cut_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(end_of_file, "_has_milters", lambda _: False)
    assert verdict_below(write_a_part, b"%d" % (SIZE + 80)) == CUT


def test_a_milter_may_have_made_the_message_smaller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(end_of_file, "_has_milters", lambda _: True)
    assert verdict_below(write_all, b"%d" % (SIZE + 4000)) == WHOLE


@pytest.mark.parametrize(
    ("main", "option", "expected"),
    [
        ({}, "", False),
        ({"smtpd_milters": "inet:127.0.0.1:8891"}, "", True),
        ({"non_smtpd_milters": "inet:127.0.0.1:8891"}, "", True),
        ({"smtpd_milter_maps": "inline:{192.0.2.1=inet:127.0.0.1:8891}"}, "", True),
        ({}, " -o smtpd_milters=inet:127.0.0.1:8891", True),
        ({}, " -o smtpd_milters=", False),
    ],
)
def test_a_milter_is_known_wherever_it_is_named(
    main: dict[str, str],
    option: str,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config(main, f"smtp inet n - n - - smtpd{option}\n")
    monkeypatch.setattr(postfix_command, "read_configuration", lambda _: config)
    assert end_of_file._has_milters("/etc/postfix") is expected


@pytest.mark.parametrize(
    ("size", "verdict"),
    [
        (b"", CUT),
        (b"%d" % SIZE, WHOLE),
        (b"%d" % (SIZE - 1), CUT),
        (b"%d" % (SIZE + 1), CUT),
        (b"12x", CUT),
        (b"-20", CUT),
    ],
)
def test_another_parent_must_give_the_exact_size(size: bytes, verdict: int) -> None:
    assert verdict_below(write_all, size, name="bash") == verdict


@pytest.mark.parametrize("name", ["pipe", "bash"])
def test_an_empty_stdin_is_no_message(name: str) -> None:
    assert verdict_below(lambda _: None, b"0", name=name) == CUT


def test_a_name_with_parentheses_and_spaces_is_read() -> None:
    assert verdict_below(write_all, b"", name="a) (pipe") == CUT


def test_where_proc_hides_the_parent_its_death_is_seen_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real_open = os.open

    def hidden(path: str, flags: int) -> int:
        if path.startswith("/proc/"):
            raise FileNotFoundError(path)
        return real_open(path, flags)

    monkeypatch.setattr("postfix_archive.intake.end_of_file.os.open", hidden)
    assert verdict_below(write_all, b"") == WHOLE
    assert verdict_below(write_and_die, b"") == CUT
