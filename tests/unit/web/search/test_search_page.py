"""The search page: what it shows to whom, its links, its states."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from postfix_archive.search import index_groups, search
from postfix_archive.search.index_engine import ORDERS
from postfix_archive.store.outcome import Outcome
from postfix_archive.web.search import hit_rows, search_page
from postfix_archive.web.visible import archives

import web_site
from sample_store import LEGAL
from web_site import WebSite

DAY = 86_400
FIRST = 1_770_000_000  # 2026-02-02
BOARD = "board@example.com"
TIME = "2026-03-24T00:00:00Z"
ID = re.compile(r"[0-9]{8}-[0-9a-f]{40}")
TOKEN = re.compile(r'name="csrf_token" value="[^"]*"')


def message(number: int) -> bytes:
    """Return one of the sample messages, all of which have the word contract."""
    return (
        f"From: Alice <alice@d{number % 3}.example>\r\nTo: bob@example.net\r\n"
        f"Subject: contract {number}\r\n\r\n"
        f"please sign the Contract of day {number}\r\n"
    ).encode()


OTHERS = (
    b"From: carol@secret.example\r\nTo: dora@secret.example\r\n"
    b"Subject: contract secretsubject\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\n\r\nthe secretword contract\r\n--b\r\n"
    b'Content-Disposition: attachment; filename="x.secrettype"\r\n\r\nx\r\n--b--\r\n'
)
BLIND = (
    b"From: alice@d0.example\r\nTo: bob@example.net\r\nBcc: eve@blind.example\r\n"
    b"Subject: for all\r\n\r\nhello\r\n"
)


class Page(NamedTuple):
    """A page: its text without tags, and the links in it by their text."""

    status: int
    html: str
    text: str
    links: dict[str, str]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.links: dict[str, str] = {}
        self._url = ""
        self._label: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a":
            self._url, self._label = values.get("href") or "", []
            if values.get("aria-label"):
                self.links[str(values["aria-label"])] = self._url
        assert "style" not in values and not [e for e in values if e.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self.links["".join(self._label).strip()] = self._url

    def handle_data(self, data: str) -> None:
        self.parts.append(data)
        self._label.append(data)


def make(directory: Path, *, has_others: bool) -> WebSite:
    """Make a site with 50 messages for Bob on 50 days, and one more on the 51st.

    has_others: with 25 messages that are not his, and a blind recipient of his last
    one, who could not be reached.
    """
    site = WebSite(directory)
    for number in range(50):
        arrival = FIRST + number * DAY
        site.store.add(message(number), arrival=arrival)
        if has_others and number % 2:
            dora = (b"dora@secret.example",)
            site.store.add(OTHERS, recipients=dora, arrival=arrival + 3600)
    last = FIRST + 50 * DAY
    recipients = (b"bob@example.net", b"eve@blind.example")[: 1 + has_others]
    blind = site.store.add(BLIND, recipients=recipients, arrival=last)
    if has_others:
        outcome = Outcome("eve@blind.example", "failed", "4Z1", "4Z2", TIME)
        site.store.add_outcome(blind, outcome)
    site.index()
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> WebSite:
    return make(tmp_path_factory.mktemp("search"), has_others=True)


@pytest.fixture(scope="module")
def without_others(tmp_path_factory: pytest.TempPathFactory) -> WebSite:
    return make(tmp_path_factory.mktemp("without"), has_others=False)


@pytest.fixture
def own_site(tmp_path: Path) -> WebSite:
    """A site that a test may change."""
    site = WebSite(tmp_path)
    site.store.add(message(0))
    return site


@pytest.fixture(autouse=True)
def has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the speed of the machine."""
    monkeypatch.setattr(hit_rows, "SECONDS", 3600.0)
    monkeypatch.setattr(archives, "GROUP_SECONDS", 3600.0)


CLIENTS: dict[tuple[Path, str], FlaskClient] = {}


def get(site: WebSite, url: str, user: str = "anna") -> Page:
    key = (site.store.directory, user)
    client = CLIENTS.get(key) or CLIENTS.setdefault(key, site.log_in(user))
    return page_of(client.get(url))


def page_of(answer: TestResponse) -> Page:
    parser = _Parser()
    parser.feed(answer.text)
    text = " ".join("".join(parser.parts).split())
    return Page(answer.status_code, answer.text, text, parser.links)


def count(page: Page) -> int:
    found = re.search(r"([0-9]+) messages? ", page.text)
    assert found, page.text
    return int(found[1])


def ids(page: Page) -> list[str]:
    return re.findall(rf"/message/{LEGAL}/([0-9a-f-]+)[?]", page.html)


def test_what_a_query_finds(site: WebSite) -> None:
    page = get(site, "/search?q=contract")
    assert page.status == 200
    assert count(page) == 75
    assert len(ids(page)) == search_page.PAGE_SIZE
    assert "please sign the <mark>Contract</mark> of day 49" in page.html
    assert "<mark>contract</mark> secretsubject" in page.html
    assert "Alice &lt;alice@d1.example&gt;" in page.html
    assert "1 attachment" in page.text


def test_each_link_finds_as_many_as_it_says(site: WebSite) -> None:
    page = get(site, "/search?q=contract")
    numbers = dict(
        re.findall(r'dir="auto">([^<]+)</a> <span class="soft">(\d+)', page.html)
    )
    numbers |= dict(re.findall(r'aria-label="([0-9-]+): (\d+)"', page.html))
    assert {"2026", "d0.example", "secret.example", "secrettype", "2026-02"} <= {
        *numbers
    }
    labels = {label.partition(": ")[0]: url for label, url in page.links.items()}
    for label, number in numbers.items():
        assert (label, count(get(site, labels[label]))) == (label, int(number))


@pytest.mark.parametrize("sort", ORDERS)
def test_pages_lead_forth_and_back(site: WebSite, sort: str) -> None:
    pages = [get(site, f"/search?q=contract&sort={sort}")]
    while "Next page" in pages[-1].links:
        pages.append(get(site, pages[-1].links["Next page"]))
    shown = [each for page in pages for each in ids(page)]
    assert len(shown) == len({*shown}) == 75
    assert "Previous page" not in pages[0].links
    for earlier, later in zip(pages[-2::-1], pages[:0:-1], strict=True):
        back = get(site, later.links["Previous page"])
        assert ids(back) == ids(earlier)
        assert ("Previous page" in back.links) == (earlier is not pages[0])


URLS = [
    "/search",
    *(
        f"/search?q={query}&sort={sort}"
        for query, sort in (
            ("*", "newest"),
            ("*", "oldest"),
            ("*", "smallest"),
            ("contract", "date"),
            ("secretword", "newest"),
            ("from:@secret.example", "newest"),
            ("rcpt:@blind.example", "newest"),
            ("bcc:eve*", "newest"),
            ("-rcpt:eve@blind.example hello", "newest"),
            ("sender:carol*", "newest"),
            ("date:2026-02", "newest"),
            ("file:x.secrettype OR type:secrettype", "newest"),
            ("outcome:failed", "newest"),
            ("-outcome:failed", "newest"),
            ("login:x", "newest"),
            ("contr(", "newest"),
        )
    ),
    f"/search?q=*&archive={LEGAL}",
    f"/search?q=*&archive={BOARD}",
    f"/search?q=*&after={LEGAL}/20260202-{'0' * 40}",
    f"/search?q=*&after={BOARD}/20260202-{'0' * 40}",
]


@pytest.mark.parametrize("url", URLS)
def test_mail_of_others_changes_nothing(
    site: WebSite, without_others: WebSite, url: str
) -> None:
    """No hit, number, bar, list, place or text of an error: all pages are the same."""
    urls = [url, url]
    while urls[0]:
        sites = (site, without_others)
        pages = [get(*each, "bob") for each in zip(sites, urls, strict=True)]
        shown = [ID.sub("ID", TOKEN.sub("", each.html)) for each in pages]
        assert shown[0] == shown[1]
        urls = [each.links.get("Next page", "") for each in pages]


def test_pages_of_an_auditor_differ(site: WebSite, without_others: WebSite) -> None:
    for query in ("*", "outcome:failed", "rcpt:@blind.example"):
        pages = [get(each, f"/search?q={query}") for each in (site, without_others)]
        assert count(pages[0]) > count(pages[1])


def test_other_archives_are_not_there(site: WebSite) -> None:
    page = get(site, f"/search?q=*&archive={BOARD}")
    assert page.status == 404
    assert f"there is no archive {BOARD} that you may read" in page.text


def test_admin_sees_no_mail(site: WebSite) -> None:
    assert get(site, "/search?q=*", "adam").status == 403


def test_the_form_writes_the_query(site: WebSite) -> None:
    url = "/search/compose?words=day+4&from=alice@d1.example&until=2026-02-20&archive="
    answer = site.log_in("anna").get(url)
    target = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert target == {
        "q": ['day 4 from:"alice@d1.example" date:[* TO 2026-02-20]'],
    }
    assert count(get(site, answer.headers["Location"])) == 1


@pytest.mark.parametrize(
    ("query", "before", "at"),
    [
        ("contract size:big", "contract size:", "b"),
        ("<script>alert(1)</script>(", None, None),
        ("nofield:x", "", "n"),
        ("a (", None, None),
    ],
)
def test_error_in_a_query(
    site: WebSite, query: str, before: str | None, at: str | None
) -> None:
    page = get(site, f"/search?{urlencode({'q': query})}")
    assert page.status == 400
    assert "<script" not in page.html
    found = re.search(
        r'dir="auto">([^<]*)<mark class="place">([^<]*)</mark>', page.html
    )
    assert found
    if before is not None:
        assert found.groups() == (before, at)
    assert f'value="{html.escape(query)}"' in page.html


def test_nothing_found(site: WebSite) -> None:
    page = get(site, "/search?q=xyzzy")
    assert count(page) == 0
    assert "Try fewer words" in page.text


def test_no_index(own_site: WebSite) -> None:
    page = get(own_site, "/search?q=contract")
    assert page.status == 503
    assert "has no index" in page.text
    assert 'value="contract"' in page.html


def test_index_that_lags(own_site: WebSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "LAG_BYTES", 0)
    own_site.index()
    own_site.store.add(message(1))
    page = get(own_site, "/search?q=contract")
    assert page.status == 200
    assert count(page) == 1
    assert "its index is being built" in page.text
    assert "not known which messages are held" in page.text


def test_store_that_is_away(own_site: WebSite) -> None:
    own_site.index()
    client = own_site.log_in("anna")
    own_site.store.path.rename(own_site.store.path.with_name("away"))
    page = page_of(client.get("/search?q=contract"))
    assert page.status == 503
    assert str(own_site.store.path) in page.text
    assert 'value="contract"' in page.html


def test_archive_that_is_away(own_site: WebSite) -> None:
    own_site.store.add(message(1), archive=BOARD)
    own_site.index()
    own_site.store.path.joinpath(BOARD).rename(own_site.store.directory / "away")
    page = get(own_site, "/search?q=contract", "otto")
    assert (page.status, count(page)) == (200, 1)
    assert f"{BOARD}: not searched" in page.text
    assert BOARD not in get(own_site, "/search?q=contract", "anna").html


def test_copy_that_is_away(own_site: WebSite) -> None:
    archive_id = own_site.store.add(message(1))
    own_site.index()
    own_site.store.copy_path(archive_id).unlink()
    page = get(own_site, "/search?q=contract")
    assert count(page) == 2
    assert "its copy is missing or damaged" in page.text
    archive_id = own_site.store.add(message(2))
    own_site.index()
    own_site.store.move(archive_id)
    page = get(own_site, "/search?q=contract")
    assert "kept in the object storage: open it to read it" in page.text
    assert "of day 0" in page.text


def test_no_time_for_text(site: WebSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hit_rows, "SECONDS", -1.0)
    page = get(site, "/search?q=contract")
    assert "The text of 20 messages is left out" in page.text


def test_no_time_to_count(site: WebSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "GROUP_SECONDS", 0.0)
    monkeypatch.setattr(index_groups, "STEPS", 1)
    page = get(site, "/search?q=contract")
    assert "counting them would take too long" in page.text
    assert len(ids(page)) == search_page.PAGE_SIZE


def test_more_than_are_counted(site: WebSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "COUNT_LIMIT", 30)
    monkeypatch.setattr(archives, "GROUP_LIMIT", 10)
    page = get(site, "/search?q=contract")
    assert "More than 30 messages" in page.text
    assert "count the newest 10 messages only" in page.text


def test_saved_searches(own_site: WebSite) -> None:
    own_site.index()
    anna, otto = own_site.log_in("anna"), own_site.log_in("otto")
    token = web_site.csrf_token(anna.get("/search").text)
    fields = {
        "csrf_token": token,
        "q": "contract",
        "sort": "oldest",
        "name": " My  one",
    }
    assert anna.post("/search/saved", data=fields).status_code == 302
    anna.post("/search/saved", data={**fields, "sort": "largest", "name": "My one"})
    links = page_of(anna.get("/search")).links
    assert links["My one"] == "/search?q=contract&sort=largest"
    assert "My one" not in otto.get("/search").text
    for name in ("", "x" * 101):
        answer = anna.post("/search/saved", data={**fields, "name": name})
        assert answer.status_code == 400
        assert "1 to 100 characters" in answer.text
    otto_token = web_site.csrf_token(otto.get("/search").text)
    delete = {"csrf_token": otto_token, "name": "My one"}
    otto.post("/search/saved/delete", data=delete)
    assert "My one" in anna.get("/search").text
    anna.post("/search/saved/delete", data={**fields, "name": "My one"})
    assert "My one" not in anna.get("/search").text


def test_reason(own_site: WebSite) -> None:
    own_site.index()
    with (own_site.store.directory / "archive.cf").open("a") as file:
        file.write("archive_require_reason = yes\n")
    anna = own_site.log_in("anna")
    target = anna.get("/search?q=contract").headers["Location"]
    assert target == "/reason?next=/search?q%3Dcontract"
    fields = {"csrf_token": web_site.csrf_token(anna.get(target).text)}
    answer = anna.post(target, data={**fields, "reason": "case 17"})
    assert answer.headers["Location"] == "/search?q=contract"
    page = page_of(anna.get("/search?q=contract"))
    assert count(page) == 1
    assert "Reason: case 17" in page.text
    assert "case 17" in own_site.store.run("history", "--json").output


def test_hold(own_site: WebSite) -> None:
    own_site.index()
    own_site.store.run(
        *("hold", "add", "Smith-v-Jones", "--query", "contract", "--reason", "x")
    )
    own_site.index()
    assert "held: Smith-v-Jones" in get(own_site, "/search?q=contract").text
    assert "Smith" not in get(own_site, "/search?q=contract", "bob").html
