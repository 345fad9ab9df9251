"""Logging in and out of the web page."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from postfix_archive.web import database

import web_site
from web_site import WebSite


@pytest.fixture
def site(tmp_path: Path) -> WebSite:
    return WebSite(tmp_path)


def test_session(site: WebSite) -> None:
    client = site.app.test_client()
    answer = client.get("/account")
    assert answer.headers["Location"] == "/login?next=/account"
    client = site.log_in("anna")
    page = client.get("/account").text
    assert "auditor:legal@example.com" in page
    client.post("/logout", data={"csrf_token": web_site.csrf_token(page)})
    assert client.get("/account").status_code == 302


@pytest.mark.parametrize(
    ("name", "password"), [("anna", "wrong"), ("nobody", web_site.PASSWORD), ("", "")]
)
def test_wrong_login(site: WebSite, name: str, password: str) -> None:
    client = site.app.test_client()
    token = web_site.csrf_token(client.get("/login").text)
    fields = {"name": name, "password": password, "csrf_token": token}
    answer = client.post("/login", data=fields)
    assert answer.status_code == 401
    assert "the name or the password is wrong" in answer.text


def test_session_is_read_while_nothing_can_be_written(
    site: WebSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = site.log_in("anna")
    client.get("/account")
    monkeypatch.setattr(database, "BUSY_TIME", 0.01)
    path = site.web.database_path
    with contextlib.closing(sqlite3.connect(path)) as other:
        with other:
            other.execute("UPDATE session SET used = used - 100")
        other.execute("BEGIN IMMEDIATE")
        assert client.get("/account").status_code == 200


def test_forged_form(site: WebSite) -> None:
    client = site.app.test_client()
    fields = {"name": "anna", "password": web_site.PASSWORD}
    assert client.post("/login", data=fields).status_code == 400


def test_cookie_is_new_after_login(site: WebSite) -> None:
    client = site.app.test_client()
    token = web_site.csrf_token(client.get("/login").text)
    before = client.get_cookie("session")
    fields = {"name": "anna", "password": web_site.PASSWORD, "csrf_token": token}
    client.post("/login", data=fields)
    after = client.get_cookie("session")
    assert before and after and before.value != after.value
