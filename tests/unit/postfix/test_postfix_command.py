"""Claims about how Postfix's own commands are run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from postfix_archive.errors import PostfixCommandFailed
from postfix_archive.postfix import postfix_command


def _postfix(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = directory / "postfix"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_a_command_is_over_when_it_exits_whoever_it_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    _postfix(tmp_path, f"sleep infinity & echo $! >{pid}; echo done", monkeypatch)
    assert postfix_command.run("/etc/postfix", "postfix", "reload") == "done\n"
    os.kill(int(pid.read_text()), signal.SIGKILL)  # raises if it were gone


def test_what_a_command_complains_of_is_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _postfix(tmp_path, "echo not running >&2; exit 1", monkeypatch)
    with pytest.raises(PostfixCommandFailed, match="postfix reload: not running"):
        postfix_command.reload("/etc/postfix")
