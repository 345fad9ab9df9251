"""The commands, as --help shows them on a terminal of 80 columns."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from postfix_archive.cli import main, options

from unit.test_docs import commands

GROUPS = [
    "",
    "bypass",
    "erase",
    "fallback",
    "hold",
    "key",
    "queue",
    "retention",
    "token",
    "user",
]


def help_text(name: str) -> str:
    """Return what --help of a command prints."""
    arguments = [*name.split(), "--help"]
    result = CliRunner().invoke(main.main, arguments, terminal_width=78)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("name", [*GROUPS, *commands(main.main)])
def test_no_summary_is_cut(name: str) -> None:
    text = help_text(name)
    assert "..." not in re.sub(r"\[[A-Z]+\]\.\.\.|[A-Z]+\.\.\.", "", text)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", commands(main.main))
def test_every_option_has_help(name: str) -> None:
    command: click.Command = main.main
    for word in name.split():
        assert isinstance(command, click.Group)
        command = command.commands[word]
    options = [each for each in command.params if isinstance(each, click.Option)]
    assert all(each.help and each.help.endswith((".", "]")) for each in options)


def test_all_groups_are_known() -> None:
    groups = main.main.commands.items()
    names = [name for name, each in groups if isinstance(each, click.Group)]
    assert sorted(names) == GROUPS[1:]


@pytest.mark.parametrize(
    ("former", "group", "name"),
    [("rescue", "queue", "rescue"), ("return", "fallback", "import")],
)
def test_timers_of_earlier_releases_find_their_commands(
    former: str, group: str, name: str
) -> None:
    parent = main.main.commands[group]
    assert isinstance(parent, click.Group)
    assert main.main.commands[former].callback is parent.commands[name].callback
    assert f"\n  {former} " not in help_text("")
    assert f"\n  {name} " in help_text(group)


@pytest.mark.parametrize("directory", ["etc", "./etc/", "../{name}/etc"])
@pytest.mark.parametrize("by_environment", [False, True])
def test_a_relative_configuration_directory_is_made_absolute(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    directory: str,
    by_environment: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = directory.format(name=tmp_path.name)
    monkeypatch.setenv("MAIL_CONFIG", path)
    arguments = ["show-directory"] if by_environment else ["-c", path, "show-directory"]
    seen: list[str] = []
    command = click.Command("show-directory", callback=click.pass_obj(seen.append))
    with monkeypatch.context() as patched:
        patched.setitem(main.main.commands, "show-directory", command)
        result = CliRunner().invoke(main.main, arguments, catch_exceptions=False)
    assert (result.exit_code, seen) == (0, [str(tmp_path / "etc")])


@pytest.mark.parametrize("value", ["LEGAL@Example.com", "legal@example.com"])
def test_an_archive_is_found_in_any_case(value: str) -> None:
    assert options.ArchiveAddress().convert(value, None, None) == "legal@example.com"
    commands_with_archive = [
        name
        for name, command in main.main.commands.items()
        for each in command.params
        if each.name == "archive" and isinstance(each.type, options.ArchiveAddress)
    ]
    names = {"export", "import", "list", "replay", "show", "verify"}
    assert names <= set(commands_with_archive)


def test_what_is_no_address_is_no_archive() -> None:
    with pytest.raises(click.BadParameter, match="'../x' is not an archive address"):
        options.ArchiveAddress().convert("../x", None, None)


@pytest.mark.parametrize("value", ["yesterdayish", "2026-11-22 14:00 XYZT", "0:0B"])
def test_what_is_no_date_is_refused(value: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a date"):
        options.Date().convert(value, None, None)


def test_a_command_that_only_lists_imports_nothing_for_processes() -> None:
    program = "import postfix_archive.cli.main, postfix_archive.cli.listing, sys;"
    program += (
        " sys.exit(' '.join({'pathlib', 'socket', 'subprocess'} & {*sys.modules}))"
    )
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.split() == []
