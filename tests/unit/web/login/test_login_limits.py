"""Guessing passwords: it becomes slow, and locks nobody out."""

from __future__ import annotations

from pathlib import Path

import pytest

from postfix_archive.errors import LoginDelayed
from postfix_archive.web import database
from postfix_archive.web.login import login_limits

import web_site
from web_site import WebSite

ATTACKER, USER = "192.0.2.66", "198.51.100.7"
MANY = 40  # attempts, after which the delay is the longest


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "web.db")


def is_delayed(path: str, name: str, client: str) -> bool:
    try:
        with database.open_database(path) as db:
            login_limits.begin(db, name, client)
    except LoginDelayed as error:
        assert 0 < error.seconds <= login_limits.MAX_DELAY
        return True
    return False


def attempts_until_delay(path: str, name: str, client: str) -> int:
    for count in range(MANY):
        if is_delayed(path, name, client):
            return count
    raise AssertionError("never delayed")


def test_delay_grows_to_a_limit() -> None:
    delays = [login_limits.delay(count, 5) for count in range(MANY)]
    assert delays[:8] == [0, 0, 0, 0, 0, 1, 2, 4]
    assert delays[-1] == login_limits.MAX_DELAY


def test_names_count_from_everywhere(path: str) -> None:
    clients = [f"192.0.2.{number}" for number in range(MANY)]
    assert any(is_delayed(path, "anna", each) for each in clients)
    assert not is_delayed(path, "bob", "192.0.2.200")


def test_an_address_counts_for_all_names(path: str) -> None:
    names = [f"name{number}" for number in range(MANY)]
    assert any(is_delayed(path, each, ATTACKER) for each in names)
    assert not is_delayed(path, "other", USER)


def test_nobody_locks_out_a_user_where_they_have_logged_in(path: str) -> None:
    with database.open_database(path) as db:
        login_limits.begin(db, "anna", USER)
    with database.open_database(path) as db:
        login_limits.succeeded(db, "anna", USER)
    attempts_until_delay(path, "anna", ATTACKER)
    assert not is_delayed(path, "anna", USER)
    assert attempts_until_delay(path, "anna", USER) >= login_limits.NAME_FAILURES - 1


def test_logging_in_forgets_the_failures_of_the_name_alone(path: str) -> None:
    for _ in range(MANY):
        with database.open_database(path) as db:
            login_limits.begin(db, "own", ATTACKER)
        with database.open_database(path) as db:
            login_limits.succeeded(db, "own", ATTACKER)
    # Who can log in has no more attempts at other names for it.
    names = [f"name{number}" for number in range(MANY)]
    assert any(is_delayed(path, each, ATTACKER) for each in names)


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("unix:", "unix:"),
    ],
)
def test_network(client: str, network: str) -> None:
    assert login_limits.network(client) == network


@pytest.mark.parametrize("name", ["anna", "nobody", "disabled\nname", "x" * 5000])
def test_the_page_delays_names_that_are_there_and_not(
    tmp_path: Path, name: str
) -> None:
    site = WebSite(tmp_path)
    client = site.app.test_client()
    token = web_site.csrf_token(client.get("/login").text)
    fields = {"name": name, "password": "wrong", "csrf_token": token}
    statuses = []
    for _ in range(MANY):
        answer = client.post("/login", data=fields)
        statuses.append(answer.status_code)
        if answer.status_code == 429:
            break
    assert set(statuses) == {401, 429}
    assert int(answer.headers["Retry-After"]) >= 1
    assert "too many attempts" in answer.text
    # Not even the right password is looked at.
    fields["password"] = web_site.PASSWORD
    assert client.post("/login", data=fields).status_code == 429 or name != "anna"
