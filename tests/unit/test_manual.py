"""The manual pages name every command, every option, every setting."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from postfix_archive.cli import main
from postfix_archive.config import settings, template

from unit.test_docs import commands

MANUAL = Path(__file__).resolve().parents[2] / "postfix_archive" / "man"


def entry(name: str) -> str:
    """The line of postfix-archive.1 that begins a command's entry."""
    lines = (MANUAL / "postfix-archive.1").read_text().splitlines()
    [index] = [each for each in lines if f"{each} ".startswith(f".It Nm Cm {name} ")]
    return index


@pytest.mark.parametrize("name", commands(main.main))
def test_every_command_has_an_entry_with_all_its_options(name: str) -> None:
    command: click.Command = main.main
    for part in name.split():
        assert isinstance(command, click.Group)
        command = command.commands[part]
    options = [each for each in command.params if isinstance(each, click.Option)]
    for each in options:
        assert f"Fl {each.opts[0][1:]}" in entry(name)
    assert entry(name).count("Fl ") == len(options)


@pytest.mark.parametrize("name", sorted([*settings.DEFAULTS, "myhostname"]))
def test_every_setting_has_an_entry_with_its_default(name: str) -> None:
    lines = (MANUAL / "archive.cf.5").read_text().splitlines()
    [line] = [each for each in lines if each.startswith(f".It Cm {name} ")]
    assert f"(default: {settings.DEFAULTS.get(name) or ''}" in line


def test_a_new_archive_cf_explains_every_setting() -> None:
    assert set(template.DESCRIPTIONS) == {*settings.DEFAULTS, "myhostname"}
