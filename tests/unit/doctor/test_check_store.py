"""What an installation needs of the host: ports, directories, an interpreter."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.errors import InstallRefused, PostfixCommandFailed
from postfix_archive.install import config_files, dry_run, host_setup, instance, probe
from postfix_archive.postfix import configuration, mail_queue, postfix_command
from postfix_archive.postfix.queued_message import QueuedMessage
from postfix_archive.system import files, path_access, python_version

from unit.hosts import SETUP, STOCK_MASTER, config_after
from unit.hosts import make_config as stock

NOBODY = "no-such-user"


def test_ports_beyond_the_last_are_refused() -> None:
    with pytest.raises(InstallRefused, match="65535 is the highest; choose another"):
        host_setup.check_ports(range(65531, 65538), ())


def test_a_port_in_use_near_the_end_gets_an_offer_that_exists() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InstallRefused) as excinfo:
            host_setup.check_ports(range(port, port + 5), ())
    offer = int(str(excinfo.value).partition("PORT=")[2].split()[0])
    assert 1024 < offer <= 65531


@pytest.mark.parametrize("path", ["/etc/hostname", "/dev/null/x", "/etc/hostname/a/b"])
def test_a_store_below_a_file_is_refused(path: str) -> None:
    with pytest.raises(
        InstallRefused, match="is not a directory; choose another directory"
    ):
        host_setup.check_directory(f"STORE={path}", path)


def test_a_directory_that_can_be_made_is_accepted(tmp_path: Path) -> None:
    host_setup.check_directory("STORE=x", str(tmp_path / "a" / "b"))


def test_a_directory_that_others_cannot_search_is_named(tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents):
        if str(directory).startswith(f"{tempfile.gettempdir()}/"):  # pytest's own
            directory.chmod(0o755)
    inner = tmp_path / "etc"
    inner.mkdir()
    (inner / "key").touch()
    for mode in (0o700, 0o750):
        inner.chmod(mode)
        assert path_access.first_blocked_directory(str(inner / "key"), NOBODY) == str(
            inner
        )
    with pytest.raises(InstallRefused, match="chmod a.x"):
        host_setup.check_search_permission("PREFIX=x", str(inner / "lib"), NOBODY)
    inner.chmod(0o755)
    assert path_access.first_blocked_directory(str(inner / "key"), NOBODY) == ""
    link = tmp_path / "link"
    link.symlink_to(inner / "key")
    inner.chmod(0o700)
    assert path_access.first_blocked_directory(str(link), NOBODY) == str(inner)


def test_the_interpreter_is_named_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "snake").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert python_version.find_interpreter("snake") == str(tmp_path / "snake")
    assert python_version.find_interpreter("") == "/usr/bin/python3"


def test_an_interpreter_that_will_not_do_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "python3.6"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    blank = tmp_path / "a b"
    shutil.copy2(old, blank)
    for interpreter, reason in (
        ("python9", "no such program"),
        (str(old), "not Python 3.11 or later"),
        (str(blank), "first line of a script"),
        ("/etc/hostname", "no such program|not Python"),
    ):
        with pytest.raises(InstallRefused, match=reason):
            python_version.find_interpreter(interpreter)


def test_the_prefix_is_known_from_the_services() -> None:
    lines = (
        "archive-stamp unix - n n - 10 pipe user=x argv=/opt/pa/lib/%s/archive-stamp"
    )
    services = configuration.parse_services(lines % "postfix-archive")
    assert instance.prefix_of(services) == "/opt/pa"
    assert instance.prefix_of(configuration.parse_services(lines % "other")) == ""
    assert instance.prefix_of(config_after(stock(), SETUP).services) == "/usr/local"


@pytest.mark.parametrize("is_all_mail_held", [True, False])
def test_a_lost_probe_error_states_whether_all_mail_waits(
    is_all_mail_held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "archive-stamp:legal@example.com" if is_all_mail_held else ""
    queued = QueuedMessage("4Zx", 1, "<>", ("a@b",), ("",), content_filter=name)
    monkeypatch.setattr(mail_queue, "list_messages", lambda directory: [queued])
    failure = probe.failure_text("/etc/postfix")
    assert ("ALL MAIL WAITS" in failure) == is_all_mail_held
    assert "make uninstall" in failure
    assert ("bypass on" in failure) == is_all_mail_held


def test_bytes_that_are_no_utf8_survive_the_diff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "main.cf").write_bytes(b"# Gr\xfc\xdfe\nx = 1\n")
    (tmp_path / "master.cf").write_text(STOCK_MASTER)

    class FakeHost:
        directory = str(tmp_path)

        def contents_after(self, changes: tuple[Any, ...]) -> config_files.Contents:
            return config_files.apply_changes(config_files.read(str(tmp_path)), changes)

    def change(config_directory: str, each: object) -> None:
        Path(config_directory, "main.cf").write_bytes(b"# Gr\xfc\xdfe\nx = 2\n")

    monkeypatch.setattr(config_files, "apply_change", change)
    lines = "".join(dry_run._diff(FakeHost(), (None,)))  # type: ignore[arg-type]
    assert b" # Gr\xfc\xdfe\n-x = 1\n+x = 2\n" in lines.encode(
        "utf-8", "surrogateescape"
    )


@pytest.mark.live
def test_a_directory_without_main_cf_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PostfixCommandFailed) as excinfo:
        postfix_command.read_configuration(str(tmp_path / "nonexistent"))
    assert "no main.cf in this directory" in str(excinfo.value)
    assert "fatal" not in str(excinfo.value)


def test_a_file_with_the_same_text_still_gets_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "archive-stamp"
    files.replace(str(path), b"x", 0o755)
    path.chmod(0o600)
    files.replace(str(path), b"x", 0o755)
    assert path.stat().st_mode & 0o777 == 0o755
