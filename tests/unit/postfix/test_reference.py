"""The reference services: all are known, or the program says that it is incomplete."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from postfix_archive import monitoring
from postfix_archive.cli import main
from postfix_archive.doctor import inspection
from postfix_archive.errors import ReferenceMissing
from postfix_archive.postfix import reference

MODES = ("pipe", "lmtp", "native", "native-pipe")


@pytest.mark.parametrize("mode", MODES)
def test_every_file_is_used_in_one_mode_or_both(mode: str) -> None:
    files = {each.name for each in (reference.PACKAGE / "master.cf.d").glob("*.cf")}
    used = {name for names in reference.FILES.values() for name in names}
    assert used == files - {"00-main.cf"}
    assert "archive/unix" in reference.reference_services(mode)
    assert "127.0.0.1:10026/inet" in reference.reference_services(mode)


@pytest.mark.parametrize("name", ["", "10-archive-stamp.cf", "30-archive-ports.cf"])
def test_a_program_without_a_reference_file_says_so_and_is_not_ok(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel without master.cf.d knew no service, and the doctor said OK."""
    directory = tmp_path / "master.cf.d"
    if name:
        shutil.copytree(reference.PACKAGE / "master.cf.d", directory)
        (directory / name).unlink()
    monkeypatch.setattr(reference, "PACKAGE", tmp_path)
    with pytest.raises(ReferenceMissing, match="incomplete"):
        reference.reference_services()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(
        inspection, "inspect_host", lambda _: reference.reference_services()
    )
    result = CliRunner().invoke(main.main, ["doctor"])
    assert result.exit_code == monitoring.UNKNOWN
    assert f"{directory}/{name or reference.FILES['pipe'][0]}" in result.stdout
