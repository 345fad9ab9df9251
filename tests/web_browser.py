"""A real browser for tests of the web page: Debian's headless Chromium, by Playwright.

    with Browser() as browser:
        visit = browser.visit(host.url)      somebody with an empty browser
        visit.log_in("anna")
        visit.page.click("text=Search")
        visit.check()                        nothing went elsewhere, nothing was refused

Debian's chromium-headless-shell is in tests/packages; axe-core comes from npm.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, Response, sync_playwright

import web_site
from web_host import HOST_NAME

if TYPE_CHECKING:
    from typing import Self

CHROMIUM = "/usr/bin/chromium-headless-shell"
# Its sandbox needs more than root has in a container; it visits our page alone.
ARGUMENTS = ["--no-sandbox", f"--host-resolver-rules=MAP {HOST_NAME} 127.0.0.1"]
AXE_PACKAGE = "axe-core@4.14.1"  # of npm
AXE_SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
# WCAG 2.2, levels A and AA.
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
REFUSED = "Failed to load resource"  # what the console says of a status of 400 or more
CONTENT_TYPE = "async url => (await fetch(url)).headers.get('content-type')"
TIMEOUT = 30_000  # ms
Scheme = Literal["light", "dark"]


class Browser:
    """A browser that several visits share."""

    def __enter__(self) -> Self:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.close()
        self._playwright.stop()

    def visit(self, url: str, *, width: int = 1280, scheme: Scheme = "light") -> Visit:
        """Return a visit by somebody who has no cookie yet."""
        context = self._browser.new_context(
            base_url=url,
            ignore_https_errors=True,  # the certificate is its own issuer
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            locale="en-GB",
            timezone_id="UTC",
        )
        context.set_default_timeout(TIMEOUT)
        return Visit(context.new_page(), url)


class Visit:
    """What one person does; ``requests`` are the URLs that the browser asked for."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._url = url
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and REFUSED not in message.text:
            self.errors.append(f"{self.page.url}: {message.text}")

    def log_in(self, name: str, password: str = web_site.PASSWORD) -> None:
        """Log in by the form."""
        self.send_password(name, password)
        self.page.wait_for_selector("header .log-out")

    def send_password(self, name: str, password: str) -> None:
        """Fill the form to log in, and send it."""
        self.page.goto("/login")
        self.page.fill("#name", name)
        self.page.fill("#password", password)
        self.page.press("#password", "Enter")

    def go(self, path: str) -> Response:
        """Open a page; it is no error."""
        response = self.page.goto(path)
        assert response is not None and response.ok, (
            path,
            response and response.status,
        )
        return response

    def links(self) -> list[str]:
        """Return where the links of this page lead, within the site, each once."""
        found = self.page.eval_on_selector_all(
            "a[href]:not([download])", "links => links.map(each => each.href)"
        )
        own = (each.split("#")[0] for each in found if each.startswith(self._url))
        return list(dict.fromkeys(own))

    def content_type(self, url: str) -> str:
        """Ask for a URL without showing it; return the type of what comes."""
        text: str = self.page.evaluate(CONTENT_TYPE, url)
        return text

    def close(self) -> None:
        """Leave, after check()."""
        self.check()
        self.page.context.close()

    def check(self) -> None:
        """No request went to another host, and the browser had nothing to refuse."""
        origin = urlsplit(self._url).netloc
        others = [
            each
            for each in self.requests
            if not each.startswith("data:") and urlsplit(each).netloc != origin
        ]
        assert not others
        assert not self.errors


def axe_source(cache: Path) -> str:
    """Return the source of axe-core; what is downloaded is kept in cache."""
    name, _, version = AXE_PACKAGE.partition("@")
    path = cache / f"{name}-{version}.tgz"
    with open(cache / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            subprocess.run(
                ["npm", "pack", "--silent", AXE_PACKAGE],
                cwd=cache,
                check=True,
                capture_output=True,
            )
    assert hashlib.sha256(path.read_bytes()).hexdigest() == AXE_SHA256
    unpack = ["tar", "-xzOf", str(path), "package/axe.min.js"]
    return subprocess.run(unpack, check=True, capture_output=True, text=True).stdout


def violations(page: Page) -> list[str]:
    """Return what axe-core, which the page has loaded, finds: rule, and elements."""
    result = page.evaluate(
        "tags => axe.run(document, {runOnly: tags, resultTypes: ['violations']})",
        AXE_TAGS,
    )
    return [
        f"{each['id']}: {each['help']}: {[node['html'] for node in each['nodes'][:3]]}"
        for each in result["violations"]
    ]
