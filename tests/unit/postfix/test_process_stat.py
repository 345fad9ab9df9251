"""Processes as the kernel describes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postfix_archive.postfix import process_stat


def test_a_process_is_described_whatever_its_name() -> None:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        Path("/proc/self/comm").write_text("a) Z 1 (b")
        os.write(write_end, b"named")
        os.close(write_end)
        os.read(os.pipe()[0], 1)  # until it is killed
        os._exit(0)
    assert os.read(read_end, 5) == b"named"
    stat = process_stat.read(pid)
    assert (stat.name, stat.parent) == (b"a) Z 1 (b", os.getpid())
    assert not stat.has_ended and not stat.is_exiting
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    ended = process_stat.read(pid)
    assert ended.has_ended and ended.is_exiting and ended.start == stat.start
    os.waitpid(pid, 0)
    with pytest.raises(OSError):
        process_stat.read(pid)
