"""A day's work in a real browser, from the login to the log of who did what."""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
import zipfile
from pathlib import Path

import pypdf
import pytest

from postfix_archive.postfix import reference
from postfix_archive.web.message import safe_html

import web_mails
from web_browser import Browser, Scheme, Visit
from web_host import WebHost

pytestmark = pytest.mark.live
SUBJECT = "Contract for the new building"
SCREENSHOTS = Path(__file__).resolve().parents[3] / "build" / "screenshots"
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
BLIND = web_mails.BLIND.decode()
TEMPLATE = reference.PACKAGE / "web" / "templates" / "message_html.html"
IS_ON_TOP = """target => {
  const place = target.getBoundingClientRect()
  const x = place.x + place.width / 2, y = place.y + place.height / 2
  return target.contains(document.elementFromPoint(x, y))
}"""


def open_contract(visit: Visit) -> None:
    """Find the message by its blind recipient, and open it."""
    visit.go("/search")
    visit.page.fill("#q", f"bcc:{BLIND}")
    visit.page.press("#q", "Enter")
    visit.page.click(f"ol.hits >> text={SUBJECT}")
    visit.page.wait_for_selector("h2:has-text('Integrity')")


def compact(text: str) -> str:
    """Return a text without what a PDF file has in another way: spaces, ligatures."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def test_auditor_finds_a_blind_recipient_and_takes_the_attachment(
    host: WebHost, browser: Browser
) -> None:
    visit = browser.visit(host.url)
    visit.log_in("anna")
    open_contract(visit)
    assert BLIND in visit.page.inner_text("main")
    with visit.page.expect_download() as download:
        visit.page.click(f"text={web_mails.ATTACHMENT_NAME}")
    content = Path(download.value.path()).read_bytes()
    assert hashlib.sha256(content).hexdigest() == web_mails.ATTACHMENT_SHA256
    assert download.value.suggested_filename == web_mails.ATTACHMENT_NAME
    visit.close()
    assert {"login", "search", "show"} <= {*host.actions("anna")}


def test_employee_finds_own_mail_without_the_blind_recipient(
    host: WebHost, browser: Browser
) -> None:
    visit = browser.visit(host.url)
    visit.log_in("bob")
    visit.go("/search?q=contract")
    visit.page.click(f"ol.hits >> text={SUBJECT}")
    visit.page.wait_for_selector("h2:has-text('Parts')")
    assert BLIND not in visit.page.content()
    visit.go(f"/search?q=bcc:{BLIND}")
    assert visit.page.query_selector("ol.hits") is None
    visit.close()


def test_html_loads_nothing_from_elsewhere(host: WebHost, browser: Browser) -> None:
    visit = browser.visit(host.url)
    visit.log_in("anna")
    visit.go("/search?q=subject:offer")
    visit.page.click("ol.hits >> text=Offer of the week")
    visit.page.click("summary:has-text('As HTML')")
    frame = visit.page.frame_locator("iframe.html")
    frame.locator("text=our offer").first.wait_for()
    assert "tracker.example" in frame.locator("body").inner_text()
    assert frame.locator("script, img[src^=http]").count() == 0
    visit.close()


def test_styles_of_a_mail_hide_no_target(host: WebHost, browser: Browser) -> None:
    source = """<div style="font-size:0;line-height:0;color:#fff;text-indent:-999em;
     letter-spacing:-9px;display:none"><a href="https:///evil.example/">good.example</a>
     </div><span style="background-color:#fff;font-size:200px;line-height:0">xxx"""
    styles = re.search("<style>.*</style>", TEMPLATE.read_text(), re.S)
    assert styles
    visit = browser.visit(host.url)
    visit.page.set_content(
        styles[0] + safe_html.clean(source, lambda _: None, "leads to").html
    )
    target = visit.page.locator(".target")
    assert target.evaluate(IS_ON_TOP)
    assert target.evaluate("e => parseFloat(getComputedStyle(e).fontSize)") > 10
    assert "164, 14, 38" in target.evaluate("e => getComputedStyle(e).color")
    visit.close()


@pytest.mark.parametrize("view", ["", "/print"])
def test_printed_message(host: WebHost, browser: Browser, view: str) -> None:
    """Envelope, header and text are on paper, and nothing to click."""
    visit = browser.visit(host.url, scheme="dark")
    visit.log_in("anna")
    open_contract(visit)
    visit.go(visit.page.url.partition("?")[0] + view)
    pages = pypdf.PdfReader(io.BytesIO(visit.page.pdf(format="A4"))).pages
    text = compact("".join(each.extract_text() for each in pages))
    for each in (
        *("Envelope", BLIND, "Bcc", "Timeline", "Integrity", "SHA-256"),
        *("alice@example.org", "bob@example.net", SUBJECT, "Sun, 22 Nov 2026"),
        *("The contract is enclosed.", web_mails.ATTACHMENT_NAME),
        *(["contract@example.org", "MIME-Version"] if view else []),
    ):
        assert compact(each) in text
    labels = "nav a, header button, .skip, footer a"
    for label in visit.page.locator(labels).all_inner_texts():
        assert compact(label) not in text, label
    assert visit.page.locator(labels).count() > 5
    visit.close()


def test_mail_from_right_to_left(host: WebHost, browser: Browser) -> None:
    visit = browser.visit(host.url)
    visit.log_in("anna")
    visit.go("/search?q=from:ahmad@example.org")
    direction = visit.page.eval_on_selector(
        "ol.hits h3 a", "link => getComputedStyle(link).direction"
    )
    assert direction == "rtl"
    visit.close()


def test_export(host: WebHost, browser: Browser, tmp_path: Path) -> None:
    visit = browser.visit(host.url)
    visit.log_in("anna")
    visit.go("/exports?q=subject:contract")
    visit.page.click("main form button.main")
    link = "a[download], a:has-text('Download')"
    while visit.page.query_selector(link) is None:
        visit.page.reload()
    with visit.page.expect_download() as download:
        visit.page.click(link)
    path = tmp_path / "export.zip"
    download.value.save_as(path)
    with zipfile.ZipFile(path) as archive:
        [name] = [each for each in archive.namelist() if each.endswith(".eml")]
        assert archive.read(name) == web_mails.contract()
    visit.close()
    done = host.actions("anna")
    assert "export" in done and "count" not in done


def test_screenshots(host: WebHost, browser: Browser) -> None:
    """In build/screenshots, for CI and to look at; some of them are in docs."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    visit = browser.visit(host.url)
    visit.go("/login")
    visit.page.screenshot(path=SCREENSHOTS / "login.png")
    visit.log_in("otto")
    for scheme in SCHEMES:
        visit.page.emulate_media(color_scheme=scheme)
        visit.go("/search?q=minutes")
        visit.page.screenshot(path=SCREENSHOTS / f"search-{scheme}.png")
        open_contract(visit)
        visit.page.screenshot(
            path=SCREENSHOTS / f"message-{scheme}.png", full_page=True
        )
    visit.close()
    assert len([*SCREENSHOTS.glob("*.png")]) == 5
