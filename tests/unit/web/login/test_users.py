"""The command user, and the admins' page about users."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from postfix_archive.access import access_journal
from postfix_archive.cli import main

import web_site
from sample_store import LEGAL
from web_site import WebSite

NEW_PASSWORD = "a long enough password"
OTHER_UID = 65534


@pytest.fixture
def site(tmp_path: Path) -> WebSite:
    return WebSite(tmp_path)


def run(site: WebSite, *arguments: str, password: str = "", exit_code: int = 0) -> str:
    words = ["-c", str(site.store.directory), "user", *arguments]
    result: Result = CliRunner().invoke(main.main, words, input=password)
    assert result.exit_code == exit_code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def test_add_and_log_in(site: WebSite) -> None:
    roles = ("--role", "auditor:Legal@example.com", "--role", "own")
    address = ("--address", "Carol@example.net", "--display-name", "Carol C.")
    run(
        site,
        "add",
        "Carol",
        *roles,
        *address,
        "--password-stdin",
        password=f"{NEW_PASSWORD}\n",
    )
    page = site.log_in("carol", NEW_PASSWORD).get("/account").text
    for each in ("Carol C.", "auditor:legal@example.com", "own:*", "carol@example.net"):
        assert each in page


def test_password_is_asked_for_twice(site: WebSite) -> None:
    typed = f"{NEW_PASSWORD}\nanother\n{NEW_PASSWORD}\n{NEW_PASSWORD}\n"
    output = run(site, "password", "anna", password=typed)
    assert NEW_PASSWORD not in output
    site.log_in("anna", NEW_PASSWORD)


@pytest.mark.parametrize(
    ("arguments", "password", "error"),
    [
        (["add", "anna"], NEW_PASSWORD, "there is a user anna already"),
        (["add", "ANNA "], NEW_PASSWORD, "there is a user anna already"),
        (["add", "new"], "tooshort", "12 characters"),
        (["add", "a-long-enough-name"], "a-long-enough-name", "must not be the name"),
        (["add", "new\nline"], NEW_PASSWORD, "printable"),
        (["add", " "], NEW_PASSWORD, "1 to 255"),
        (["add", "new", "--role", "root"], NEW_PASSWORD, "root is not a role"),
        (["add", "new", "--role", "auditor:../x"], NEW_PASSWORD, "is not a role"),
        (["add", "new", "--role", "auditor:"], NEW_PASSWORD, "is not a role"),
        (["add", "new", "--address", "x"], NEW_PASSWORD, "not a mail address"),
        (["password", "nobody"], NEW_PASSWORD, "there is no user nobody"),
        (["disable", "nobody"], "", "there is no user nobody"),
        (["change", "nobody"], "", "there is no user nobody"),
    ],
)
def test_invalid(
    site: WebSite, arguments: list[str], password: str, error: str
) -> None:
    if arguments[0] in ("add", "password"):
        arguments = [*arguments, "--password-stdin"]
    output = run(site, *arguments, password=f"{password}\n", exit_code=1)
    assert error in output and len(output.splitlines()) == 1


def test_disable_ends_the_sessions(site: WebSite) -> None:
    client = site.log_in("anna")
    run(site, "disable", "anna")
    assert client.get("/account").status_code == 302
    assert "disabled" in run(site, "list")
    with pytest.raises(AssertionError, match="is wrong"):
        site.log_in("anna")
    run(site, "enable", "anna")
    site.log_in("anna")


def test_change_replaces_the_roles_and_ends_the_sessions(site: WebSite) -> None:
    client = site.log_in("bob")
    run(site, "change", "bob", "--role", "officer")
    assert client.get("/account").status_code == 302
    page = site.log_in("bob").get("/account").text
    assert "officer:*" in page and "own:*" not in page and "bob@example.net" in page


def test_the_database_stays_its_owners_file(site: WebSite) -> None:
    for each in (site.store.directory / "web", Path(site.web.database_path)):
        os.chown(each, OTHER_UID, OTHER_UID)
    Path(site.web.database_path).chmod(0o600)
    for each in (site.store.directory, *site.store.directory.parents):
        if each != Path("/tmp") and each != Path("/"):
            os.chmod(each, 0o755)
    run(site, "disable", "anna")
    files = sorted((site.store.directory / "web").iterdir())
    assert {each.stat().st_uid for each in files} == {OTHER_UID}
    assert {each.stat().st_mode & 0o077 for each in files} == {0}


def test_without_a_directory(site: WebSite) -> None:
    (site.store.directory / "archive-web.cf").write_text("web_directory = /missing\n")
    output = run(site, "list", exit_code=1)
    assert "web_directory = /missing: No such file" in output


def post(
    site: WebSite, path: str, fields: dict[str, str], by: str = "adam"
) -> tuple[int, str]:
    """Post a form of the users page; return status and the page that follows."""
    client = site.log_in(by)
    token = web_site.csrf_token(client.get("/account").text)
    answer = client.post(path, data={**fields, "csrf_token": token})
    text = client.get("/users").text if answer.status_code == 302 else answer.text
    return answer.status_code, text


def test_admin_adds_a_user_who_must_change_the_password(site: WebSite) -> None:
    site.store.add(b"Subject: x\r\n\r\nx\r\n")
    roles = "own\nauditor:legal@example.com"
    fields = {"name": "Carol", "roles": roles, "addresses": "c@example.net"}
    status, page = post(site, "/users", fields)
    assert status == 302
    password = page.split("<code>")[1].split("</code>")[0]
    assert "added: roles auditor:legal@example.com own:*" in page
    client = site.log_in("carol", password)
    assert client.get("/account").headers["Location"] == "/account/password"
    token = web_site.csrf_token(client.get("/account/password").text)
    new = {"old": password, "new": NEW_PASSWORD, "again": NEW_PASSWORD}
    client.post("/account/password", data={**new, "csrf_token": token})
    assert "own:*" in client.get("/account").text
    [entry] = [
        each
        for each in access_journal.entries(str(site.store.path), LEGAL)
        if each.action == "user-changed"
    ]
    assert entry.user.web_user == "adam" and "added carol" in entry.query


def test_admin_changes_others(site: WebSite) -> None:
    client = site.log_in("bob")
    status, page = post(site, "/users/rights", {"name": "bob", "roles": "officer"})
    assert status == 302 and "changed: roles officer:*" in page
    assert client.get("/account").status_code == 302
    status, page = post(site, "/users/state", {"name": "bob", "state": "disabled"})
    assert status == 302 and "disabled" in page
    status, page = post(site, "/users/password", {"name": "anna"})
    password = page.split("<code>")[1].split("</code>")[0]
    site.log_in("anna", password)
    assert password not in site.log_in("adam").get("/users").text
    edit = site.log_in("adam").get("/users/edit?name=bob").text
    assert "This user is disabled." in edit


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/users/rights", {"roles": "officer"}),
        ("/users/state", {"state": "disabled"}),
        ("/users/password", {}),
    ],
)
def test_no_admin_changes_their_own_rights(
    site: WebSite, path: str, fields: dict[str, str]
) -> None:
    status, page = post(site, path, {"name": "ADAM", **fields})
    assert status == 400 and "nobody changes their own" in page
    assert "officer" not in site.log_in("adam").get("/account").text


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/users", {"name": "x", "roles": "root"}),
        ("/users", {"name": "anna", "roles": "own"}),
        ("/users", {"name": ""}),
        ("/users/rights", {"name": "bob", "addresses": "<script>"}),
        ("/users/rights", {"name": "nobody"}),
        ("/users/password", {}),
    ],
)
def test_invalid_forms(site: WebSite, path: str, fields: dict[str, str]) -> None:
    status, page = post(site, path, fields)
    assert status == 400 and "<script>" not in page


@pytest.mark.parametrize("name", ["anna", "otto", "bob"])
def test_only_admins(site: WebSite, name: str) -> None:
    client = site.log_in(name)
    assert client.get("/users").status_code == 403
    assert client.get("/users/edit?name=anna").status_code == 403
    assert post(site, "/users", {"name": "x", "roles": "own"}, by=name)[0] == 403
    assert post(site, "/users/password", {"name": "anna"}, by=name)[0] == 403
