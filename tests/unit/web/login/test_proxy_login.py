"""Logins that a proxy has done: its word counts, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

import web_site
from web_site import WebSite

SECRET = "0123456789abcdef0123456789abcdef"
SETTINGS = f"""\
web_logins = proxy
web_proxy_secret = {SECRET}
web_group_roles = {{ * = own }}
"""
Headers = list[tuple[str, str]]


def headers(name: str, secret: str = SECRET) -> Headers:
    return [("X-Remote-User", name), ("X-Archive-Proxy-Secret", secret)]


@pytest.fixture
def site(tmp_path: Path) -> WebSite:
    site = WebSite(tmp_path)
    with (tmp_path / "archive-web.cf").open("a") as file:
        file.write(SETTINGS)
    return site


def test_name_of_the_proxy(site: WebSite) -> None:
    client = site.app.test_client()
    answer = client.get("/login?next=/account", headers=headers("Anna"))
    assert (answer.status_code, answer.headers["Location"]) == (302, "/account")
    page = client.get("/account", headers=headers("Anna")).text
    assert "auditor:legal@example.com" in page
    # No password is asked for.
    assert 'type="password"' not in client.get("/login?logged_out=1").text


def test_name_that_the_page_does_not_know(site: WebSite) -> None:
    client = site.app.test_client()
    client.get("/login", headers=headers("dora"))
    page = client.get("/account", headers=headers("dora")).text
    assert "own:*" in page and "auditor" not in page


@pytest.mark.parametrize(
    "sent",
    [
        [("X-Remote-User", "anna")],
        headers("anna", ""),
        headers("anna", "wrong"),
        headers("anna", SECRET[:-1]),
        headers("anna", SECRET + "0"),
        headers("anna", "é"),
        headers(""),
        [("X-Archive-Proxy-Secret", SECRET)],
        [("Remote-User", "anna"), ("X-Archive-Proxy-Secret", SECRET)],
    ],
)
def test_clients_are_not_believed(site: WebSite, sent: Headers) -> None:
    client = site.app.test_client()
    client.get("/login", headers=sent)
    answer = client.get("/account", headers=sent)
    assert "/login" in answer.headers["Location"]


def test_the_headers_count_for_nothing_without_the_setting(tmp_path: Path) -> None:
    client = WebSite(tmp_path).app.test_client()
    assert client.get("/login", headers=headers("anna")).status_code == 200


def test_disabled_user(site: WebSite) -> None:
    site.store.run("user", "disable", "anna")
    client = site.app.test_client()
    answer = client.get("/login", headers=headers("anna"))
    assert answer.status_code == 401 and "no role here" in answer.text


def test_another_name_ends_the_session(site: WebSite) -> None:
    client = site.app.test_client()
    client.get("/login", headers=headers("otto"))
    assert client.get("/account", headers=headers("otto")).status_code == 200
    answer = client.get("/account", headers=headers("bob"))
    assert answer.status_code == 302
    client.get("/login", headers=headers("bob"))
    page = client.get("/account", headers=headers("bob")).text
    assert "bob@example.net" in page and "officer" not in page


def test_logging_out_does_not_log_in_again(site: WebSite) -> None:
    client = site.app.test_client()
    client.get("/login", headers=headers("anna"))
    token = web_site.csrf_token(client.get("/account", headers=headers("anna")).text)
    data = {"csrf_token": token}
    answer = client.post("/logout", data=data, headers=headers("anna"))
    page = client.get(answer.headers["Location"], headers=headers("anna"))
    assert page.status_code == 200 and "Log in" in page.text


def test_no_password_counts_where_the_page_takes_none(site: WebSite) -> None:
    client = site.app.test_client()
    page = client.get("/login", headers=headers("nobody", "wrong")).text
    assert 'name="csrf_token"' not in page
    client.get("/login", headers=headers("anna"))
    token = web_site.csrf_token(client.get("/account", headers=headers("anna")).text)
    fields = {"name": "otto", "password": web_site.PASSWORD, "csrf_token": token}
    answer = client.post("/login", data=fields)
    assert answer.status_code == 401 and "takes no passwords" in answer.text
