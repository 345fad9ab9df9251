"""One-time codes after the password."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pyotp
import pytest
from flask.testing import FlaskClient

from postfix_archive.web import database
from postfix_archive.web.login import totp

import web_site
from web_site import PASSWORD, WebSite


@pytest.fixture
def site(tmp_path: Path) -> WebSite:
    return WebSite(tmp_path)


def code_of(secret: str) -> str:
    return pyotp.TOTP(secret).now()


def set_up(client: FlaskClient) -> tuple[str, list[str]]:
    """Set codes up on the page; return the secret and the recovery codes."""
    page = client.get("/account/totp").text
    found = re.search(r"Secret: <code>([^<]+)<", page)
    assert found
    secret = found[1].replace(" ", "")
    image = client.get("/account/totp.svg")
    assert image.mimetype == "image/svg+xml" and b"<svg" in image.data
    assert b"style" not in image.data and b"<script" not in image.data
    fields = {"code": code_of(secret), "csrf_token": web_site.csrf_token(page)}
    assert client.post("/account/totp", data=fields).status_code == 302
    page = client.get("/account/totp").text
    codes = re.findall(r"<li><code>([^<]+)</code>", page)
    assert len(codes) == totp.RECOVERY_CODES
    assert not re.findall(r"<li><code>", client.get("/account/totp").text)
    return secret, codes


def forget_used_codes(site: WebSite) -> None:
    """Let the codes of now be new, as they are half a minute later."""
    with database.open_database(site.web.database_path) as db:
        db.execute("UPDATE local_user SET totp_step = 0")


def post_code(client: FlaskClient, code: str) -> int:
    token = web_site.csrf_token(client.get("/login/code").text)
    return client.post(
        "/login/code", data={"code": code, "csrf_token": token}
    ).status_code


def test_code_is_asked_for_and_works_once(site: WebSite) -> None:
    secret, _ = set_up(site.log_in("anna"))
    code = code_of(secret)
    client = site.log_in("anna")
    # The password alone opens nothing.
    for path in ("/account", "/", "/account/totp", "/account/password"):
        assert "/login" in client.get(path).headers["Location"]
    assert post_code(client, code) == 401  # was used to set up
    forget_used_codes(site)
    assert post_code(client, "000000") == 401
    assert post_code(client, f"{code_of(secret)[:3]} {code_of(secret)[3:]}") == 302
    assert client.get("/account").status_code == 200
    other = site.log_in("anna")
    assert post_code(other, code_of(secret)) == 401
    assert other.get("/account").status_code == 302


def test_recovery_codes_work_once(site: WebSite) -> None:
    _, codes = set_up(site.log_in("anna"))
    assert post_code(site.log_in("anna"), codes[0].upper()) == 302
    client = site.log_in("anna")
    assert post_code(client, codes[0]) == 401
    assert post_code(client, codes[1]) == 302
    assert "left: 8" in client.get("/account/totp").text
    # They are of one user, and not kept as they are.
    set_up(site.log_in("bob"))
    assert post_code(site.log_in("bob"), codes[2]) == 401
    content = Path(site.web.database_path).read_bytes()
    assert codes[3].encode() not in content
    assert codes[3].replace("-", "").encode() not in content


@pytest.mark.parametrize("code", ["", "000000", "x" * 5000, "１２３４５６", "\0", "é"])
def test_wrong_code(site: WebSite, code: str) -> None:
    client = site.log_in("anna")
    page = client.get("/account/totp").text
    fields = {"code": code, "csrf_token": web_site.csrf_token(page)}
    answer = client.post("/account/totp", data=fields)
    assert answer.status_code == 400 and "not the code" in answer.text
    with database.open_database(site.web.database_path) as db:
        assert not totp.use(db, "anna", code)


def test_codes_of_the_steps_beside_count(tmp_path: Path) -> None:
    site = WebSite(tmp_path)
    secret = totp.new_secret()
    with database.open_database(site.web.database_path) as db:
        now = time.time()
        for offset, is_right in ((-300, False), (300, False), (0, True)):
            code = pyotp.TOTP(secret).at(int(now) + offset)
            db.execute(
                "UPDATE local_user SET totp_secret = ?, totp_step = 0", (secret,)
            )
            assert totp.use(db, "anna", code) == is_right


def test_guessing_codes_is_delayed(site: WebSite) -> None:
    set_up(site.log_in("anna"))
    client = site.log_in("anna")
    statuses = {post_code(client, "000000") for _ in range(20)}
    assert statuses == {401, 429}


def test_only_the_password_takes_codes_away(site: WebSite) -> None:
    secret, _ = set_up(site.log_in("anna"))
    forget_used_codes(site)
    client = site.log_in("anna")
    post_code(client, code_of(secret))
    for password, status in (("wrong", 400), (PASSWORD, 302)):
        token = web_site.csrf_token(client.get("/account/totp").text)
        fields = {"action": "disable", "password": password, "csrf_token": token}
        assert client.post("/account/totp", data=fields).status_code == status
    assert site.log_in("anna").get("/account").status_code == 200


def test_command_takes_codes_away(site: WebSite) -> None:
    client = site.log_in("anna")
    set_up(client)
    site.store.run("user", "totp", "anna")
    assert client.get("/account").status_code == 302
    assert site.log_in("anna").get("/account").status_code == 200


def test_codes_are_demanded(site: WebSite) -> None:
    with (site.store.directory / "archive-web.cf").open("a") as file:
        file.write("web_require_totp = yes\n")
    client = site.log_in("anna")
    assert client.get("/account").headers["Location"] == "/account/totp"
    assert "before you go on" in client.get("/account/totp").text
    set_up(client)
    assert client.get("/account").status_code == 200


def test_a_change_of_the_user_ends_the_wait_for_a_code(site: WebSite) -> None:
    set_up(site.log_in("anna"))
    client = site.log_in("anna")
    site.store.run("user", "change", "anna", "--role", "own")
    assert client.get("/login/code").headers["Location"] == "/login"
    assert "/login" in client.get("/account").headers["Location"]
