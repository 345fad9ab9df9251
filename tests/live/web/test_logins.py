"""Each kind of login in a browser: one-time codes, OpenLDAP, an OpenID provider."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyotp
import pytest
import zxingcpp
from PIL import Image
from playwright.sync_api import ElementHandle

from postfix_archive.web.login import totp

import oidc_provider
import web_mails
import web_site
from ldap_server import PASSWORD, LdapServer
from oidc_provider import Provider
from web_browser import Browser, Visit
from web_host import HOST_NAME, WebHost

pytestmark = pytest.mark.live
LOGGED_IN = "header .log-out"
REFUSED = "[role=alert]"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as started:
        started.claims = {"preferred_username": "Dora", "groups": ["auditors"]}
        yield started


@pytest.fixture(scope="module")
def host(provider: Provider) -> Iterator[WebHost]:
    with tempfile.TemporaryDirectory(prefix="pfa-ldap-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # the page's user reads the certificate
        with LdapServer(directory) as ldap:
            values = {
                **ldap.web_settings(),
                "web_logins": "local ldap oidc",
                "web_oidc_issuer": provider.issuer,
                "web_oidc_client_id": oidc_provider.CLIENT_ID,
                "web_oidc_client_secret": oidc_provider.CLIENT_SECRET,
                "web_oidc_name_claim": "preferred_username",
                "web_group_roles": "{ auditors = auditor } { * = own }",
            }
            settings = "".join(f"{k} = {v}\n" for k, v in values.items())
            with WebHost(web_mails.fill, settings) as instance:
                yield instance


def scan(image: ElementHandle | None) -> str:
    """Return what a phone reads in the QR code on the screen."""
    assert image
    picture = Image.open(io.BytesIO(image.screenshot()))
    [barcode] = zxingcpp.read_barcodes(picture)
    text: str = barcode.text
    return text


def type_code(visit: Visit, code: str, expected: str) -> None:
    """Type a code after the password; wait for an element of what comes."""
    visit.page.fill("#code", code)
    visit.page.press("#code", "Enter")
    visit.page.wait_for_selector(expected)


def read_something(visit: Visit) -> None:
    visit.go("/search?q=subject:contract")
    assert visit.page.query_selector_all("ol.hits > li")


def test_one_time_codes(host: WebHost, browser: Browser) -> None:
    """From the QR code to a recovery code, which works once."""
    visit = browser.visit(host.url)
    visit.log_in("anna")
    visit.go("/account")
    visit.page.click("text=One-time codes after the password")
    device = pyotp.parse_uri(scan(visit.page.query_selector("img")))
    assert isinstance(device, pyotp.TOTP)
    assert (device.name, device.issuer) == ("anna", f"Mail archive {HOST_NAME}")
    secret = visit.page.inner_text("main code")
    assert secret.replace(" ", "") == device.secret
    set_up = int(time.time())
    visit.page.fill("#code", device.at(set_up))
    visit.page.click("text=Set up")
    visit.page.wait_for_selector("h2:has-text('Recovery codes')")
    codes = visit.page.locator("main li code").all_inner_texts()
    assert len(codes) == totp.RECOVERY_CODES
    visit.page.click(f"{LOGGED_IN} button")

    visit.send_password("anna", web_site.PASSWORD)
    visit.page.wait_for_selector("#code:focus")
    assert visit.page.query_selector(LOGGED_IN) is None
    type_code(visit, "000000", REFUSED)
    # That of the next half minute counts already; the one of now has been used.
    type_code(visit, device.at(set_up + device.interval), LOGGED_IN)
    read_something(visit)

    for recovery_code, expected in (
        (codes[0], LOGGED_IN),
        (codes[0], REFUSED),
        (codes[1], LOGGED_IN),
    ):
        other = browser.visit(host.url)
        other.send_password("anna", web_site.PASSWORD)
        type_code(other, recovery_code, expected)
        other.close()
    visit.go("/account/totp")
    left = totp.RECOVERY_CODES - 2
    assert f"Recovery codes left: {left}." in visit.page.inner_text("main")
    visit.close()
    assert host.actions("anna").count("login-refused") == 2


def test_user_of_the_directory(host: WebHost, browser: Browser) -> None:
    """Carol, who was a blind recipient, finds what she got."""
    visit = browser.visit(host.url)
    for name, password in (("carol", web_site.PASSWORD), ("bob", PASSWORD)):
        visit.send_password(name, password)  # bob is a user of the page itself
        visit.page.wait_for_selector(REFUSED)
    visit.send_password("Carol", PASSWORD)
    visit.page.wait_for_selector(LOGGED_IN)
    visit.go("/search?q=*")
    assert visit.page.locator("ol.hits > li").count() == 1
    visit.close()


def test_user_of_the_openid_provider(
    host: WebHost, browser: Browser, provider: Provider
) -> None:
    visit = browser.visit(host.url)
    # Where the login began is shown after it.
    visit.go("/search?q=subject:contract")
    visit.page.click("text=Log in with your organisation")
    visit.page.wait_for_selector("ol.hits")
    assert urlsplit(visit.page.url).netloc == urlsplit(host.url).netloc
    assert "dora" in visit.page.inner_text(LOGGED_IN)
    # The provider alone is asked besides the page, and once.
    others = [each for each in visit.requests if not each.startswith(host.url)]
    assert [each.split("?")[0] for each in others] == [f"{provider.issuer}/authorize"]
    [cookie] = [e for e in visit.page.context.cookies() if "session" in e["name"]]
    assert cookie["name"] == "__Host-session" and cookie["secure"]
    visit.page.click(f"{LOGGED_IN} button")
    visit.page.wait_for_selector("text=Log in with your organisation")
    assert not visit.errors
    visit.page.context.close()
    assert "login" in host.actions("dora")


def test_refusal_of_the_openid_provider(
    host: WebHost, browser: Browser, provider: Provider
) -> None:
    provider.behaviour = "refuses"
    try:
        visit = browser.visit(host.url)
        visit.go("/login")
        visit.page.click("text=Log in with your organisation")
        visit.page.wait_for_selector(REFUSED)
        assert visit.page.query_selector(LOGGED_IN) is None
        visit.page.context.close()
    finally:
        provider.behaviour = "right"
