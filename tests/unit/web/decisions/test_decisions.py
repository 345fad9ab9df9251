"""Holds, erasures and replays on the web page, carried out by the access service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from postfix_archive.access import access_journal
from postfix_archive.retention import erasure, holds
from postfix_archive.web.database import open_database
from postfix_archive.web.login import local_users
from postfix_archive.web.user import Grant, Role, User

import web_site
from sample_store import LEGAL
from web_site import WebSite

BOARD = "board@example.com"
CONTRACT = b"From: alice@example.org\r\nSubject: contract\r\n\r\nthe contract\r\n"
ALL = "hold-add, hold-release, erase-request, erase-approve, erase-withdraw, replay"
LENA = User("lena", "local", frozenset({Grant(Role.OFFICER, LEGAL)}))
NEWS = User("nora", "local", frozenset({Grant(Role.OFFICER, "news@example.com")}))


class Site(WebSite):
    """A page over a message in each of two archives."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.legal = self.store.add(CONTRACT)
        self.board = self.store.add(CONTRACT, archive=BOARD)
        self.index()
        with open_database(self.web.database_path) as db:
            local_users.add(db, LENA, web_site.PASSWORD)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    with web_site.access_service(made, f"archive_web_decisions = {ALL}"):
        yield made


def events(site: Site, user: str) -> list[tuple[str, str]]:
    """Return action and query of what a user has read or decided."""
    entries = access_journal.entries(str(site.store.path), LEGAL)
    return [(e.action, e.query) for e in entries if e.user.web_user == user]


def hits(client: FlaskClient, query: str) -> str:
    return client.get("/new-hold", query_string={"query": query}).text


def test_from_hold_to_erasure(site: Site) -> None:
    """Held: not erased. Released and approved by another person: gone."""
    otto, olga = site.log_in("otto"), site.log_in("olga")
    one, url = f"{LEGAL}/{site.legal}", f"/erasures/{LEGAL}/{site.legal}"
    page = otto.get("/new-hold?query=contract").text
    assert "2 messages" in page and "contract</a>" in page
    fields = {"query": "contract", "name": "smith", "reason": "court order"}
    answer = web_site.post(otto, "/holds", **fields)
    assert answer.headers["Location"] == "/holds/smith"
    assert "2 messages in your archives" in otto.get("/holds/smith").text

    request = {"archive": LEGAL, "id": site.legal, "reason": "Zoe asked"}
    answer = web_site.post(otto, "/erasures", **request)
    assert answer.status_code == 409 and "held by smith" in answer.text
    web_site.post(olga, "/holds/smith/release", reason="settled")
    assert not any(each.is_open for each in holds.read(site.store.settings))

    assert web_site.post(otto, "/erasures", **request).status_code == 302
    page = otto.get(url).text
    assert "You cannot approve this" in page and "the same person" in page
    answer = web_site.post(otto, f"{url}/approve")
    assert answer.status_code == 409 and "the same person" in answer.text
    assert "contract</a>" in olga.get(url).text
    assert web_site.post(olga, f"{url}/approve").status_code == 302
    assert not list((site.store.path / LEGAL).rglob(f"{site.legal}*"))
    assert "1 message<" in hits(olga, "contract")
    assert otto.get(url).status_code == 404
    assert f"ids={one}" not in otto.get("/erasures").text

    actions = {e[0] for e in events(site, "otto")}
    assert {"hold", "erase"} <= actions
    assert ("erase", site.legal) in events(site, "olga")


def test_request_is_withdrawn(site: Site) -> None:
    otto = site.log_in("otto")
    fields = {"archive": LEGAL, "id": site.legal}
    assert web_site.post(otto, "/erasures", **fields).status_code == 400
    web_site.post(otto, "/erasures", **fields, reason="x")
    assert site.legal in otto.get("/erasures").text
    web_site.post(otto, f"/erasures/{LEGAL}/{site.legal}/withdraw")
    assert erasure.read(site.store.settings) == []


def test_hold_of_chosen_messages(site: Site) -> None:
    otto = site.log_in("otto")
    ids = [f"{LEGAL}/{site.legal}"]
    assert "1 message<" in web_site.post(otto, "/new-hold", ids=ids).text
    answer = web_site.post(otto, "/holds", ids=ids, name="one", reason="x")
    assert answer.status_code == 302
    [hold] = holds.read(site.store.settings)
    assert (hold.ids, hold.query) == ({LEGAL: (site.legal,)}, "")
    assert hold.user.web_user == "otto"


def test_officer_of_one_archive(site: Site) -> None:
    """What is in other archives too is not released, and not shown."""
    otto, lena = site.log_in("otto"), site.log_in("lena")
    web_site.post(otto, "/holds", query="contract", name="both", reason="x")
    web_site.post(
        otto, "/holds", query="contract", archive=BOARD, name="other", reason="x"
    )
    page = lena.get("/holds").text
    assert "both" in page and "other" not in page
    assert "1 message in your archives" in lena.get("/holds/both").text
    assert lena.get("/holds/other").status_code == 404
    for name in ("both", "other"):
        answer = web_site.post(lena, f"/holds/{name}/release", reason="x")
        assert answer.status_code in (403, 404)
    assert all(each.is_open for each in holds.read(site.store.settings))
    web_site.post(lena, "/holds", query="contract", name="hers", reason="x")
    hold = holds.find(site.store.settings, "hers")
    assert hold.archives == (LEGAL,)
    for fields in (
        {"query": "contract", "archive": BOARD, "name": "n", "reason": "x"},
        {"ids": [f"{BOARD}/{site.board}"], "name": "n", "reason": "x"},
    ):
        assert web_site.post(lena, "/holds", **fields).status_code == 403
    fields = {"archive": BOARD, "id": site.board, "reason": "x"}
    assert web_site.post(lena, "/erasures", **fields).status_code == 403
    assert ("refused", f"decision about {BOARD}") in events(site, "lena")


@pytest.mark.parametrize("name", ["anna", "bob", "adam"])
def test_only_officers_decide(site: Site, name: str) -> None:
    client = site.log_in(name)
    for url in ("/holds", "/new-hold", "/holds/x", "/erasures"):
        assert client.get(url).status_code == 403
    for url in ("/holds", "/holds/x/release", "/erasures"):
        assert (
            web_site.post(client, url, query="*", name="x", reason="x").status_code
            == 403
        )
    assert holds.read(site.store.settings) == []
    assert ("refused", "GET /holds") in events(site, name)


def test_decisions_begin_at_hits_and_messages(site: Site) -> None:
    otto, anna = site.log_in("otto"), site.log_in("anna")
    page = otto.get("/search?q=contract").text
    assert 'formaction="/new-hold"' in page
    assert 'formaction="/new-hold"' not in anna.get("/search?q=contract").text
    answer = web_site.post(otto, "/new-hold", query="contract", only="selected")
    assert answer.status_code == 400 and "Select at least one" in answer.text
    url = f"/message/{LEGAL}/{site.legal}"
    links = re.findall(
        r'href="(/(?:erasures|new-hold|replay|exports)[^"]+)"', otto.get(url).text
    )
    assert len(links) == 4
    for each in links:
        assert otto.get(each).status_code == 200, each
    assert "/erasures/new" not in anna.get(url).text


def test_hold_may_have_any_name(site: Site) -> None:
    """Also one that is a word of our URLs."""
    otto = site.log_in("otto")
    web_site.post(otto, "/holds", query="contract", name="new", reason="x")
    assert "Hold new" in otto.get("/holds/new").text


def test_bad_input_of_holds(site: Site) -> None:
    otto = site.log_in("otto")
    for fields, text in (
        ({"query": "from:(", "name": "n", "reason": "x"}, "from:("),
        ({"query": "contract", "name": "n"}, "Give a reason"),
        ({"query": "contract", "name": "../x", "reason": "x"}, "cannot be the name"),
    ):
        answer = web_site.post(otto, "/holds", **fields)
        assert answer.status_code == 400 and text in answer.text
        assert f'value="{fields["name"]}"' in answer.text or "from:(" in answer.text
    web_site.post(otto, "/holds", query="contract", name="n", reason="x")
    answer = web_site.post(otto, "/holds", query="contract", name="n", reason="x")
    assert "there is a hold n since" in answer.text


def test_approval_at_the_host_only(tmp_path: Path) -> None:
    """By default the page approves no erasure, and says where to do it."""
    site = Site(tmp_path)
    with web_site.access_service(site):
        otto, olga = site.log_in("otto"), site.log_in("olga")
        fields = {"archive": LEGAL, "id": site.legal, "reason": "x"}
        web_site.post(otto, "/erasures", **fields)
        url = f"/erasures/{LEGAL}/{site.legal}"
        page = olga.get(url).text
        assert f"postfix-archive erase approve {site.legal}" in page
        assert "Erase the message for ever" not in page
        answer = web_site.post(olga, f"{url}/approve")
        assert answer.status_code == 403
        assert "archive_web_decisions" in answer.text


def test_access_service_that_does_not_run(tmp_path: Path) -> None:
    site = Site(tmp_path)
    answer = web_site.post(
        site.log_in("otto"), "/holds", query="contract", name="n", reason="x"
    )
    assert answer.status_code == 400
    assert "hold-add was not carried out" in answer.text


def test_replay_is_to_allowed_addresses_only(site: Site) -> None:
    anna, url = site.log_in("anna"), f"/replay/{LEGAL}/{site.legal}"
    assert "No address is allowed" in anna.get(url).text
    answer = web_site.post(anna, url, to="eve@example.org", reason="x")
    assert "does not have eve@example.org" in answer.text
    for name, address in (("bob", LEGAL), ("adam", LEGAL), ("anna", BOARD)):
        url = f"/replay/{address}/{site.board}"
        answer = web_site.post(site.log_in(name), url, to="x@example.org", reason="x")
        assert answer.status_code == 403


def test_hold_of_all_archives_is_released_by_an_officer_of_all(site: Site) -> None:
    """It covers what comes to archives that are not in the store yet."""
    otto, lena = site.log_in("otto"), site.log_in("lena")
    with open_database(site.web.database_path) as db:
        local_users.add(db, NEWS, web_site.PASSWORD)
    fields = {"query": "contract", "name": "all", "reason": "court order"}
    web_site.post(otto, "/holds", **fields)
    assert "all" in lena.get("/holds").text
    answer = web_site.post(lena, "/holds/all/release", reason="settled")
    assert answer.status_code == 403
    assert holds.find(site.store.settings, "all").is_open
    # An officer of none of the archives in the store holds nothing of others.
    answer = web_site.post(site.log_in("nora"), "/holds", **fields | {"name": "x"})
    assert answer.status_code in (400, 403)
    assert [each.name for each in holds.read(site.store.settings)] == ["all"]


def test_name_of_a_hold_elsewhere_tells_nothing(site: Site) -> None:
    fields = {"query": "contract", "name": "smith", "archive": BOARD, "reason": "a"}
    web_site.post(site.log_in("otto"), "/holds", **fields)
    answer = web_site.post(site.log_in("lena"), "/holds", **fields | {"archive": LEGAL})
    assert "the name smith is taken" in answer.text and "otto" not in answer.text
