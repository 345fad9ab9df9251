"""The words of make install: each wrong one is refused in one sentence."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from postfix_archive.cli import install as commands
from postfix_archive.cli import main as command
from postfix_archive.errors import InstallRefused
from postfix_archive.install import main as installer
from postfix_archive.install import options
from postfix_archive.install.options import Options

ROOT = Path(__file__).resolve().parents[3]
VALUES = {
    "ARCHIVE": "a@example.com",
    "DRY_RUN": "yes",
    "ON_REQUEST": "no",
    "ARCHIVE_POSITION": "after",
    "MODE": "lmtp",
    "STORE": "/srv/store",
    "PORT": "10126",
    "CONFIG_DIRECTORY": "/etc/postfix-out",
    "PREFIX": "/opt/pa",
    "DESTDIR": "/tmp/package",
    "WHEELS": "wheels",
    "WITH": "seal,object-store",
    "PYTHON": "python3.12",
    "INSTALL_POSTFIX": "yes",
}
WRONG_VALUES = {
    "PORT": ("abc", "80000", "65533", "-5", "0", "1e3", "\u0661\u0660", "99999999999"),
    "ARCHIVE_POSITION": ("middle", "Before"),
    "ON_REQUEST": ("maybe", "2"),
    "DRY_RUN": ("please",),
    "INSTALL_POSTFIX": ("sure",),
    "WITH": ("everything", "seal;id", "seal,", "search", "../seal", "Seal"),
    "PREFIX": ("relative", "./x", "/opt/a b", "/opt/$x", "/opt/`id`", "/opt/{x}"),
    "STORE": ("relative", "~/store", "/var/a\nb"),
    "CONFIG_DIRECTORY": ("postfix-out", "."),
    "ARCHIVE": (
        "legal",
        "legal@example.com, x@example.com",
        "legal@archive-request.invalid",
        "legal@Archive-Probe.invalid",
        "a@example.com,b@archive-request.invalid",
        "$name@example.com",
        "on-request",
        "legal@example.com\nx",
    ),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, word) for name, words in WRONG_VALUES.items() for word in words],
)
def test_an_unusable_value_is_refused_with_its_option(name: str, value: str) -> None:
    with pytest.raises(InstallRefused) as excinfo:
        options.parse({name: value})
    assert str(excinfo.value).startswith(f"{name}=")
    assert "\n" not in str(excinfo.value)


def test_an_option_that_is_not_given_has_its_default() -> None:
    assert options.parse({}) == Options()
    empty = dict.fromkeys((*WRONG_VALUES, "DESTDIR", "PYTHON", "WHEELS"), "")
    assert options.parse(empty) == Options()


@pytest.mark.parametrize("name", ["ON_REQUEST", "DRY_RUN", "INSTALL_POSTFIX"])
def test_yes_is_yes_and_no_is_no(name: str) -> None:
    for value in ("yes", "1", "true", "YES"):
        assert getattr(options.parse({name: value}), name.lower()) is True
    for value in ("no", "0", "false", "No"):
        assert getattr(options.parse({name: value}), name.lower()) is False


def test_paths_lose_the_slash_at_their_end() -> None:
    parsed = options.parse({"PREFIX": "/opt/pa/", "CONFIG_DIRECTORY": "/etc/postfix/"})
    assert (parsed.prefix, parsed.config_directory) == ("/opt/pa", "/etc/postfix")
    assert options.parse({"STORE": "/"}).store == "/"


def test_an_address_may_have_characters_that_a_shell_would_run() -> None:
    for address in ("o'neil@example.com", "a`id`@example.com"):
        assert options.parse({"ARCHIVE": address}).archive == address


def test_uninstalling_uses_only_the_paths() -> None:
    variables = {"PREFIX": "/opt/pa", "PORT": "abc", "ARCHIVE": "legal"}
    assert options.parse_uninstall(variables) == Options(prefix="/opt/pa")


def test_make_passes_every_option_and_no_other() -> None:
    exported = re.findall(r"^export (.*)", (ROOT / "Makefile").read_text(), re.M)
    names = [each.variable for each in options.INSTALL_OPTIONS]
    assert sorted(" ".join(exported).split()) == sorted(names) == sorted(VALUES)


@pytest.mark.parametrize("word", ["DRYRUN", "PREFX", "archive", "X"])
def test_a_word_that_is_no_option_is_refused(word: str) -> None:
    options.check_words(["ARCHIVE", "DRY_RUN"])
    with pytest.raises(InstallRefused, match=f"{word}: there is no such option"):
        options.check_words(["ARCHIVE", word])


def test_a_dry_run_names_the_command_that_installs() -> None:
    given = options.parse(
        {"ARCHIVE": "a`b@x.org", "DRY_RUN": "1", "ON_REQUEST": "no", "PORT": "99"}
    )
    command = options.install_command(given)
    assert command == "make install ARCHIVE='a`b@x.org' ON_REQUEST=no PORT=99"
    assert options.as_command_options(command) == (
        "postfix-archive install --archive='a`b@x.org' --on-request=no --port=99"
    )


def test_every_option_is_documented() -> None:
    page = (ROOT / "docs" / "installing.md").read_text()
    for option in options.INSTALL_OPTIONS:
        assert f"\n| `{option.variable}`" in page


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, str]:
    """Run postfix-archive; return what it passes to the installer."""
    passed: dict[str, str] = {}
    monkeypatch.setattr(
        installer, "run", lambda verb, values, name_options: passed.update(values)
    )
    result = CliRunner().invoke(command.main, arguments)
    assert result.exit_code == 0, result.output
    return passed


def test_the_command_has_every_option_of_make(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [f"{e.flag}={VALUES[e.variable]}" for e in options.INSTALL_OPTIONS]
    passed = run_command(monkeypatch, "install", *arguments)
    assert options.parse(passed) == options.parse(VALUES)
    given = dataclasses.asdict(options.parse(passed))
    defaults = dataclasses.asdict(Options())
    assert all(given[name] != defaults[name] for name in defaults)


def test_a_yes_or_no_option_of_the_command_needs_no_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed = run_command(monkeypatch, "install", "--on-request", "--dry-run")
    given = options.parse(passed)
    assert (given.on_request, given.dry_run, given.install_postfix) == (
        True,
        True,
        False,
    )


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_the_command_takes_the_directory_from_c_too(
    monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    for arguments in (
        ("-c", "/etc/postfix-out", verb),
        (verb, "--config-directory=/etc/postfix-out"),
    ):
        passed = run_command(monkeypatch, *arguments)
        assert options.parse(passed) == Options(config_directory="/etc/postfix-out")


def test_the_command_names_its_own_options_in_errors() -> None:
    for option, value, text in (
        ("--port", "10x", "--port=10x: must be the first of 5"),
        ("--position", "middle", "--position=middle: must be before or after"),
    ):
        result = CliRunner().invoke(command.main, ["install", option, value])
        assert result.exit_code == 1
        assert result.stderr.startswith(f"postfix-archive: InstallRefused: {text}")
        assert result.stderr.count("\n") == 1
    text = "run make uninstall, then make install with ARCHIVE_POSITION=after"
    assert options.as_command_options(text) == (
        "run postfix-archive uninstall, then postfix-archive install with"
        " --position=after"
    )


def test_uninstall_has_the_options_that_it_reads() -> None:
    for verb, expected in (
        (commands.install, options.INSTALL_OPTIONS),
        (commands.uninstall, options.UNINSTALL_OPTIONS),
    ):
        assert isinstance(verb, click.Command)
        assert [each.opts[0] for each in verb.params] == [e.flag for e in expected]
