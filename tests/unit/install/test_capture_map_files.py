"""The files of the capture maps: written where they differ, removed with drafts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postfix_archive.errors import InstallRefused
from postfix_archive.install import capture_map_files
from postfix_archive.message import keyring

KEYS = keyring.parse(f"a {'a' * 64}\n", path="k")
MAP = "archive-capture"
VALUES = {MAP: "legal@example.com", f"{MAP}.a@b.example": "a@b.example"}


def test_maps_are_for_root_alone_and_go_with_their_drafts(tmp_path: Path) -> None:
    directory = str(tmp_path)
    (tmp_path / "main.cf").touch()
    (tmp_path / f"{MAP}.in").write_text("not ours\n")
    capture_map_files.write(directory, VALUES, KEYS)
    for name in VALUES:
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
        (tmp_path / f".{name}.0123456789abcdef").touch()
    capture_map_files.remove(directory, [MAP])
    assert sorted(os.listdir(directory)) == [MAP, f"{MAP}.in", "main.cf"]
    capture_map_files.remove(directory)
    assert sorted(os.listdir(directory)) == [f"{MAP}.in", "main.cf"]


def test_a_map_that_has_its_content_is_not_written(tmp_path: Path) -> None:
    capture_map_files.write(str(tmp_path), VALUES, KEYS)
    before = [os.stat(tmp_path / each).st_ino for each in VALUES]
    capture_map_files.write(str(tmp_path), VALUES, KEYS)
    assert [os.stat(tmp_path / each).st_ino for each in VALUES] == before


def test_a_file_of_others_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / MAP).write_text("/x/ y\n")
    with pytest.raises(InstallRefused, match="was not made by"):
        capture_map_files.check(str(tmp_path), VALUES)


def test_a_directory_that_is_gone_has_none(tmp_path: Path) -> None:
    capture_map_files.remove(str(tmp_path / "purged"))
