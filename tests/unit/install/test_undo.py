"""The undo record survives whatever ends an installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from postfix_archive.errors import InstallFailed, InstallRefused
from postfix_archive.install import config_files, undo, uninstall
from postfix_archive.install.filter_routes import Change
from postfix_archive.install.undo import UndoRecord

FILES_BEFORE = {
    "master.cf": b"smtp inet n - y - - smtpd\n",
    "main.cf": b"a =\n  b,\n  c\n",
}
FILES_READY = {
    **FILES_BEFORE,
    "master.cf": b"smtp inet n - y - - smtpd\narchive unix x\n",
}
FILES_ROUTED = {**FILES_READY, "main.cf": b"a = b, c\ncontent_filter = x\n"}
CHANGES = (Change("main", "a", "b, c", "b,  c"),)


@pytest.fixture
def config_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration directory; the state directory lies beside it."""
    monkeypatch.setattr(undo, "STATE_DIRECTORY", tmp_path / "state")
    for name, content in FILES_BEFORE.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def begin_installation(directory: Path) -> UndoRecord:
    record = UndoRecord(str(directory), "postfix")
    record.begin(CHANGES, [FILES_READY, FILES_ROUTED])
    return record


@pytest.mark.parametrize("present_files", [FILES_BEFORE, FILES_READY, FILES_ROUTED])
def test_a_broken_off_installation_can_be_taken_back(
    config_directory: Path, present_files: config_files.Contents
) -> None:
    begin_installation(config_directory)
    config_files.replace_files(config_directory, present_files, FILES_BEFORE)
    later = UndoRecord(str(config_directory), "postfix")
    assert later.is_unfinished and later.is_untouched
    assert later.changes == list(CHANGES)
    later.restore()
    assert config_files.read(config_directory) == FILES_BEFORE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"changes": [], "states": []}',
        b'{"changes": [], "states": {"main.cf": 5}}',
        b'{"changes": [{"kind": "main"}], "states": {}}',
        b'{"changes": [5], "states": {}}',
        b'{"changes": 5, "states": {}}',
        b'{"states": {}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_record_is_named_with_a_way_out(
    config_directory: Path, content: bytes
) -> None:
    record = begin_installation(config_directory)
    path = record.record_directory / "record.json"
    path.write_bytes(content)
    with pytest.raises(InstallRefused) as excinfo:
        UndoRecord(str(config_directory), "postfix")
    assert str(path) in str(excinfo.value) and "main.cf" in str(excinfo.value)
    assert len(str(excinfo.value).splitlines()) == 1
    # The program stays while it is not known whether another instance needs it.
    assert uninstall._is_prefix_in_use("/usr/local")


def test_the_first_original_stays_the_original(config_directory: Path) -> None:
    begin_installation(config_directory)
    config_files.replace_files(config_directory, FILES_READY, FILES_BEFORE)
    later = UndoRecord(str(config_directory), "postfix")
    later.begin((Change("main", "a", "d", "b, c"),), [FILES_ROUTED])
    config_files.replace_files(config_directory, FILES_ROUTED, FILES_READY)
    later.mark_complete()
    last = UndoRecord(str(config_directory), "postfix")
    assert last.changes == [Change("main", "a", "d", "b,  c")]
    assert last.is_untouched and not last.is_unfinished
    last.restore()
    assert config_files.read(config_directory) == FILES_BEFORE


def test_what_others_changed_after_the_break_is_noticed_for_good(
    config_directory: Path,
) -> None:
    begin_installation(config_directory)
    (config_directory / "main.cf").write_bytes(b"mine = 1\n")
    later = UndoRecord(str(config_directory), "postfix")
    assert not later.is_untouched
    later.begin((), [])
    later.mark_complete()
    last = UndoRecord(str(config_directory), "postfix")
    assert not last.is_untouched
    kept_directory = last.keep_originals()
    assert config_files.read(kept_directory) == FILES_BEFORE


def test_a_failure_leaves_no_record_and_a_later_one_the_earlier(
    config_directory: Path,
) -> None:
    record = begin_installation(config_directory)
    config_files.replace_files(config_directory, FILES_READY, FILES_BEFORE)
    record.roll_back()
    assert config_files.read(config_directory) == FILES_BEFORE
    assert not record.record_directory.exists()

    begin_installation(config_directory).mark_complete()
    config_files.replace_files(config_directory, FILES_READY, FILES_BEFORE)
    record_text = (record.record_directory / "record.json").read_text()
    upgrade = UndoRecord(str(config_directory), "postfix")
    upgrade.begin(CHANGES, [FILES_ROUTED])
    config_files.replace_files(config_directory, FILES_ROUTED, FILES_READY)
    upgrade.roll_back()
    assert config_files.read(config_directory) == FILES_READY
    assert (record.record_directory / "record.json").read_text() == record_text


def test_a_roll_back_keeps_what_others_changed_meanwhile(
    config_directory: Path,
) -> None:
    record = begin_installation(config_directory)
    config_files.replace_files(config_directory, FILES_READY, FILES_BEFORE)
    (config_directory / "main.cf").write_bytes(b"mine = 1\n")
    with pytest.raises(InstallFailed, match="changed by another process"):
        config_files.replace_files(config_directory, FILES_ROUTED, FILES_READY)
    record.roll_back()
    assert (config_directory / "main.cf").read_bytes() == b"mine = 1\n"
    assert (config_directory / "master.cf").read_bytes() == FILES_BEFORE["master.cf"]
    assert record.exists and not record.is_untouched


def test_replaced_files_keep_their_mode(config_directory: Path) -> None:
    (config_directory / "main.cf").chmod(0o640)
    config_files.replace_files(config_directory, FILES_ROUTED, FILES_BEFORE)
    assert (config_directory / "main.cf").stat().st_mode & 0o777 == 0o640
    assert config_files.read(config_directory) == FILES_ROUTED
    assert not list(config_directory.glob(".*"))
