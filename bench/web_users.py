"""Users of the web page for web_bench: Load as JSON on stdin.

Each of them logs in, searches, now and then goes on to the next page or opens a
message, and waits a while. Prints JSON: of each kind of page the times in ms. A process
of its own, so that it does not share the interpreter with what is measured.
"""

from __future__ import annotations

import html
import http.client
import json
import random
import re
import sys
import threading
import time
from typing import NamedTuple
from urllib.parse import urlencode

NAME, PASSWORD = "anna", "correct horse battery staple"
CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')
NEXT = re.compile(r'rel="next" href="([^"]+)"')
MESSAGE = re.compile(r'href="(/message/[^"]+)"')
NEXT_SHARE, MESSAGE_SHARE = 0.2, 0.2  # of the searches: how often a page follows


class Browser:
    """One user with one connection."""

    def __init__(self, port: int, times: dict[str, list[float]]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self._times = times
        self._cookie = ""

    def log_in(self) -> None:
        """Begin a session."""
        _, page = self._request("GET", "/login")
        [token] = CSRF.findall(page)[:1]
        fields = {"name": NAME, "password": PASSWORD, "csrf_token": token}
        status, page = self._request("POST", "/login", urlencode(fields))
        if status != 302:
            raise SystemExit(f"cannot log in: {status}: {page}")

    def get(self, kind: str, url: str) -> str:
        """Return a page, and note how long it took; a page with an error is none."""
        begin = time.monotonic()
        status, page = self._request("GET", url)
        if status != 200:
            raise SystemExit(f"{url}: {status}: {page}")
        self._times.setdefault(kind, []).append(1000 * (time.monotonic() - begin))
        return page

    def _request(self, method: str, url: str, body: str = "") -> tuple[int, str]:
        headers = {"Cookie": self._cookie}
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, url, body or None, headers)
        answer = self._connection.getresponse()
        cookie = answer.getheader("Set-Cookie")
        self._cookie = cookie.partition(";")[0] if cookie else self._cookie
        return answer.status, answer.read().decode()


class Load(NamedTuple):
    """What the users do, as it comes from stdin; pause is the mean, in seconds."""

    port: int
    users: int
    requests: int
    pause: float
    queries: list[str]
    has_messages: bool


class Work:
    """The searches that are left; each user takes the next one."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._left = load.requests
        self._lock = threading.Lock()
        self.times: dict[str, list[float]] = {}

    def _take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def do(self, browser: Browser, number: int) -> None:
        """Search until there are enough requests."""
        chance = random.Random(number)

        def pause() -> None:
            time.sleep(self._load.pause * chance.uniform(0.5, 1.5))

        while self._take():
            parameters = urlencode({"q": chance.choice(self._load.queries)})
            page = browser.get("search", f"/search?{parameters}")
            pause()
            follow = chance.random()
            next_page, message = NEXT.search(page), MESSAGE.search(page)
            if follow < NEXT_SHARE and next_page:
                browser.get("next page", html.unescape(next_page[1]))
                pause()
            elif follow > 1 - MESSAGE_SHARE and message and self._load.has_messages:
                browser.get("message", html.unescape(message[1]))
                pause()


def main() -> None:
    """Let all users work at once."""
    load = Load(**json.load(sys.stdin))
    work = Work(load)
    browsers = [Browser(load.port, work.times) for _ in range(load.users)]
    for each in browsers:
        each.log_in()
    threads = [
        threading.Thread(target=work.do, args=(browser, number))
        for number, browser in enumerate(browsers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump(work.times, sys.stdout)


if __name__ == "__main__":
    main()
