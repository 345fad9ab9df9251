"""Why a transport failed: one line in the mail log, and in a file of its owner."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from postfix_archive.system import failure_log

FIELDS = {"queue_id": "4Zx", "error": "KeyMissing", "reason": "archive.key is missing"}
LINE = "queue_id=4Zx error=KeyMissing reason=archive.key is missing"


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The lines that went to the mail log."""
    lines: list[str] = []
    monkeypatch.setattr(
        failure_log, "_write_to_log", lambda line, directory: lines.append(line)
    )
    monkeypatch.setattr(failure_log, "DEFAULT_DIRECTORY", str(tmp_path / "default"))
    (tmp_path / "default").mkdir()
    return lines


def record(spool: Path, fields: dict[str, str] | None = None) -> None:
    failure_log.record(
        fields or FIELDS, config_directory="/etc/x", spool_directory=str(spool)
    )


def test_the_last_failure_is_stored_with_its_time(
    logged: list[str], tmp_path: Path
) -> None:
    record(tmp_path, {"error": "first"})
    record(tmp_path)
    assert logged == ["error=first", LINE]
    last_failure = failure_log.last("/etc/x", str(tmp_path), owner_of=[str(tmp_path)])
    assert last_failure.partition(" ")[2] == LINE
    time.strptime(last_failure.partition(" ")[0], "time=%Y-%m-%dT%H:%M:%SZ")
    assert failure_log.last("/etc/other", str(tmp_path), owner_of=[str(tmp_path)]) == ""
    [path] = tmp_path.glob(".*.last-error")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_spool_directory_that_is_gone_leaves_the_default(
    logged: list[str], tmp_path: Path
) -> None:
    record(tmp_path / "missing")
    assert LINE in failure_log.last(
        "/etc/x", str(tmp_path / "missing"), owner_of=[str(tmp_path)]
    )


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_is_planted_is_neither_followed_nor_read(
    logged: list[str], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / failure_log._name("/etc/x")
    victim = tmp_path / "victim"
    victim.write_text("time=9999 secret")
    if kind == "symlink":
        path.symlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert failure_log.last("/etc/x", str(tmp_path), owner_of=[str(tmp_path)]) == ""
    record(tmp_path)  # over a directory: to the default directory
    assert LINE in failure_log.last("/etc/x", str(tmp_path), owner_of=[str(tmp_path)])
    assert victim.read_text() == "time=9999 secret"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
@pytest.mark.parametrize("kind", ["file", "symlink"])
def test_another_user_can_neither_forge_the_last_failure_nor_keep_it_out(
    logged: list[str], tmp_path: Path, kind: str
) -> None:
    """As in /var/tmp, where nobody can replace the file of another user."""
    tmp_path.chmod(0o1777)
    os.chown(tmp_path, 65534, 65534)
    (tmp_path / "owned").touch()
    path = tmp_path / failure_log._name("/etc/x")
    (tmp_path / "forged").write_text("time=9999 forged")
    if kind == "file":
        (tmp_path / "forged").rename(path)
    else:
        path.symlink_to(tmp_path / "forged")
    # Not by the link, which fs.protected_symlinks keeps from us too (proc(5)).
    forged = path if kind == "file" else tmp_path / "forged"
    os.chown(path, 65533, 65533, follow_symlinks=False)

    def last() -> str:
        owner_of = [str(tmp_path / "owned")]
        return failure_log.last("/etc/x", str(tmp_path), owner_of=owner_of)

    assert last() == ""
    record(tmp_path)
    assert LINE in last()
    record(tmp_path, {"error": "second"})
    assert last().endswith(" error=second")
    assert forged.read_text() == "time=9999 forged"
    owner_of = [str(tmp_path / "owned")]
    failure_log.remove("/etc/x", str(tmp_path), owner_of=owner_of)
    assert last() == "" and forged.read_text() == "time=9999 forged"


def test_a_failure_of_the_log_itself_is_no_failure(
    logged: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_error(line: str, directory: str) -> None:
        raise OSError("no log")

    monkeypatch.setattr(failure_log, "_write_to_log", raise_error)
    record(tmp_path)
    assert LINE in failure_log.last("/etc/x", str(tmp_path), owner_of=[str(tmp_path)])


def test_a_line_is_one_line_of_printable_text(
    logged: list[str], tmp_path: Path
) -> None:
    record(tmp_path, {"queue_id": "4\x1bZ", "reason": "a\r\nb\0c\udcff" + "x" * 2000})
    [line] = logged
    assert line.startswith("queue_id=4?Z reason=a b?c?xxx") and line.isprintable()
    assert len(line) == failure_log.LINE_LIMIT


def test_only_a_neutral_reason_is_explained() -> None:
    deferred = "temporary failure. Command output: 4.3.5 temporary failure"
    assert failure_log.explain(deferred, LINE) == f"{deferred}; last failure: {LINE}"
    assert failure_log.explain(deferred, "") == deferred
    assert failure_log.explain("connect to mx: refused", LINE) == (
        "connect to mx: refused"
    )
