"""Tokens of the REST API."""

from __future__ import annotations

from pathlib import Path

import pytest

from postfix_archive.web import database
from postfix_archive.web.api import api_tokens

from web_site import AUDITOR, WebSite


@pytest.fixture
def site(tmp_path: Path) -> WebSite:
    return WebSite(tmp_path)


def add(site: WebSite, *arguments: str) -> str:
    output = site.store.run("token", "add", "crm", "--user", "anna", *arguments)
    return output.output.strip()


def name_of_user(site: WebSite, token: str) -> str:
    with database.open_database(site.web.database_path) as db:
        user = api_tokens.user_of_token(db, token)
    return user.name if user else ""


def test_add_use_and_revoke(site: WebSite) -> None:
    token = add(site)
    with database.open_database(site.web.database_path) as db:
        assert api_tokens.user_of_token(db, token) == AUDITOR
    assert "crm  anna  since" in site.store.run("token", "list").output
    assert "last used" in site.store.run("token", "list").output
    for path in Path(site.web.web_directory).iterdir():
        assert token.encode() not in path.read_bytes()
    site.store.run("token", "revoke", "crm")
    assert name_of_user(site, token) == ""
    assert "There are no tokens" in site.store.run("token", "list").output


def test_token_has_the_rights_of_now(site: WebSite) -> None:
    token = add(site)
    site.store.run("user", "change", "anna", "--role", "own")
    with database.open_database(site.web.database_path) as db:
        user = api_tokens.user_of_token(db, token)
    assert user and [str(each) for each in user.grants] == ["own:*"]
    site.store.run("user", "disable", "anna")
    assert name_of_user(site, token) == ""


@pytest.mark.parametrize(
    ("expires", "name"), [("2020-01-01", ""), ("2999-01-01", "anna")]
)
def test_expires(site: WebSite, expires: str, name: str) -> None:
    assert name_of_user(site, add(site, "--expires", expires)) == name


@pytest.mark.parametrize("token", ["", "pfa_", "x" * 5000, "%", "\0", "é"])
def test_wrong_token(site: WebSite, token: str) -> None:
    real = add(site)
    assert name_of_user(site, token) == ""
    assert name_of_user(site, real + "x") == ""
    assert name_of_user(site, real.lower()) == ""


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["add", "crm", "--user", "nobody"], "there is no user nobody"),
        (["add", "a b", "--user", "anna"], "1 to 64 letters"),
        (["revoke", "x"], "there is no token x"),
    ],
)
def test_invalid(site: WebSite, arguments: list[str], error: str) -> None:
    output = site.store.run("token", *arguments, exit_code=1).output
    assert error in output and len(output.splitlines()) == 1


def test_name_is_taken(site: WebSite) -> None:
    add(site)
    output = site.store.run("token", "add", "crm", "--user", "bob", exit_code=1).output
    assert "there is a token crm already" in output


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer pfa_x", "pfa_x"),
        ("bearer  pfa_x ", "pfa_x"),
        ("Basic pfa_x", ""),
        ("pfa_x", ""),
        ("", ""),
    ],
)
def test_header(header: str, token: str) -> None:
    assert api_tokens.token_in(header) == token
