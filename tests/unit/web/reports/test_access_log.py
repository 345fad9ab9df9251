"""The access log on the web page: newest first, in bounded time, for officers."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from postfix_archive.access import access_journal
from postfix_archive.access.access_entry import Entry, User
from postfix_archive.web.visible import access

import web_site
from sample_store import LEGAL
from web_site import WebSite

FORMULA = "=cmd|' /C calc'!A0"


class Site(WebSite):
    """A page over a message that some people have read."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.one = self.store.add(b"Subject: one\r\n\r\none\r\n")
        self.index()
        for number in range(7):
            self.read("eve", f"number {number}")
        self.read("mallory", FORMULA)

    def read(self, web_user: str, query: str) -> None:
        """Record that somebody has read the message."""
        who = User("archive-web", 999, web_user=web_user)
        entry = Entry(who, "search", query, "<b>reason</b>", ())
        access_journal.append(str(self.store.path), {LEGAL: [self.one]}, entry)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def numbers(page: str) -> list[int]:
    return [int(each) for each in re.findall(r"number (\d)", page)]


def test_newest_first_and_recorded_before(site: Site) -> None:
    client = site.log_in("otto")
    page = client.get("/access-log").text
    assert "otto on the web page" in page and "access-log" in page
    assert page.index(">access-log<") < page.index("mallory") < page.index("eve")
    assert numbers(page) == [6, 5, 4, 3, 2, 1, 0]
    assert "<b>reason" not in page and "&lt;b&gt;reason" in page


def test_pages_follow_each_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PAGE_SIZE", 3)
    client = site.log_in("otto")
    url, seen = "/access-log?user=eve", []
    for _ in range(3):
        page = client.get(url).text
        seen += numbers(page)
        found = re.search(r'<a href="([^"]+)">Older entries', page)
        url = found[1].replace("&amp;", "&") if found else ""
    assert seen == [6, 5, 4, 3, 2, 1, 0]


def test_long_log_is_not_read_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "SCAN_LIMIT", 3)
    page = site.log_in("otto").get("/access-log?user=nobody").text
    assert "Not the whole log was searched" in page and "Older entries" in page


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("user=eve", 7),
        ("user=mallory&action=search", 1),
        ("user=eve&action=export", 0),
        ("user=eve&id=2026", 7),
        ("user=eve&id=1999", 0),
        ("user=eve&since=2026-01-01&until=2199-12-31", 7),
        ("user=eve&since=2199-01-01", 0),
        ("user=eve&until=2001-01-01", 0),
    ],
)
def test_filter(site: Site, query: str, count: int) -> None:
    text = site.log_in("otto").get(f"/access-log.csv?{query}").text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == count
    assert all(each["archive"] == LEGAL for each in rows)


def test_cells_are_no_formulas(site: Site) -> None:
    text = site.log_in("otto").get("/access-log.csv?user=mallory").text
    [row] = csv.DictReader(io.StringIO(text))
    assert row["query"] == f"'{FORMULA}"


@pytest.mark.parametrize("query", ["since=x", "until=2026-13-01"])
def test_bad_input(site: Site, query: str) -> None:
    answer = site.log_in("otto").get(f"/access-log?{query}")
    assert answer.status_code == 400 and "A day is written as" in answer.text


@pytest.mark.parametrize("name", ["anna", "bob", "adam"])
def test_only_officers_see_it(site: Site, name: str) -> None:
    client = site.log_in(name)
    for url in ("/access-log", "/access-log.csv"):
        answer = client.get(url)
        assert answer.status_code == 403 and "eve" not in answer.text
    assert web_site.post(client, "/access-log/verify").status_code == 403


def test_other_archives(site: Site) -> None:
    answer = site.log_in("otto").get("/access-log?archive=board@example.com")
    assert answer.status_code == 403


def test_verdict_of_the_chain(tmp_path: Path) -> None:
    site = Site(tmp_path)
    client = site.log_in("otto")
    assert "The chain is whole" in web_site.post(client, "/access-log/verify").text
    [segment] = (site.store.path / LEGAL / "access").glob("????-??")
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b"number 3", b"number 9"))
    page = web_site.post(client, "/access-log/verify").text
    assert "broken or damaged" in page and "details" in page, page


def test_who_has_read_is_named_in_the_readers_language(site: Site) -> None:
    page = site.log_in("otto").get("/access-log?language=de").text
    assert "eve auf der Webseite" in page and "on the web page" not in page
