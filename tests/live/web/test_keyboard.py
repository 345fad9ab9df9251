"""All of the work of an auditor by keyboard alone, and the focus is always seen.

Tab goes from one element to the next; each on the way must show that it has the focus:
an outline, on the screen, under nothing else (WCAG 2.2, 2.4.7 and 2.4.11).
"""

from __future__ import annotations

import pytest

import web_mails
import web_site
from web_browser import Browser, Visit
from web_host import WebHost

pytestmark = pytest.mark.live
FOCUS = """() => {
  const element = document.activeElement;
  if (!element || ["BODY", "IFRAME"].includes(element.tagName)) return null;
  const style = getComputedStyle(element);
  const box = element.getClientRects()[0];
  const x = box.x + box.width / 2, y = box.y + box.height / 2;
  const top = document.elementFromPoint(x, y);
  return {
    html: element.cloneNode(false).outerHTML,
    hasOutline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    isOnTop: top !== null && (element.contains(top) || top.contains(element)),
  };
}"""
HAS_FOCUS = "element => element === document.activeElement"
PAGE_ELEMENTS = 200  # more than a page has


class Keyboard:
    """The keyboard of a visit."""

    def __init__(self, visit: Visit) -> None:
        self.page = visit.page

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def type(self, text: str) -> None:
        self.page.keyboard.type(text)

    def tab_to(self, selector: str) -> None:
        """Go on to an element; everything between shows the focus."""
        target = self.page.locator(selector).first
        target.wait_for()
        for _ in range(PAGE_ELEMENTS):
            self.press("Tab")
            self.see_focus()
            if target.evaluate(HAS_FOCUS):
                return
        raise AssertionError(f"Tab does not lead to {selector}")

    def see_focus(self) -> None:
        """The element that has the focus shows it."""
        focus = self.page.evaluate(FOCUS)
        # None: a frame has it, or the browser, between the last element and the first.
        assert focus is None or focus["hasOutline"] and focus["isOnTop"], focus

    def follow(self, selector: str, expected: str) -> None:
        """Go to a link or button, press it, and wait for an element."""
        self.tab_to(selector)
        self.press("Enter")
        self.page.wait_for_selector(expected)


def log_in(visit: Visit) -> Keyboard:
    keyboard = Keyboard(visit)
    visit.go("/login")
    visit.page.wait_for_selector("#name:focus")
    keyboard.see_focus()
    keyboard.type("anna")
    keyboard.tab_to("#password")
    keyboard.type(web_site.PASSWORD)
    keyboard.press("Enter")
    visit.page.wait_for_selector("header .log-out")
    return keyboard


def test_work_by_keyboard_alone(host: WebHost, browser: Browser) -> None:
    """Search, read a message and its parts, order an export, log out."""
    visit = browser.visit(host.url)
    keyboard, page = log_in(visit), visit.page
    keyboard.follow("nav >> text=Search", "#q")
    keyboard.tab_to("#q")
    keyboard.type("contract OR offer")
    keyboard.press("Enter")
    page.wait_for_selector("ol.hits")

    keyboard.follow("ol.hits a:has-text('Offer')", "h2:has-text('Parts')")
    keyboard.follow("summary:has-text('All header fields')", "details[open]")
    keyboard.follow("summary:has-text('As HTML')", "details[open] iframe")
    frame = page.frame_locator("iframe.html")
    frame.locator("a").first.wait_for()
    keyboard.tab_to("iframe.html")
    # Its text can be scrolled, and shows that, before its links get the focus.
    for element in ("body", "a"):
        frame.locator(f"{element}:focus-visible").wait_for()
        keyboard.press("Tab")
    keyboard.follow("text=View as HTML", "div[dir=auto]")
    page.go_back()
    page.wait_for_selector("h2:has-text('Parts')")

    keyboard.press("j")
    page.wait_for_selector("h1:has-text('Contract')")
    keyboard.press("k")
    page.wait_for_selector("h1:has-text('Offer')")
    keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    keyboard.see_focus()
    keyboard.press("Escape")
    page.wait_for_selector("dialog", state="hidden")
    keyboard.press("j")
    page.wait_for_selector("h1:has-text('Contract')")

    with page.expect_download() as download:
        keyboard.tab_to(f"main table >> text={web_mails.ATTACHMENT_NAME}")
        keyboard.press("Enter")
    assert download.value.suggested_filename == web_mails.ATTACHMENT_NAME
    keyboard.follow(".tools >> text=Export", "form.work")
    keyboard.follow("form.work button.main", "text=messages.zip")
    with page.expect_download() as download:
        keyboard.tab_to("text=messages.zip")
        keyboard.press("Enter")
    assert download.value.suggested_filename.endswith("messages.zip")
    keyboard.follow("text=Log out", "#name")
    visit.close()


@pytest.mark.parametrize("name", ["anna", "otto", "adam"])
def test_content_can_be_skipped_to(host: WebHost, browser: Browser, name: str) -> None:
    """The first element of a page leads past its links."""
    visit = browser.visit(host.url)
    visit.log_in(name)
    keyboard = Keyboard(visit)
    visit.go("/account")
    keyboard.tab_to("text=Skip to content")
    keyboard.press("Enter")
    keyboard.tab_to("main a")
    visit.close()
