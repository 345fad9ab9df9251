"""The REST API: what its document says, who gets what, and its tokens."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask.testing import FlaskClient
from hypothesis import given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from postfix_archive.web import database
from postfix_archive.web.api import api_tokens

from sample_store import LEGAL
from web_site import WebSite

MESSAGE = (
    b"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: contract\r\n"
    b"X-Original-To: carol@example.net\r\n\r\nthe contract\r\n"
)
BLIND = b"carol@example.net"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> WebSite:
    made = WebSite(tmp_path_factory.mktemp("api"))
    made.store.add(MESSAGE, recipients=(b"bob@example.net", BLIND))
    made.store.add(b"Subject: secret\r\n\r\nx\r\n", recipients=(BLIND,))
    made.index()
    return made


def token(site: WebSite, user: str, lifetime: float = 3600.0) -> str:
    """Make a token of a user."""
    with database.open_database(site.web.database_path) as db:
        return api_tokens.add(
            db,
            f"{user}-{secrets.token_hex(4)}",
            user,
            expires=time.time() + lifetime,
            changed_by="test",
        )


def get(client: FlaskClient, path: str, one: str, status: int = 200) -> Any:
    """Get what a path has, with a token."""
    answer = client.get(f"/api/v1{path}", headers={"Authorization": f"Bearer {one}"})
    assert answer.status_code == status, answer.text
    return answer.json


def test_search_and_message(site: WebSite) -> None:
    client, one = site.app.test_client(), token(site, "anna")
    page = get(client, "/search?q=bcc:carol@example.net&limit=1", one)
    assert [each["subject"] for each in page["hits"]] == ["secret"]
    page = get(
        client, f"/search?q=bcc:carol@example.net&limit=1&after={page['next']}", one
    )
    [hit] = page["hits"]
    assert (hit["subject"], page["next"]) == ("contract", "")
    path = f"/messages/{LEGAL}/{hit['id']}"
    message = get(client, path, one)
    assert message["text"].strip() == "the contract"
    recipients = message["passes"][0]["recipients"]
    assert [(e["address"], e["is_blind"]) for e in recipients] == [
        ("bob@example.net", False),
        ("carol@example.net", True),
    ]
    bearer = {"Authorization": f"Bearer {one}"}
    assert client.get(f"/api/v1{path}/original", headers=bearer).data == MESSAGE


def test_hit_is_that_of_the_command(site: WebSite) -> None:
    """Programs read the same of a message, wherever they got it from."""
    site.store.add(b"Subject: bell \x07\r\n\r\n", recipients=(b"dora@example.net",))
    site.index()
    [hit] = get(site.app.test_client(), "/search?q=bell", token(site, "anna"))["hits"]
    printed = json.loads(site.store.run("search", "--json", "bell").stdout)
    assert {**printed, **hit} == printed
    assert hit["subject"] == "bell \\x07"


def test_own_mail(site: WebSite) -> None:
    client, one = site.app.test_client(), token(site, "bob")
    [hit] = get(client, "/search?q=*", one)["hits"]
    assert get(client, "/count?q=*", one) == {"count": 1}
    message = get(client, f"/messages/{LEGAL}/{hit['id']}", one)
    assert message["passes"] is None
    assert "carol" not in str(message)
    [other] = get(client, "/search?q=secret", token(site, "anna"))["hits"]
    get(client, f"/messages/{LEGAL}/{other['id']}", one, 404)
    get(client, f"/messages/{LEGAL}/{other['id']}/original", one, 404)


def test_without_a_valid_token(site: WebSite) -> None:
    client = site.app.test_client()
    expired = token(site, "anna", -1.0)
    for one in ("", "x", expired):
        assert get(client, "/search?q=*", one, 401)["title"] == "Unauthorized"
    logged_in = site.log_in("anna")  # a cookie opens the pages, not the API
    answer = logged_in.get("/api/v1/search?q=*")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_token_of_a_disabled_user_and_revoked_token(tmp_path: Path) -> None:
    site = WebSite(tmp_path)
    site.store.add(MESSAGE)
    site.index()
    run = site.store.run
    one = run("token", "add", "report", "--user", "anna").output.strip()
    client = site.app.test_client()
    get(client, "/count?q=*", one)
    assert "report  anna  since " in run("token", "list").output
    run("user", "disable", "anna")
    get(client, "/count?q=*", one, 401)
    run("user", "enable", "anna")
    get(client, "/count?q=*", one)
    again = run("token", "add", "report", "--user", "anna", exit_code=1).output
    assert "there is a token report already" in again
    run("token", "revoke", "report")
    get(client, "/count?q=*", one, 401)


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/search?q=from:", "ends too early"),
        ("/search", "the query is empty"),
        ("/search?q=*&limit=0", "limit must be a number from 1 to 500"),
        ("/search?q=*&sort=best", "sort must be one of"),
    ],
)
def test_bad_requests(site: WebSite, path: str, detail: str) -> None:
    answer = get(site.app.test_client(), path, token(site, "anna"), 400)
    assert detail in answer["detail"]


OPERATIONS = [
    "/search",
    "/count",
    "/messages/{archive}/{archive_id}",
    "/messages/{archive}/{archive_id}/original",
    "/exports",
    "/exports/{job_id}",
    "/exports/{job_id}/files/{name}",
    "/openapi.json",
]


@pytest.fixture(scope="module")
def schema(site: WebSite) -> Any:
    return schemathesis.openapi.from_wsgi("/api/v1/openapi.json", site.app)


def test_all_operations_are_tried(schema: Any) -> None:
    assert [*schema] == OPERATIONS
    rules = {
        each.rule.removeprefix("/api/v1")
        for each in schema.app.url_map.iter_rules()
        if each.rule.startswith("/api/v1")
    }
    assert {each.replace("<", "{").replace(">", "}") for each in rules} == {*OPERATIONS}


@pytest.mark.parametrize("path", OPERATIONS)
def test_answers_are_as_documented(site: WebSite, schema: Any, path: str) -> None:
    bearer = {"Authorization": f"Bearer {token(site, 'anna')}"}
    for operation in schema[path].values():

        @settings(max_examples=10, deadline=None, derandomize=True, database=None)
        @given(operation.as_strategy())
        def check(case: Any) -> None:
            # That a query is text does not make it one that can be read.
            case.call_and_validate(
                headers=bearer, excluded_checks=[positive_data_acceptance]
            )

        check()
