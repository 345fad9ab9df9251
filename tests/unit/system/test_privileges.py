"""Claims about root in directories of other users: no link leads it astray.

What another user plants below a directory of its own is a symlink, a hard link or a
FIFO. What must hold: nothing outside changes owner, mode or content, and nothing hangs.
"""

from __future__ import annotations

import errno
import os
import pwd
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from postfix_archive.cli import doctor
from postfix_archive.config import key_file
from postfix_archive.doctor import inspection, lookup_results
from postfix_archive.doctor.finding import attribute_finding
from postfix_archive.errors import (
    InstallRefused,
    KeyMissing,
    KeyUnreadable,
    StoreFailed,
    TableInvalid,
)
from postfix_archive.install import host_setup
from postfix_archive.outcomes.follower_state import FollowerState
from postfix_archive.postfix import postfix_command
from postfix_archive.store import journal_reader
from postfix_archive.system import files, privileges
from postfix_archive.tables import table_file

from unit.doctor.test_checks import STOCK
from unit.examples import KEYS, LEGAL

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes owners")
OTHER = "nobody"
OTHER_ID = pwd.getpwnam(OTHER).pw_uid


@pytest.fixture
def foreign_directory(tmp_path: Path) -> Path:
    """A directory of another user, which that user can reach."""
    for directory in (tmp_path, *tmp_path.parents):
        if str(directory).startswith(f"{tempfile.gettempdir()}/"):  # pytest's own
            directory.chmod(0o755)
    directory = tmp_path / "foreign"
    directory.mkdir(mode=0o700)
    os.chown(directory, OTHER_ID, pwd.getpwnam(OTHER).pw_gid)
    return directory


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory of root's with a file, neither of which may change."""
    directory = tmp_path / "victim"
    directory.mkdir(mode=0o755)
    (directory / "file").write_text("of root's")
    (directory / "file").chmod(0o644)
    return directory


def is_untouched(victim: Path) -> bool:
    attributes = [
        (each.lstat().st_uid, each.lstat().st_mode & 0o7777)
        for each in (victim, victim / "file")
    ]
    is_alone = [each.name for each in victim.iterdir()] == ["file"]
    text = (victim / "file").read_text()
    return attributes == [(0, 0o755), (0, 0o644)] and is_alone and text == "of root's"


def plant_symlink(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def plant_link_chain(path: Path, victim: Path) -> None:
    (path.parent / "step").symlink_to(victim.parent)
    path.symlink_to("step/victim")


def plant_symlink_to_file(path: Path, victim: Path) -> None:
    path.symlink_to(victim / "file")


def plant_hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim / "file")


def plant_fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path)


PLANTED = (
    plant_symlink,
    plant_link_chain,
    plant_symlink_to_file,
    plant_hard_link,
    plant_fifo,
)
Plant = Callable[[Path, Path], None]


@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.parametrize("command", [("chown", OTHER), ("chmod", "700")])
def test_doctor_fix_changes_nothing_through_a_link(
    command: tuple[str, str],
    plant: Plant,
    foreign_directory: Path,
    victim: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Also one that was planted after the inspection."""
    path = foreign_directory / LEGAL
    path.mkdir()
    file = inspection._inspect_file(str(path))
    finding = attribute_finding("store-owner", file, "harm", *command)
    assert finding.is_safe
    path.rmdir()
    plant(path, victim)
    host = STOCK.__class__(config=STOCK.config, settings=None, is_running=False)
    doctor.apply_fixes(host, [finding])
    assert "failed: " in capfd.readouterr().err
    assert is_untouched(victim)


@pytest.mark.parametrize("plant", [plant_symlink, plant_link_chain])
def test_no_fix_is_printed_that_would_follow_a_link(
    plant: Plant, foreign_directory: Path, victim: Path
) -> None:
    plant(foreign_directory / LEGAL, victim)
    file = inspection._inspect_file(str(foreign_directory / LEGAL))
    finding = attribute_finding("store-owner", file, "harm", "chown", OTHER)
    assert not finding.is_safe
    assert "chown" not in finding.fix


def test_doctor_fix_changes_directories_and_files(foreign_directory: Path) -> None:
    archive = foreign_directory / LEGAL
    archive.mkdir(mode=0o755)
    privileges.change_owner(str(archive), OTHER)
    privileges.change_mode(str(archive), 0o700)
    assert (archive.stat().st_uid, archive.stat().st_mode & 0o777) == (OTHER_ID, 0o700)
    key = foreign_directory / "key"
    key.touch(mode=0o644)
    privileges.change_mode(str(key), 0o600)
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_link_that_only_root_can_have_made_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o755)
    (tmp_path / "store").symlink_to("disk")
    privileges.change_mode(str(tmp_path / "store"), 0o700)
    assert (tmp_path / "disk").stat().st_mode & 0o777 == 0o700
    assert not privileges.has_foreign_link(str(tmp_path / "store"))
    for path in ("disk/../store/", "store/.", "./store"):
        privileges.change_mode(f"{tmp_path}/{path}", 0o755)
        assert (tmp_path / "disk").stat().st_mode & 0o777 == 0o755
    os.close(privileges.open_path("/"))
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError) as excinfo:
        privileges.open_path(str(tmp_path / "loop"))
    assert excinfo.value.errno == errno.ELOOP


def test_root_drops_its_privileges_only_where_it_is_not_led_to_a_directory_of_its_own(
    foreign_directory: Path, victim: Path
) -> None:
    (foreign_directory / "link").symlink_to(victim)
    (foreign_directory / "roots").mkdir(mode=0o755)
    for name in ("link", "roots"):
        with pytest.raises(StoreFailed):
            with privileges.as_owner(str(foreign_directory / name)):
                pytest.fail("root stays root in a place that another user chooses")
    with privileges.as_owner(str(foreign_directory)):
        assert os.geteuid() == OTHER_ID
    assert os.geteuid() == 0


@pytest.mark.parametrize("plant", [plant_symlink, plant_hard_link, plant_fifo])
@pytest.mark.parametrize("name", ["followed", "lock", "tallies"])
def test_root_writes_its_notes_through_no_link(
    name: str, plant: Plant, foreign_directory: Path, victim: Path
) -> None:
    """As the directory's owner, who may not write root's files anyway."""
    plant(foreign_directory / name, victim)
    privileges.touch(str(foreign_directory), name)
    try:
        with privileges.as_owner(str(foreign_directory)):
            os.close(privileges.try_lock(str(foreign_directory / name)))
    except StoreFailed:
        pass
    with privileges.as_owner(str(foreign_directory)):
        files.replace(str(foreign_directory / name), b"content")
    assert is_untouched(victim)


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal"])
@pytest.mark.parametrize("plant", [plant_symlink_to_file, plant_fifo])
def test_the_follower_opens_no_link_and_no_fifo(
    plant: Plant, suffix: str, foreign_directory: Path, victim: Path
) -> None:
    plant(foreign_directory / f"outcomes.sqlite{suffix}", victim)
    with pytest.raises(StoreFailed, match="not a regular file"):
        FollowerState(str(foreign_directory))
    assert is_untouched(victim)


def test_a_store_is_not_created_through_a_link(
    foreign_directory: Path, victim: Path
) -> None:
    (foreign_directory / "step").symlink_to(victim)
    with pytest.raises(InstallRefused, match="STORE: .* symlink"):
        host_setup.check_directory("STORE", str(foreign_directory / "step" / "store"))
    with pytest.raises(OSError):  # planted after the check
        host_setup.create_private_directory(
            str(foreign_directory / "step" / "store"), OTHER
        )
    assert (victim / "store").stat().st_uid == 0
    host_setup.create_private_directory(str(foreign_directory / "store"), OTHER)
    status = (foreign_directory / "store").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (OTHER_ID, 0o700)


def test_the_probe_is_found_beside_a_journal_that_cannot_be_read(
    foreign_directory: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, plant in enumerate((plant_fifo, plant_symlink_to_file)):
        archive = foreign_directory / f"a{number}@example.com"
        archive.mkdir()
        plant(archive / "journal", victim)
    (foreign_directory / "b@example.com").symlink_to(victim)
    legal = foreign_directory / LEGAL
    legal.mkdir()
    program = foreign_directory / "sendmail"
    journal_path = journal_reader.path_of(str(foreign_directory), LEGAL)
    Path(journal_path).mkdir()
    program.write_text(f'#!/bin/sh\necho "$6" >>{journal_path}/2026-11\n')
    program.chmod(0o755)
    monkeypatch.setattr(postfix_command, "find_command", lambda name: str(program))
    assert host_setup.send_probe("/etc/postfix", str(foreign_directory))


def test_a_key_is_written_as_the_owner_of_its_directory(
    foreign_directory: Path, victim: Path
) -> None:
    (foreign_directory / "step").symlink_to(victim)
    with pytest.raises(KeyUnreadable):
        key_file.create(str(foreign_directory / "step" / "key"), "a", OTHER)
    path = foreign_directory / "key"
    key_file.create(str(path), "a", OTHER)
    key_file.rotate(str(path), "b")
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (OTHER_ID, 0o600)
    path.unlink()
    for plant in (plant_symlink_to_file, plant_hard_link, plant_fifo):
        plant(path, victim)
        with pytest.raises((KeyUnreadable, KeyMissing)):
            key_file.rotate(str(path), "c")
        with pytest.raises(KeyUnreadable, match="already exists"):
            key_file.create(str(path), "c", OTHER)
        path.unlink()
    assert is_untouched(victim)


@pytest.mark.parametrize("plant", [plant_symlink_to_file, plant_fifo])
def test_the_doctor_reads_no_table_that_leads_elsewhere(
    plant: Plant, foreign_directory: Path, victim: Path
) -> None:
    plant(foreign_directory / "table", victim)
    with pytest.raises(OSError):
        lookup_results._read_table("/", f"texthash:{foreign_directory}/table")
    with pytest.raises(TableInvalid):
        table_file.compile_all((("hash", f"{foreign_directory}/table.in"),), KEYS)


@pytest.mark.parametrize("mode", [0o700, 0o1777])
def test_no_table_is_written_where_another_user_can_replace_its_draft(
    mode: int, foreign_directory: Path
) -> None:
    if mode != 0o700:
        os.chown(foreign_directory, 0, -1)
        foreign_directory.chmod(mode)
    source = foreign_directory / "table.in"
    source.write_text("a@example.com ARCHIVE legal@example.com\n")
    tables = table_file.compile_all((("texthash", str(source)),), KEYS)
    with pytest.raises(TableInvalid, match="a user other than root"):
        table_file.write_all(tables, "/")
    assert [each.name for each in foreign_directory.iterdir()] == ["table.in"]
    os.chown(foreign_directory, 0, -1)
    foreign_directory.chmod(0o755)
    table_file.write_all(tables, "/")
    assert (foreign_directory / "table").exists()
