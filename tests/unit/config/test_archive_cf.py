"""Claims about reading archive.cf and the key file of one Postfix instance."""

from __future__ import annotations

import os
import posix
import pwd
from pathlib import Path

import pytest

from postfix_archive.config import archive_cf, key_file
from postfix_archive.errors import (
    KeyMissing,
    KeyUnreadable,
    SettingInvalid,
    SettingsUnreadable,
)

from unit.examples import make_settings


def test_a_missing_archive_cf_means_all_defaults(tmp_path: Path) -> None:
    loaded = archive_cf.load(str(tmp_path))
    assert loaded.archive_key_file == f"{tmp_path}/archive.key"
    assert loaded.myhostname == os.uname().nodename.encode()


def test_the_file_in_the_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / "archive.cf").write_text("archive_time_limit = 1m  \n# grün\n")
    assert archive_cf.load(str(tmp_path)).archive_time_limit == 60


def test_a_wrong_line_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "archive.cf").write_text("\narchive_time_limit = soon\n")
    with pytest.raises(SettingInvalid, match=f"^{tmp_path}/archive.cf, line 2: "):
        archive_cf.load(str(tmp_path))


def test_an_archive_cf_that_cannot_be_read_is_not_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "archive.cf").mkdir()
    with pytest.raises(SettingsUnreadable, match="master.cf"):
        archive_cf.load(str(tmp_path))


def test_an_archive_cf_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "archive.cf").write_bytes(b"# gr\xfcn\n")
    with pytest.raises(SettingsUnreadable, match="archive.cf"):
        archive_cf.load(str(tmp_path))


def test_a_dangling_directory_is_not_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsUnreadable):
        archive_cf.load(f"{tmp_path}/file")


def test_the_keys_are_read_from_the_configured_file(tmp_path: Path) -> None:
    key_file.create(f"{tmp_path}/site.key", "k7", None)
    settings = make_settings(f"archive_key_file = {tmp_path}/site.key\n")
    assert archive_cf.load_keys(settings).current.key_id == "k7"


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    settings = make_settings(f"archive_key_file = {tmp_path}/none.key\n")
    with pytest.raises(KeyMissing, match="none.key.*key create"):
        archive_cf.load_keys(settings)


@pytest.mark.parametrize("content", [b"", b"k 00\n", b"\xff\xfe", b"# none\n"])
def test_a_key_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "site.key").write_bytes(content)
    settings = make_settings(f"archive_key_file = {tmp_path}/site.key\n")
    with pytest.raises(KeyUnreadable, match="site.key"):
        archive_cf.load_keys(settings)


def test_a_key_file_that_cannot_be_read_names_the_file(tmp_path: Path) -> None:
    settings = make_settings(f"archive_key_file = {tmp_path}\n")
    with pytest.raises(KeyUnreadable, match=str(tmp_path)):
        archive_cf.load_keys(settings)


def test_the_directory_is_the_given_one_then_mail_configs_then_the_usual(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(posix.environ, b"MAIL_CONFIG", b"/etc/postfix-\xc3\xa9")
    assert archive_cf.find_config_directory("/etc/postfix-in") == "/etc/postfix-in"
    assert archive_cf.find_config_directory(None) == "/etc/postfix-\xe9"
    monkeypatch.delitem(posix.environ, b"MAIL_CONFIG")
    assert archive_cf.find_config_directory(None) == "/etc/postfix"
    assert archive_cf.find_config_directory("") == "/etc/postfix"


def test_the_mail_owner_is_looked_up() -> None:
    own_user = pwd.getpwuid(os.getuid())
    assert (
        archive_cf.mail_owner_uid(make_settings(f"mail_owner = {own_user.pw_name}\n"))
        == own_user.pw_uid
    )


def test_a_mail_owner_who_is_not_there_is_a_wrong_setting() -> None:
    with pytest.raises(SettingInvalid, match="mail_owner = nobody-like-that"):
        archive_cf.mail_owner_uid(make_settings("mail_owner = nobody-like-that\n"))


def test_a_fifo_in_the_place_of_a_file_blocks_nobody(tmp_path: Path) -> None:
    """Not root either, whose doctor reads the key in a directory of another user."""
    os.mkfifo(tmp_path / "archive.key")
    with pytest.raises(KeyUnreadable, match="not a regular file"):
        archive_cf.load_keys(archive_cf.load(str(tmp_path)))
    os.mkfifo(tmp_path / "archive.cf")
    with pytest.raises(SettingsUnreadable, match="not a regular file"):
        archive_cf.load(str(tmp_path))


def test_the_name_for_the_capsule_port_is_read_from_beside_the_key(
    tmp_path: Path,
) -> None:
    settings = make_settings(f"archive_key_file = {tmp_path}/site.key\n")
    assert archive_cf.load_capsule_helo(settings) == b"localhost"
    path = tmp_path / "site.key.helo"
    key_file.create_helo(str(path), None)
    helo = archive_cf.load_capsule_helo(settings)
    assert helo.decode() == path.read_text().split()[0]
    path.write_text("")
    assert archive_cf.load_capsule_helo(settings) == b"localhost"
    path.unlink()
    path.mkdir()
    with pytest.raises(KeyUnreadable, match="site.key.helo cannot be read"):
        archive_cf.load_capsule_helo(settings)
