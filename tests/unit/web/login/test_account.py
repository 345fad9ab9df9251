"""The pages about one's own password and sessions, and how sessions end."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from postfix_archive.web import database

import web_site
from web_site import PASSWORD, WebSite

NEW = "another long password"
SETTINGS = "web_session_time = 10m\nweb_session_limit = 1h\n"


@pytest.fixture
def site(tmp_path: Path) -> WebSite:
    return WebSite(tmp_path)


def change(client: FlaskClient, old: str, new: str, again: str) -> tuple[int, str]:
    token = web_site.csrf_token(client.get("/account/password").text)
    fields = {"old": old, "new": new, "again": again, "csrf_token": token}
    answer = client.post("/account/password", data=fields)
    return answer.status_code, answer.text


def test_change_of_the_password_ends_the_other_sessions(site: WebSite) -> None:
    other, client = site.log_in("anna"), site.log_in("anna")
    cookie = client.get_cookie("session")
    assert change(client, PASSWORD, NEW, NEW)[0] == 302
    assert client.get("/account").status_code == 200
    assert other.get("/account").status_code == 302
    after = client.get_cookie("session")
    assert cookie and after and cookie.value != after.value
    site.log_in("anna", NEW)


@pytest.mark.parametrize(
    ("old", "new", "again", "error"),
    [
        ("wrong", NEW, NEW, "is wrong"),
        (PASSWORD, NEW, NEW + "x", "differ"),
        (PASSWORD, "short", "short", "12 characters"),
        (PASSWORD, PASSWORD, PASSWORD, "another one"),
        (PASSWORD, "x" * 2000, "x" * 2000, "12 characters"),
    ],
)
def test_invalid_change(
    site: WebSite, old: str, new: str, again: str, error: str
) -> None:
    status, text = change(site.log_in("anna"), old, new, again)
    assert (status, error in text) == (400, True)
    site.log_in("anna")


def test_list_and_end_of_sessions(site: WebSite) -> None:
    other, client, bob = site.log_in("anna"), site.log_in("anna"), site.log_in("bob")
    page = client.get("/account").text
    assert page.count('name="id"') == 1
    session_id = page.split('name="id" value="')[1].split('"')[0]
    # Nobody ends a session of somebody else.
    token = web_site.csrf_token(bob.get("/account").text)
    bob.post("/account/end-session", data={"id": session_id, "csrf_token": token})
    assert other.get("/account").status_code == 200
    token = web_site.csrf_token(page)
    client.post("/account/end-session", data={"id": session_id, "csrf_token": token})
    assert other.get("/account").status_code == 302
    assert client.get("/account").status_code == 200


@pytest.mark.parametrize(
    ("column", "age", "is_open"),
    [
        ("used", 500, True),
        ("used", 601, False),
        ("started", 3500, True),
        ("started", 3601, False),
    ],
)
def test_end_of_time(site: WebSite, column: str, age: int, is_open: bool) -> None:
    with (site.store.directory / "archive-web.cf").open("a") as file:
        file.write(SETTINGS)
    client = site.log_in("anna")
    with database.open_database(site.web.database_path) as db:
        db.execute(f"UPDATE session SET {column} = {column} - ?", (age,))
    assert (client.get("/account").status_code == 200) == is_open


def test_a_session_that_was_ended_is_not_written_again(site: WebSite) -> None:
    client = site.log_in("anna")
    with client.session_transaction() as session:
        session["x"] = 1
        with database.open_database(site.web.database_path) as db:
            db.execute("DELETE FROM session")
    with database.open_database(site.web.database_path) as db:
        assert db.execute("SELECT count(*) FROM session").fetchone()[0] == 0
