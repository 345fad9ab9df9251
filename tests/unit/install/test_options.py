"""The words of make install: each wrong one is refused in one sentence."""

from __future__ import annotations

import pytest

from postfix_archive.errors import InstallRefused
from postfix_archive.install import options
from postfix_archive.install.options import Options

WRONG = {
    "PORT": ("abc", "80000", "65533", "-5", "0", "1e3", "\u0661\u0660", "99999999999"),
    "ARCHIVE_POSITION": ("middle", "Before"),
    "ON_REQUEST": ("maybe", "2"),
    "DRY_RUN": ("please",),
    "INSTALL_POSTFIX": ("sure",),
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
    ("name", "word"), [(name, word) for name, words in WRONG.items() for word in words]
)
def test_a_word_that_cannot_be_used_is_refused_by_name(name: str, word: str) -> None:
    with pytest.raises(InstallRefused) as told:
        options.parse({name: word})
    assert str(told.value).startswith(f"{name}=")
    assert "\n" not in str(told.value)


def test_what_is_not_said_is_not_asked() -> None:
    assert options.parse({}) == Options()
    empty = dict.fromkeys((*WRONG, "DESTDIR", "PYTHON", "WHEELS"), "")
    assert options.parse(empty) == Options()


@pytest.mark.parametrize("name", ["ON_REQUEST", "DRY_RUN", "INSTALL_POSTFIX"])
def test_yes_is_yes_and_no_is_no(name: str) -> None:
    for word in ("yes", "1", "true", "YES"):
        assert getattr(options.parse({name: word}), name.lower()) is True
    for word in ("no", "0", "false", "No"):
        assert getattr(options.parse({name: word}), name.lower()) is False


def test_paths_lose_the_slash_at_their_end() -> None:
    given = options.parse({"PREFIX": "/opt/pa/", "CONFIG_DIRECTORY": "/etc/postfix/"})
    assert (given.prefix, given.config_directory) == ("/opt/pa", "/etc/postfix")
    assert options.parse({"STORE": "/"}).store == "/"


def test_an_address_may_have_characters_that_a_shell_would_run() -> None:
    for address in ("o'neil@example.com", "a`id`@example.com"):
        assert options.parse({"ARCHIVE": address}).archive == address


def test_uninstalling_asks_only_where() -> None:
    words = {"PREFIX": "/opt/pa", "PORT": "abc", "ARCHIVE": "legal"}
    assert options.parse_uninstall(words) == Options(prefix="/opt/pa")
