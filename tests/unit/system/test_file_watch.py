"""A change of main.cf, master.cf or archive.cf is noticed; real files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from postfix_archive.config import archive_cf
from postfix_archive.system.file_watch import Watch

CHANGES: dict[str, Callable[[Path], object]] = {
    "a line more": lambda etc: (etc / "main.cf").write_text("a = 1\nb = 2\n"),
    "as many bytes": lambda etc: (etc / "master.cf").write_text("c = 3\n"),
    "replaced, with the time of before": lambda etc: replace_file(etc / "main.cf"),
    "made": lambda etc: (etc / "archive.cf").write_text("a = 1\n"),
    "taken away": lambda etc: (etc / "main.cf").unlink(),
}


def replace_file(path: Path) -> None:
    """As postconf(1) does: a new file takes the name."""
    stat = path.stat()
    draft = path.with_name("draft")
    draft.write_text("b = 2\n")
    os.utime(draft, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    draft.rename(path)


@pytest.fixture
def config_directory(tmp_path: Path) -> Path:
    for name in ("main.cf", "master.cf"):
        (tmp_path / name).write_text("a = 1\n")
        os.utime(tmp_path / name, (1, 1))
    return tmp_path


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(config_directory: Path, change: str) -> None:
    watch = Watch(*archive_cf.configuration_files(str(config_directory)))
    CHANGES[change](config_directory)
    assert watch.is_changed
    assert watch.is_changed  # until somebody looks anew
    assert not Watch(*archive_cf.configuration_files(str(config_directory))).is_changed


def test_other_files_are_none_of_its_business(config_directory: Path) -> None:
    watch = Watch(*archive_cf.configuration_files(str(config_directory)))
    (config_directory / "main.cf").read_text()
    (config_directory / "transport").write_text("example.net smtp:\n")
    assert not watch.is_changed
