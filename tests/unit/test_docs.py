"""The documents say what the program does: every setting, every command, every link."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from postfix_archive.cli import main
from postfix_archive.config import settings

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def commands(group: click.Group, before: str = "") -> list[str]:
    """All commands, with those of groups below them."""
    names = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            names += commands(command, f"{before}{name} ")
        else:
            names.append(before + name)
    return names


@pytest.mark.parametrize("name", sorted(settings.Settings.__slots__))
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    if name == "config_directory":
        return
    [row] = [
        line
        for line in (ROOT / "docs" / "settings.md").read_text().splitlines()
        if line.startswith(f"| `{name}` |")
    ]
    default = settings.DEFAULTS.get(name, "")
    assert f"`{default}`" in row or not default


@pytest.mark.parametrize("name", commands(main.main))
def test_every_command_is_documented_and_has_help(name: str) -> None:
    pages = "".join(page.read_text() for page in PAGES)
    assert f"postfix-archive {name}" in pages
    command: click.Command = main.main
    for part in name.split():
        assert isinstance(command, click.Group)
        command = command.commands[part]
    assert command.help
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or getattr(parameter, "help", None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_has_a_target(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text()):
        linked = page.parent / target if target else page
        assert linked.exists()
        assert not anchor or anchor in anchors(linked)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as web pages of repositories make them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.M)
    return {
        re.sub(r"[^\w -]", "", each).strip().lower().replace(" ", "-")
        for each in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_is_named_exists(page: Path) -> None:
    for name in re.findall(r"`([a-z_]+/\w+)\.py`", page.read_text()):
        directories = (ROOT / "postfix_archive", ROOT)
        assert any(
            (directory / f"{name}.py").exists() for directory in directories
        ), name


def test_every_test_that_a_promise_names_exists() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    named_files = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    assert len(named_files) > 20
    assert all((ROOT / each).exists() for each in named_files)


def test_every_option_of_the_services_is_one_that_the_transports_know() -> None:
    from postfix_archive.stamp_filter import transaction

    text = (ROOT / "master.cf.d" / "10-archive-stamp.cf").read_text()
    options = {option.encode() for option in re.findall(r"^  --([a-z-]+) ", text, re.M)}
    assert options <= set(transaction.OPTIONS)
    # Said where a service has a way of its own, or by newer releases of Postfix.
    optional = {b"config-directory", b"envid", b"handback-address", b"refused-address"}
    assert set(transaction.OPTIONS) - options == optional


def test_every_option_of_the_workers_is_one_that_they_know() -> None:
    from postfix_archive.stamp_filter import transaction

    text = (ROOT / "master.cf.d" / "40-archive-lmtp.cf").read_text()
    options = {option.encode() for option in re.findall(r" --([a-z-]+) ", text)}
    assert options and options <= set(transaction.OPTIONS)


def test_spawn_ends_no_worker_that_is_still_at_work() -> None:
    from postfix_archive.intake import lmtp_worker

    text = (ROOT / "master.cf.d" / "40-archive-lmtp.cf").read_text()
    limits = set(re.findall(r"command_time_limit=(\d+)s", text))
    work = int(settings.DEFAULTS["archive_time_limit"][:-1])
    assert limits and all(int(each) > lmtp_worker.LIFETIME + work for each in limits)


def test_every_worker_has_its_connection_cached() -> None:
    text = (ROOT / "master.cf.d" / "40-archive-lmtp.cf").read_text()
    cached = re.findall(r"^  -o lmtp_connection_cache_destinations=(\S+)", text, re.M)
    assert cached == ["static:all"]


def test_every_finding_of_the_doctor_is_documented() -> None:
    page = (ROOT / "docs" / "doctor.md").read_text()
    documented = set()
    for path in (ROOT / "postfix_archive" / "doctor").glob("check_*.py"):
        documented |= set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', path.read_text()))
    documented -= {
        "archive-relay",
        "handback-address",
        "archive-local",
        "archive-copy",
        "postfix-archive",
    }
    missing = {each for each in documented if f"`{each}`" not in page}
    assert not missing
    assert len(documented) > 40


def test_make_help_names_every_target_and_fits_the_terminal() -> None:
    text = (ROOT / "Makefile").read_text()
    done = subprocess.run(
        ["make", "-C", ROOT, "--no-print-directory", "help"],
        capture_output=True,
        text=True,
        check=True,
    )
    targets = " ".join(re.findall(r"^\.PHONY: (.*)", text, re.M)).split()
    named = re.findall(r"^make ([a-z-]+) ", done.stdout, re.M)
    assert sorted([*named, "help"]) == sorted(targets)
    assert all(len(line) <= 88 for line in done.stdout.splitlines())


METAPHORS = re.compile(r"\b(doors?|rooms?|gates?|mate|gaps?|folders?)\b", re.I)
PRODUCT = (
    *(ROOT / "postfix_archive").rglob("*.py"),
    *(
        path
        for path in (ROOT / "docs").rglob("*")
        if path.suffix in (".md", ".1", ".5")
    ),
    *(ROOT / "master.cf.d").iterdir(),
    *(ROOT / "contrib").rglob("*.yml"),
    *(ROOT / name for name in ("Makefile", "setup.cfg", "README.md", "CHANGES")),
)


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: path.name)
def test_text_has_the_terms_of_the_field(path: Path) -> None:
    assert METAPHORS.findall(path.read_text()) == []
