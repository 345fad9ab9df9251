"""A session that ends in the middle of a form: nothing is lost, for nobody else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from postfix_archive.web import database

import web_site
from web_site import PASSWORD, WebSite

FIELDS = {"name": "Carol", "roles": "own\nauditor", "display_name": '<b> "Ü" &'}


@pytest.fixture
def site(tmp_path: Path) -> WebSite:
    return WebSite(tmp_path)


def end_sessions(site: WebSite) -> None:
    with database.open_database(site.web.database_path) as db:
        db.execute("UPDATE session SET used = used - 7200")


def log_in(client: FlaskClient, name: str) -> str:
    page = client.get("/login").text
    fields = {"name": name, "password": PASSWORD}
    fields["csrf_token"] = web_site.csrf_token(page)
    return client.post("/login", data=fields).headers["Location"]


def send_late(site: WebSite, **changes: str) -> FlaskClient:
    """Send the form of an admin after the session has ended."""
    client = site.log_in("adam")
    token = web_site.csrf_token(client.get("/users").text)
    end_sessions(site)
    fields = {**FIELDS, "csrf_token": token, **changes}
    answer = client.post("/users", data=fields)
    assert answer.status_code in (302, 400)
    return client


def test_form_is_sent_after_the_login(site: WebSite) -> None:
    client = send_late(site)
    assert "What you sent is kept" in client.get("/login").text
    assert log_in(client, "adam") == "/kept-form"
    page = client.get("/kept-form").text
    assert '<form method="post" action="/users">' in page
    assert "&lt;b&gt; &#34;Ü&#34; &amp;" in page and "<b>" not in page
    token = web_site.csrf_token(page.split('action="/users"')[1])
    assert (
        client.post("/users", data={**FIELDS, "csrf_token": token}).status_code == 302
    )
    assert "carol" in client.get("/users").text
    # It is sent once.
    assert client.get("/kept-form").headers["Location"] == "/"


def test_nobody_else_gets_the_form(site: WebSite) -> None:
    client = send_late(site)
    assert log_in(client, "otto") == "/"
    assert client.get("/kept-form").headers["Location"] == "/"
    other = site.app.test_client()
    assert log_in(other, "adam") == "/"


def test_form_can_be_discarded(site: WebSite) -> None:
    client = send_late(site)
    log_in(client, "adam")
    token = web_site.csrf_token(client.get("/kept-form").text)
    client.post("/kept-form/discard", data={"csrf_token": token})
    assert client.get("/kept-form").headers["Location"] == "/"


@pytest.mark.parametrize("token", ["", "x", "IngQ.aaaa.bbbb"])
def test_form_of_another_site_is_not_kept(site: WebSite, token: str) -> None:
    client = send_late(site, csrf_token=token)
    assert log_in(client, "adam") == "/"


def test_passwords_are_not_kept(site: WebSite) -> None:
    client = site.log_in("adam")
    token = web_site.csrf_token(client.get("/account/password").text)
    end_sessions(site)
    fields = {"old": PASSWORD, "new": "the new password", "again": "the new password"}
    answer = client.post("/account/password", data={**fields, "csrf_token": token})
    assert answer.status_code == 400
    for path in Path(site.web.web_directory).iterdir():
        assert b"the new password" not in path.read_bytes()
    assert log_in(client, "adam") == "/"


def test_without_any_session_the_page_explains(site: WebSite) -> None:
    answer = site.app.test_client().post("/users", data=FIELDS)
    assert answer.status_code == 400 and "Nothing was changed" in answer.text


@pytest.mark.parametrize(
    ("headers", "is_shown"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({}, False),
    ],
)
def test_form_of_a_tab_from_before_the_login(
    site: WebSite, headers: dict[str, str], is_shown: bool
) -> None:
    client = site.log_in("adam")
    old = web_site.csrf_token(client.get("/users").text)
    log_in(client, "adam")
    fields = {**FIELDS, "csrf_token": old}
    answer = client.post("/users", data=fields, headers=headers)
    assert answer.status_code == 400
    assert bool(re.search('name="name" value="Carol"', answer.text)) == is_shown
    assert "carol" not in client.get("/users").text
