"""Logins against a real OpenLDAP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from postfix_archive.errors import DirectoryFailed, LoginFailed, PasswordWrong
from postfix_archive.web import web_settings
from postfix_archive.web.login import ldap_login
from postfix_archive.web.web_settings import WebSettings

import web_site
from ldap_server import BASE, GROUP, PASSWORD, LdapServer
from web_site import WebSite

pytestmark = [
    pytest.mark.live,
    # ldap3 leaves the socket of a refused certificate to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LdapServer]:
    with LdapServer(tmp_path_factory.mktemp("ldap")) as started:
        yield started


def text_of(server: LdapServer, **changes: str) -> str:
    """Return an archive-web.cf for the server."""
    values = {
        "web_logins": "local ldap",
        **server.web_settings(),
        # Groups in another spelling of the DN.
        "web_group_roles": f"{{ {GROUP.upper().replace(',', ', ')} = auditor }}"
        " { * = own:legal@example.com }",
        **changes,
    }
    return "".join(f"{name} = {value}\n" for name, value in values.items())


def settings(server: LdapServer, **changes: str) -> WebSettings:
    return web_settings.parse(text_of(server, **changes), path="archive-web.cf")


def test_user_of_the_directory(server: LdapServer) -> None:
    user = ldap_login.authenticate(settings(server), "ANNA", PASSWORD)
    # One name, however it was typed.
    assert (user.name, user.source, user.display_name) == ("anna", "ldap", "Anna A.")
    assert user.addresses == ("anna@example.net", "a.a@example.net")
    assert sorted(map(str, user.grants)) == ["auditor:*", "own:legal@example.com"]
    bob = ldap_login.authenticate(settings(server), "bob", PASSWORD)
    assert sorted(map(str, bob.grants)) == ["own:legal@example.com"]


@pytest.mark.parametrize("url", ["url", "tls_url", "socket_url"])
def test_ways_to_connect(server: LdapServer, url: str) -> None:
    web = settings(server, web_ldap_server=getattr(server, url))
    assert ldap_login.authenticate(web, "bob", PASSWORD).name == "bob"
    assert ldap_login.find(web, "bob").name == "bob"


def test_groups_by_a_search(server: LdapServer) -> None:
    web = settings(
        server,
        web_ldap_search_base=BASE,
        web_ldap_group_filter="(&(objectClass=groupOfNames)(member=%s))",
    )
    assert "auditor:*" in map(str, ldap_login.find(web, "anna").grants)
    assert "auditor:*" not in map(str, ldap_login.find(web, "bob").grants)


@pytest.mark.parametrize(
    ("name", "password", "error"),
    [
        ("anna", "wrong", PasswordWrong),
        ("anna", "", LoginFailed),  # an unauthenticated bind (RFC 4513 5.1.2)
        ("", PASSWORD, LoginFailed),
        ("nobody", PASSWORD, LoginFailed),
        ("*", PASSWORD, LoginFailed),
        ("a*", PASSWORD, LoginFailed),
        ("anna)(uid=*", PASSWORD, LoginFailed),
        ("*)(|(uid=anna", PASSWORD, LoginFailed),
        ("anna)(userPassword=a*", PASSWORD, LoginFailed),
        ("\\61nna", PASSWORD, LoginFailed),
        ("anna\0", PASSWORD, LoginFailed),
        (f"uid=Anna,ou=people,{BASE}", PASSWORD, LoginFailed),
        ("é" * 5000, PASSWORD, LoginFailed),
    ],
)
def test_refused(
    server: LdapServer, name: str, password: str, error: type[LoginFailed]
) -> None:
    with pytest.raises(LoginFailed, match="name or the password is wrong") as found:
        ldap_login.authenticate(settings(server), name, password)
    assert type(found.value) is error


def test_a_filter_that_finds_two_logs_nobody_in(server: LdapServer) -> None:
    web = settings(server, web_ldap_user_filter="(|(uid=%s)(uid=bob))")
    with pytest.raises(LoginFailed, match="is wrong"):
        ldap_login.authenticate(web, "anna", PASSWORD)


@pytest.mark.parametrize(
    "changes",
    [
        {"web_ldap_ca_file": ""},  # a certificate that nobody has signed
        {"web_ldap_ca_file": "/missing"},
        {"web_ldap_server": "ldap://127.0.0.1:1"},
        {"web_ldap_server": "ldapi://%2Fmissing"},
        {"web_ldap_bind_password": "wrong"},
        {"web_ldap_name_attribute": "description"},
    ],
)
def test_directory_that_does_not_answer(
    server: LdapServer, changes: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DirectoryFailed, match="does not answer") as error:
        ldap_login.authenticate(settings(server, **changes), "anna", PASSWORD)
    # The reason is in the log alone.
    assert "directory-failed" in caplog.text and len(str(error.value)) < 100
    assert PASSWORD not in caplog.text


def test_certificate_of_another_host(server: LdapServer) -> None:
    url = server.url.replace("localhost", "127.0.0.1")
    with pytest.raises(DirectoryFailed):
        ldap_login.authenticate(settings(server, web_ldap_server=url), "anna", PASSWORD)


def log_in(client: FlaskClient, name: str, password: str) -> int:
    token = web_site.csrf_token(client.get("/login").text)
    fields = {"name": name, "password": password, "csrf_token": token}
    return client.post("/login", data=fields).status_code


def test_another_name_of_a_person(server: LdapServer, tmp_path: Path) -> None:
    """Names that the filter finds, and that are not the one that is kept."""
    site = WebSite(tmp_path)
    secret = "0123456789abcdef0123456789abcdef"
    changes = {
        "web_logins": "local ldap proxy",
        "web_ldap_user_filter": "(mail=%s)",
        "web_proxy_secret": secret,
    }
    with (site.store.directory / "archive-web.cf").open("a") as file:
        file.write(text_of(server, **changes))
    # By a password, Anna would take the name of a user of the page itself.
    assert log_in(site.app.test_client(), "anna@example.net", PASSWORD) == 401
    client = site.app.test_client()
    headers = {"X-Remote-User": "Carol@example.net", "X-Archive-Proxy-Secret": secret}
    assert client.get("/login", headers=headers).status_code == 302
    page = client.get("/account", headers=headers)
    assert page.status_code == 200 and "carol@example.net" in page.text
    headers["X-Remote-User"] = "carol"
    assert client.get("/account", headers=headers).status_code == 302


def test_page(tmp_path: Path) -> None:
    site = WebSite(tmp_path / "site")
    with LdapServer(tmp_path / "ldap") as server:
        with (site.store.directory / "archive-web.cf").open("a") as file:
            file.write(text_of(server))
        client = site.app.test_client()
        assert log_in(client, "Carol", PASSWORD) == 302
        assert "carol@example.net" in client.get("/account").text
        assert client.get("/account/totp").status_code == 400
        # Anna is also a user of the page itself: that one counts.
        assert log_in(site.app.test_client(), "anna", PASSWORD) == 401
        server.stop()
        # Users of the page itself still log in, others get one clear line.
        assert log_in(site.app.test_client(), "anna", web_site.PASSWORD) == 302
        assert log_in(site.app.test_client(), "carol", PASSWORD) == 401
