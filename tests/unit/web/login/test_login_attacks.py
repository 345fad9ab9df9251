"""Attacks on logins and sessions."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from postfix_archive.access import access_journal
from postfix_archive.web import database
from postfix_archive.web.login import local_users, login_page

import web_site
from sample_store import LEGAL
from web_site import PASSWORD, WebSite


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> WebSite:
    site = WebSite(tmp_path_factory.mktemp("site"))
    site.store.add(b"Subject: x\r\n\r\nx\r\n")
    return site


def post_login(
    client: FlaskClient, name: str, password: str, **more: str
) -> tuple[int, str, str]:
    token = web_site.csrf_token(client.get("/login").text)
    fields = {"name": name, "password": password, "csrf_token": token, **more}
    answer = client.post("/login", data=fields)
    return answer.status_code, answer.headers.get("Location", ""), answer.text


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example/",
        "/\\evil.example/",
        "\\\\evil.example/",
        "/\t/evil.example/",
        "/\r\nLocation: https://evil.example/",
        "javascript:alert(1)",
        "http:/account",
        "https:evil.example",
        "account",
        "//[",
        " //evil.example",
        "/x\0",
        "/" + "x" * 2000,
    ],
)
def test_next_leads_nowhere_else(url: str) -> None:
    assert login_page.local_target(url) == ""


def test_next_is_followed_after_the_login(site: WebSite) -> None:
    client = site.app.test_client()
    target = "/account?a=1&b=%22"
    assert post_login(client, "anna", PASSWORD, next=target)[:2] == (302, target)
    other = site.app.test_client()
    found = post_login(other, "anna", PASSWORD, next="//evil.example")
    assert found[:2] == (302, "/")


def test_names_cannot_be_told_apart(site: WebSite) -> None:
    with database.open_database(site.web.database_path) as db:
        local_users.set_disabled(db, "otto", True, changed_by="test")
    answers = {
        post_login(site.app.test_client(), name, password)[::2]
        for name, password in [
            ("anna", "wrong"),
            ("nobody", "wrong"),
            ("nobody", ""),
            ("otto", PASSWORD),
            ("otto", "wrong"),
            ("", ""),
            ("anna\nx", "wrong"),
        ]
    }
    texts = {(code, text.split("<main")[1].split("<form")[0]) for code, text in answers}
    assert len(texts) == 1


def test_a_session_that_somebody_else_knows_is_not_used(site: WebSite) -> None:
    client = site.app.test_client()
    client.set_cookie("session", "chosen-by-the-attacker")
    assert post_login(client, "anna", PASSWORD)[0] == 302
    cookie = client.get_cookie("session")
    assert cookie and cookie.value != "chosen-by-the-attacker"
    attacker = site.app.test_client()
    attacker.set_cookie("session", "chosen-by-the-attacker")
    assert attacker.get("/account").status_code == 302


def test_a_cookie_is_of_no_use_after_logging_out(site: WebSite) -> None:
    client = site.log_in("anna")
    cookie = client.get_cookie("session")
    assert cookie
    token = web_site.csrf_token(client.get("/account").text)
    client.post("/logout", data={"csrf_token": token})
    attacker = site.app.test_client()
    attacker.set_cookie("session", cookie.value)
    assert attacker.get("/account").status_code == 302


def test_the_hash_in_the_database_is_no_cookie(site: WebSite) -> None:
    site.log_in("anna")
    with database.open_database(site.web.database_path) as db:
        [row] = db.execute("SELECT token_sha256 FROM session LIMIT 1").fetchall()
    client = site.app.test_client()
    client.set_cookie("session", row[0])
    assert client.get("/account").status_code == 302


@pytest.mark.parametrize("is_https", [True, False])
def test_cookie_flags(tmp_path: Path, is_https: bool) -> None:
    site = WebSite(tmp_path)
    if is_https:
        with (tmp_path / "archive-web.cf").open("a") as file:
            file.write("web_url = https://archive.example.com\n")
    answer = site.app.test_client().get("/login")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-session=" if is_https else "session=")
    parts = {each.strip() for each in cookie.split(";")[1:]}
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= parts
    assert ("Secure" in parts) == is_https
    assert not any(each.startswith("Domain") for each in parts)


@pytest.mark.parametrize("path", ["/logout", "/users", "/account/password", "/login"])
def test_a_form_of_another_site_is_refused(site: WebSite, path: str) -> None:
    client = site.log_in("adam")
    for token in ({}, {"csrf_token": "x"}, {"csrf_token": "IngQ.aaaa.bbbb"}):
        assert client.post(path, data=token).status_code == 400
    assert client.get("/account").status_code == 200


def test_a_token_of_another_session_is_refused(site: WebSite) -> None:
    other = site.log_in("bob").get("/account").text
    fields = {"csrf_token": web_site.csrf_token(other)}
    assert site.log_in("adam").post("/logout", data=fields).status_code == 400


@pytest.mark.parametrize("path", ["/login", "/logout", "/account/end-session"])
def test_nothing_changes_by_get(site: WebSite, path: str) -> None:
    client = site.log_in("bob")
    client.get(path)
    assert client.get("/account").status_code == 200


def test_logins_are_recorded(site: WebSite) -> None:
    store = site.store.settings.archive_store_directory
    before = len(list(access_journal.entries(store, LEGAL)))
    site.log_in("anna")
    post_login(site.app.test_client(), "Anna", "wrong")
    post_login(site.app.test_client(), "my-password-typed-as-a-name", "wrong")
    entries = list(access_journal.entries(store, LEGAL))[before:]
    assert [(each.action, each.user.web_user) for each in entries] == [
        ("login", "anna"),
        ("login-refused", "anna"),
    ]
    assert "client=127.0.0.1" in entries[1].query
