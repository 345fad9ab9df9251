"""What holds for every page: accessible, light, nothing from elsewhere.

The pages are found by following the links, as each of the users.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

import web_browser
from web_browser import Browser, Scheme, Visit
from web_host import WebHost

pytestmark = pytest.mark.live

PAGE_BYTES = 60_000  # as the browser counts them, without mail
VIEWS: list[tuple[int, Scheme]] = [(1280, "light"), (320, "dark")]
USERS = ("anna", "otto", "adam", "bob")
GERMAN = ("anna", "adam")  # read pages with longer words
# The words of a page that are on two lines, as in a column as narrow as a letter.
BROKEN_WORDS = r"""() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  const broken = [], range = document.createRange()
  for (let node; (node = walker.nextNode()); )
    for (const match of node.data.matchAll(/(?<!\S)\p{L}{2,20}(?!\S)/gu)) {
      range.setStart(node, match.index)
      range.setEnd(node, match.index + match[0].length)
      const lines = [...range.getClientRects()].map(each => each.top)
      if (new Set(lines).size > 1) broken.push(match[0])
    }
  return broken
}"""
PAGE_LIMIT = 40  # pages of a walk


def kind(url: str) -> str:
    """Return what pages of the same kind have in common: no ids, no queries."""
    parts = urlsplit(url).path.split("/")
    return "/".join("*" if any(map(str.isdigit, each)) else each for each in parts)


def walk(visit: Visit, start: str = "/") -> Iterator[str]:
    """Open one page of each kind that links lead to; yield its URL."""
    found, waiting = {kind(start)}, [start]
    while waiting and len(found) < PAGE_LIMIT:
        url = waiting.pop()
        visit.go(url)
        links = visit.links()
        yield urlsplit(url).path
        for each in links:
            if kind(each) not in found and "html" in visit.content_type(each):
                found.add(kind(each))
                waiting.append(each)


def problems(visit: Visit, axe: str) -> Iterator[str]:
    """Yield what is wrong with a page, in light and dark, wide and narrow."""
    visit.page.evaluate(axe)
    for width, scheme in VIEWS:
        visit.page.set_viewport_size({"width": width, "height": 900})
        visit.page.emulate_media(color_scheme=scheme)
        place = f"{visit.page.url} {width} {scheme}"
        for each in web_browser.violations(visit.page):
            yield f"{place}: {each}"
        scroll = visit.page.evaluate("document.documentElement.scrollWidth")
        if scroll > width:
            yield f"{place}: {scroll} px wide"
        for each in visit.page.evaluate(BROKEN_WORDS):
            yield f"{place}: {each} is on two lines"


@pytest.mark.parametrize("name", USERS)
def test_pages_are_accessible(
    host: WebHost, browser: Browser, axe: str, name: str
) -> None:
    """By axe-core in the browser: WCAG 2.2 AA."""
    visit = browser.visit(host.url)
    visit.go("/login")
    found = [*problems(visit, axe)]
    visit.log_in(name)
    if name in GERMAN:
        visit.page.click("footer >> text=Deutsch")
    found += [each for _ in walk(visit) for each in problems(visit, axe)]
    assert not found
    visit.close()


def test_pages_are_light(host: WebHost, browser: Browser) -> None:
    """All that an empty browser loads for one page."""
    visit = browser.visit(host.url)
    visit.log_in("otto")
    client = visit.page.context.new_cdp_session(visit.page)
    client.send("Network.enable")
    client.send("Network.setCacheDisabled", {"cacheDisabled": True})
    sizes: list[int] = []
    client.on(
        "Network.loadingFinished",
        lambda event: sizes.append(event["encodedDataLength"]),
    )
    totals = {}
    for path in walk(visit):
        sizes.clear()
        visit.page.reload(wait_until="networkidle")
        totals[path] = sum(sizes)
    assert {k: v for k, v in totals.items() if not 0 < v < PAGE_BYTES} == {}
    visit.close()
