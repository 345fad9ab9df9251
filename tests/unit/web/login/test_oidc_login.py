"""Logins by OpenID Connect, with a small real provider."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import oidc_provider
from oidc_provider import Provider
from web_site import WebSite

URL = "https://archive.example.com"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as started:
        yield started


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> WebSite:
    site = WebSite(tmp_path_factory.mktemp("site"))
    with (site.store.directory / "archive-web.cf").open("a") as file:
        file.write(
            f"web_logins = local oidc\nweb_url = {URL}\n"
            f"web_oidc_issuer = {provider.issuer}\n"
            f"web_oidc_client_id = {oidc_provider.CLIENT_ID}\n"
            f"web_oidc_client_secret = {oidc_provider.CLIENT_SECRET}\n"
            "web_oidc_name_claim = preferred_username\n"
            "web_group_roles = { auditors = auditor } { * = own }\n"
        )
    provider.behaviour = "right"
    provider.claims = {
        "preferred_username": "Dora",
        "groups": ["auditors", 7],
        "name": "Dora D.",
        "email": "Dora@example.net",
        "email_verified": True,
    }
    provider.userinfo = {}
    return site


def client_of(site: WebSite) -> FlaskClient:
    client = site.app.test_client()
    client.environ_base["wsgi.url_scheme"] = "https"
    return client


def begin(client: FlaskClient, target: str = "") -> str:
    """Begin a login; return the URL to which the provider leads back."""
    answer = client.get("/login/oidc", query_string={"next": target})
    assert answer.status_code == 302, answer.text
    back = requests.get(answer.headers["Location"], allow_redirects=False, timeout=60)
    url = back.headers["Location"]
    assert url.startswith(f"{URL}/login/oidc/callback?")
    return url.removeprefix(URL)


def log_in(client: FlaskClient, target: str = "") -> TestResponse:
    return client.get(begin(client, target))


def account(client: FlaskClient) -> str:
    answer = client.get("/account")
    return answer.text if answer.status_code == 200 else ""


def test_login(site: WebSite, provider: Provider) -> None:
    client = client_of(site)
    assert "Log in with your organisation" in client.get("/login").text
    answer = log_in(client, "/account?x=1")
    assert answer.headers["Location"] == "/account?x=1"
    page = account(client)
    for each in ("Dora D.", "dora", "auditor:*", "own:*", "dora@example.net"):
        assert each in page
    fields = provider.requests[-1]
    assert {"state", "nonce", "code_challenge"} <= fields.keys()
    assert fields["code_challenge_method"] == "S256"


@pytest.mark.parametrize("verified", [False, "true", 1, None])
def test_address_that_is_not_verified(
    site: WebSite, provider: Provider, verified: object
) -> None:
    provider.claims["email_verified"] = verified
    client = client_of(site)
    log_in(client)
    assert "dora@example.net" not in account(client) and account(client)


def test_claims_of_userinfo(site: WebSite, provider: Provider) -> None:
    more = {"groups": ["auditors"], "preferred_username": "other"}
    del provider.claims["groups"]
    provider.userinfo = more
    client = client_of(site)
    log_in(client)
    page = account(client)
    # What the signed token says counts.
    assert "auditor:*" in page and "<td>dora</td>" in page


@pytest.mark.parametrize("behaviour", oidc_provider.ATTACKS)
def test_attacks(site: WebSite, provider: Provider, behaviour: str) -> None:
    provider.behaviour = behaviour
    if behaviour == "userinfo of another":
        del provider.claims["groups"]
    client = client_of(site)
    answer = log_in(client)
    assert answer.status_code == 401 and not account(client)
    assert "the login was not completed" in answer.text


@pytest.mark.parametrize("behaviour", oidc_provider.FAULTS)
def test_faults_of_the_provider(
    site: WebSite, provider: Provider, behaviour: str
) -> None:
    provider.behaviour = behaviour
    client = client_of(site)
    answer = client.get("/login/oidc")
    assert answer.status_code == 401
    assert "the login service does not answer" in answer.text
    # It is asked again.
    provider.behaviour = "right"
    assert log_in(client).status_code == 302


def test_provider_that_is_away(site: WebSite) -> None:
    path = site.store.directory / "archive-web.cf"
    text = path.read_text()
    start = text.index("web_oidc_issuer")
    line = text[start : text.index("\n", start)]
    path.write_text(text.replace(line, "web_oidc_issuer = http://127.0.0.1:1"))
    answer = client_of(site).get("/login/oidc")
    assert "the login service does not answer" in answer.text
    assert "127.0.0.1:1" not in answer.text


@pytest.mark.parametrize(
    ("name", "status"), [("", 401), ("a\nb", 401), (7, 401), (["x"], 401)]
)
def test_names(site: WebSite, provider: Provider, name: object, status: int) -> None:
    provider.claims["preferred_username"] = name
    client = client_of(site)
    assert log_in(client).status_code == status and not account(client)


def test_callback_of_another_browser(site: WebSite) -> None:
    url = begin(client_of(site))
    victim = client_of(site)
    assert victim.get(url).status_code == 401 and not account(victim)
    other = client_of(site)
    begin(other)
    state = parse_qs(urlsplit(url).query)["state"][0]
    answer = other.get(f"/login/oidc/callback?code=code1&state={state}")
    assert answer.status_code == 401 and not account(other)


def test_callback_counts_once(site: WebSite) -> None:
    client = client_of(site)
    url = begin(client)
    assert client.get(url).status_code == 302
    assert client.get(url).status_code == 401


@pytest.mark.parametrize("query", ["", "?state=x", "?code=x", "?error=<script>"])
def test_invalid_callback(site: WebSite, query: str) -> None:
    answer = client_of(site).get(f"/login/oidc/callback{query}")
    assert answer.status_code == 401 and "<script>" not in answer.text


def test_disabled_user(site: WebSite, provider: Provider) -> None:
    site.store.run("user", "disable", "anna")
    provider.claims["preferred_username"] = "anna"
    client = client_of(site)
    assert log_in(client).status_code == 401 and not account(client)


def test_name_of_a_local_user_is_refused(site: WebSite, provider: Provider) -> None:
    provider.claims["preferred_username"] = "anna"
    client = client_of(site)
    answer = log_in(client)
    assert answer.status_code == 401 and "user of the page itself" in answer.text
    assert not account(client)


def test_next_leads_nowhere_else(site: WebSite) -> None:
    assert log_in(client_of(site), "//evil.example").headers["Location"] == "/"


def test_without_the_setting(site: WebSite) -> None:
    path = site.store.directory / "archive-web.cf"
    path.write_text(path.read_text().replace("local oidc", "local"))
    client = client_of(site)
    for url in ("/login/oidc", "/login/oidc/callback?code=x&state=x"):
        assert client.get(url).status_code == 404
