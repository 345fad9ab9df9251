"""Claims about making the site key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postfix_archive.config import key_file
from postfix_archive.errors import KeyMissing, KeyUnreadable
from postfix_archive.message import keyring


def test_a_new_key_can_be_read_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "archive.key"
    key_file.create(str(path), "k2026", None)
    keys = keyring.parse(path.read_text(), path=str(path))
    assert keys.current.key_id == "k2026"
    assert len(keys.current.secret) == keyring.SECRET_BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["archive.key"]


def test_two_keys_are_never_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        key_file.create(f"{tmp_path}/{name}", "k", None)
    assert (tmp_path / "one").read_text() != (tmp_path / "two").read_text()


def test_a_key_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "archive.key"
    path.write_text("precious\n")
    with pytest.raises(KeyUnreadable, match="already exists"):
        key_file.create(str(path), "k2026", None)
    assert path.read_text() == "precious\n"
    assert [each.name for each in tmp_path.iterdir()] == ["archive.key"]


@pytest.mark.parametrize("key_id", ["", "two words", "Upper", "a/b", "k" * 33, "#k"])
def test_a_key_id_that_could_not_be_read_again_makes_no_file(
    tmp_path: Path, key_id: str
) -> None:
    with pytest.raises(KeyUnreadable):
        key_file.create(f"{tmp_path}/archive.key", key_id, None)
    assert list(tmp_path.iterdir()) == []


def test_the_name_for_the_capsule_port_is_secret_and_made_once(tmp_path: Path) -> None:
    paths = [tmp_path / "one.helo", tmp_path / "two.helo"]
    assert all(key_file.create_helo(str(path), None) for path in paths)
    texts = [path.read_text() for path in paths]
    assert texts[0] != texts[1]
    for path, text in zip(paths, texts, strict=True):
        assert path.stat().st_mode & 0o777 == 0o600
        name, action = text.split()
        assert action == "OK"
        assert name == name.lower() and len(name) >= 32
        assert not key_file.create_helo(str(path), None)
        assert path.read_text() == text


def test_keys_of_one_day_differ_in_their_ids(tmp_path: Path) -> None:
    ids = {key_file.new_key_id() for _ in range(100)}
    assert len(ids) == 100
    for key_id in ids:
        keyring.parse(f"{key_id} {'ab' * 32}\n", path="x")


def test_an_owner_who_is_not_there_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyUnreadable, match="--owner"):
        key_file.create(f"{tmp_path}/archive.key", "k", "no-such-user")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyUnreadable, match="none: No such file"):
        key_file.create(f"{tmp_path}/none/archive.key", "k", None)


def test_the_umask_opens_the_file_to_nobody(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        key_file.create(f"{tmp_path}/archive.key", "k", None)
    finally:
        os.umask(before)
    assert (tmp_path / "archive.key").stat().st_mode & 0o777 == 0o600


def test_a_rotated_key_is_the_first_and_the_old_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "archive.key"
    key_file.create(str(path), "one", None)
    path.chmod(0o400)
    before = keyring.parse(path.read_text(), path="x").current
    key_file.rotate(str(path), "two")
    keys = keyring.parse(path.read_text(), path="x")
    assert [each.key_id for each in keys.keys] == ["two", "one"]
    assert keys.keys[1].secret == before.secret != keys.current.secret
    assert path.stat().st_mode & 0o777 == 0o400
    assert [each.name for each in tmp_path.iterdir()] == ["archive.key"]


def test_a_rotation_that_cannot_be_leaves_the_key_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "archive.key"
    with pytest.raises(KeyMissing, match="key create"):
        key_file.rotate(str(path), "two")
    key_file.create(str(path), "one", None)
    before = path.read_text()
    for key_id, wrong in (
        ("one", "has a key one already"),
        ("a b", "expected a key id"),
    ):
        with pytest.raises(KeyUnreadable, match=wrong):
            key_file.rotate(str(path), key_id)
    assert path.read_text() == before
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(KeyUnreadable, match="cannot be changed"):
        key_file.rotate(str(link), "two")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["archive.key", "link"]
