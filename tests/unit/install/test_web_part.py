"""What make install WITH=web adds, where users and settings are there already."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from postfix_archive.access import reader_group
from postfix_archive.config import archive_cf
from postfix_archive.install import web_part
from postfix_archive.install.instance import Instance


def test_sharing_that_was_stopped_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if archive.cf has the group already."""
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(web_part, "_run", lambda *each: commands.append(each))
    monkeypatch.setattr(web_part, "WEB_DIRECTORY", str(tmp_path))
    account = pwd.getpwuid(os.getuid())
    group = grp.getgrgid(account.pw_gid).gr_name
    store = tmp_path / "store"
    store.mkdir(mode=0o700)
    (tmp_path / web_part.SETTINGS_FILE).touch()
    (tmp_path / "archive.cf").write_text(
        f"archive_store_directory = {store}\narchive_reader_group = {group}\n"
        f"archive_web_user = {account.pw_name}\nmyhostname = host.example.com\n"
    )
    instance = cast(
        Instance,
        SimpleNamespace(
            name="postfix",
            directory=str(tmp_path),
            current_settings=lambda: archive_cf.load(str(tmp_path)),
        ),
    )
    web_part.apply(instance, "postfix-archive")
    assert commands == [("postfix-archive", "-c", str(tmp_path), "readers")]
    reader_group.share(str(store), group)
    web_part.apply(instance, "postfix-archive")
    assert len(commands) == 1
