"""Claims about laying down the program while somebody is at work in the checkout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from postfix_archive.config import settings
from postfix_archive.config.settings import Settings
from postfix_archive.errors import InstallFailed, InstallRefused
from postfix_archive.install import main as installer
from postfix_archive.install import program
from postfix_archive.install.program import ProgramFiles
from postfix_archive.postfix import reference
from postfix_archive.system import python_version

MODULE = "postfix_archive/postfix/archive_services.py"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own; environments for commands are not made."""
    checkout = tmp_path / "checkout"
    shutil.copytree(reference.PACKAGE, checkout / "postfix_archive")
    monkeypatch.setattr(reference, "PACKAGE", checkout / "postfix_archive")
    monkeypatch.setattr(ProgramFiles, "_create_environment", lambda *_: None)
    return checkout


def edit_source(source: Path) -> None:
    (source / "postfix_archive" / "message" / "new.py").write_text('"""New."""\n')
    (source / MODULE).write_text("from postfix_archive.message import new\n")


def current_module(files: ProgramFiles) -> Path:
    return Path(files.directory, "current").resolve()


def test_a_change_after_the_copy_leaves_the_copy_in_use(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to be taken for an old release, and removed while it was in use."""
    before = (checkout / MODULE).read_text()
    monkeypatch.setattr(
        ProgramFiles, "_create_environment", lambda *_: edit_source(checkout)
    )
    files = ProgramFiles(f"{tmp_path}/usr")
    files.install()
    assert (current_module(files) / MODULE).read_text() == before
    assert not files.is_current, "what has changed since is another release"
    files.install()
    assert (current_module(files) / MODULE).read_text() != before


def test_a_change_while_it_is_copied_is_refused_and_nothing_is_left(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mixture of two releases could import what is not there."""
    copyfile: Callable[[Path, Path], object] = shutil.copyfile

    def copied(path: Path, target: Path) -> None:
        copyfile(path, target)
        if path.name == "__init__.py":
            edit_source(checkout)

    monkeypatch.setattr(shutil, "copyfile", copied)
    files = ProgramFiles(f"{tmp_path}/usr")
    with pytest.raises(InstallFailed, match="was changed while it was copied"):
        files.install()
    assert not Path(files.directory).exists()
    monkeypatch.setattr(shutil, "copyfile", copyfile)
    files.install()
    assert files.is_current


def test_launchers_are_of_the_release_that_is_in_use(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = checkout / "postfix_archive" / "intake" / "launcher.py"
    before = launcher.read_text().partition("\n")[2]
    monkeypatch.setattr(
        ProgramFiles,
        "_create_environment",
        lambda *_: launcher.write_text("#!\nraise 1\n"),
    )
    files = ProgramFiles(f"{tmp_path}/usr")
    files.install()
    for launcher_name in program.LAUNCHERS:
        assert (
            Path(files.directory, launcher_name).read_text().partition("\n")[2]
            == before
        )


def test_another_version_of_python_gets_a_release_of_its_own(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ProgramFiles(f"{tmp_path}/usr")
    first.install()
    before = current_module(first)
    assert (
        python_version.mismatched_interpreter(f"{first.directory}/archive-lmtp") == ""
    )
    monkeypatch.setattr(python_version, "magic_number", lambda _: "0d0d0d0a")
    assert (
        python_version.mismatched_interpreter(f"{first.directory}/archive-lmtp")
        == python_version.DEFAULT_INTERPRETER
    )
    assert not ProgramFiles(f"{tmp_path}/usr").is_current
    second = ProgramFiles(f"{tmp_path}/usr")
    second.install()
    assert second.is_current
    assert current_module(second) != before


def test_a_release_keeps_the_parts_of_the_one_before(
    checkout: Path, tmp_path: Path
) -> None:
    prefix = f"{tmp_path}/usr"
    ProgramFiles(prefix).install()
    files = ProgramFiles(prefix, parts=["seal"])
    assert not files.is_current
    files.install()
    (checkout / MODULE).write_text("")
    files = ProgramFiles(prefix, parts=["object-store"])
    files.install()
    assert files.is_current
    assert ProgramFiles(prefix).parts == ("object-store", "seal")
    assert ProgramFiles(prefix).is_current
    files.remove()
    assert ProgramFiles(prefix).parts == ()


def test_a_release_has_every_file_of_the_package() -> None:
    """Templates, for example: only the installed command would miss them."""
    package = reference.PACKAGE
    files = {path for path in package.rglob("*") if path.is_file()}
    generated = {path for path in files if "__pycache__" in path.parts}
    assert {*program._release_files(package)} == files - generated


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("archive_object_store = s3://bucket/mx1", "object-store"),
        ("archive_tsa_url = http://tsa.example.com/", "seal"),
    ],
)
def test_a_part_that_a_setting_needs_is_demanded(setting: str, part: str) -> None:
    installer._check_parts(parse_settings(""), ())
    installer._check_parts(parse_settings(setting), (part,))
    name = setting.split()[0]
    with pytest.raises(InstallRefused, match=f"{name} needs .* WITH={part}$"):
        installer._check_parts(parse_settings(setting), ())


def parse_settings(text: str) -> Settings:
    return settings.parse(
        text, path="archive.cf", config_directory="/", myhostname="mail.example.com"
    )


def test_a_version_that_cannot_be_read_is_no_mismatch(tmp_path: Path) -> None:
    launcher = tmp_path / "archive-stamp"
    assert python_version.mismatched_interpreter(str(launcher)) == ""
    launcher.write_text("#!\n")
    assert python_version.mismatched_interpreter(str(launcher)) == ""
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "archive-stamp").write_bytes(b"old!")
    assert python_version.mismatched_interpreter(str(launcher)) == ""
    launcher.write_text(f"#!{tmp_path}/none -IS\n")
    assert python_version.mismatched_interpreter(str(launcher)) == ""
    launcher.write_text("#!/usr/bin/python3 -IS\n")
    assert python_version.mismatched_interpreter(str(launcher)) == "/usr/bin/python3"
