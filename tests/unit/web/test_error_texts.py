"""What the packages below the page say, on a page in German."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from postfix_archive.web import error_texts
from postfix_archive.web.database import open_database
from postfix_archive.web.exports import export_jobs
from postfix_archive.web.exports.export_jobs import Order
from postfix_archive.web.visible import status

import web_error_texts
import web_site
from sample_store import LEGAL
from web_site import AUDITOR, WebSite

MAIL = b"From: alice@example.org\r\nSubject: contract\r\n\r\nthe contract\r\n"
ID = f"20260101-{'0' * 40}"
DECISIONS = "hold-add, hold-release, erase-request, erase-approve, replay"
GERMAN = {"Accept-Language": "de"}


class Site(WebSite):
    """A page over one message."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.archive_id = self.store.add(MAIL)
        self.index()

    def get(self, user: str, url: str, **query: str) -> str:
        """Return a page in German."""
        client = self.log_in(user)
        return client.get(url, query_string=query or None, headers=GERMAN).text


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    return WebSite(tmp_path_factory.mktemp("site")).app


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def own_site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def deciding(own_site: Site) -> Iterator[Site]:
    with web_site.access_service(own_site, f"archive_web_decisions = {DECISIONS}"):
        yield own_site


def test_each_text_is_recognised_with_its_values(app: Flask) -> None:
    """The catalogue has each of them: see test_translations."""
    with app.test_request_context("/?language=de"):
        templates = error_texts._templates("de")
        german = {"".join(_with_values(e.pieces, e.names)): e for e in templates}
        assert len(templates) == len(web_error_texts.error_texts()) > 200
        for english, template in german.items():
            values = {name: f"<{name}>" for name in template.names}
            assert error_texts.translated(english) == template.translation % values


def _with_values(pieces: list[str], names: list[str]) -> Iterator[str]:
    yield pieces[0]
    for name, piece in zip(names, pieces[1:], strict=True):
        yield f"<{name}>{piece}"


@pytest.mark.parametrize(
    ("english", "german"),
    [
        ("there is no hold a; there are none", "und auch keine andere"),
        ("there is no hold a; there are b", "sondern b"),
        ("there is no hold a; b; there are c", "keine Sperre a; b, sondern c"),
        # A text in a text, and two in one.
        ("a@b: not searched: /i: its end is missing", "nicht durchsucht: /i: its end"),
        ("a b: not searched: its end is missing", "nicht durchsucht: das Ende fehlt"),
        ("there is no archive in /s; it is missing", "kein Archiv in /s; er fehlt"),
        ("100 %s of %(name)s", "100 %s of %(name)s"),
        ("", ""),
        ("more than 5 words" * 1000, "more than 5 words" * 1000),
    ],
)
def test_values(app: Flask, english: str, german: str) -> None:
    with app.test_request_context("/?language=de"):
        assert german in error_texts.translated(english)
    with app.test_request_context("/?language=en"):
        assert error_texts.translated(english) == english


def test_a_text_of_a_stranger_takes_no_longer(app: Flask) -> None:
    """Each value is as short as can be: no place is tried twice."""
    with app.test_request_context("/?language=de"):
        text = ("; " * 1900)[:3900] + "there is no field"
        assert error_texts.translated(text) == text


@pytest.mark.parametrize(
    ("query", "german"),
    [
        ("(contract", "ein Wort oder eine Klammer fehlt"),
        ("colour:red", "es gibt kein Feld colour"),
        ("date:soon", "soon&#39; ist kein Datum; schreiben Sie 2026-03-31"),
        ("*x", "* ist nur am Ende eines Wortes möglich"),
        ("size:>much", "much&#39; ist keine Größe"),
        ('"contract', "ein Anführungszeichen ohne ein zweites"),
        ("contract~", "~ wird nicht unterstützt"),
        ("has:wings", "es gibt kein has:wings, sondern"),
    ],
)
def test_error_in_a_query(site: Site, query: str, german: str) -> None:
    page = site.get("anna", "/search", q=query)
    assert german in page and '<mark class="place">' in page


def test_condition_that_is_for_auditors(site: Site) -> None:
    page = site.get("bob", "/search", q="outcome:bounced")
    assert "outcome: ist für Prüfer" in page


@pytest.mark.parametrize(
    ("user", "url", "german"),
    [
        ("anna", f"/message/{LEGAL}/{ID}", f"es gibt keine Nachricht {ID}"),
        ("anna", "/search?q=x&archive=o@example.com", "kein Archiv o@example.com"),
        ("anna", "/holds", "diese Seite ist für Beauftragte"),
        ("anna", "/users", "diese Seite ist für Administratoren"),
        ("adam", "/search", "diese Seite ist für alle, die Mail lesen dürfen"),
        ("bob", "/status", "diese Seite ist für Administratoren, Prüfer"),
        ("anna", "/exports/none", "Sie haben keinen Export none"),
        ("otto", "/holds/none", "es gibt keine Sperre none in Ihren Archiven"),
        ("otto", f"/erasures/{LEGAL}/{ID}", "es gibt keinen offenen Antrag"),
    ],
)
def test_refusal(site: Site, user: str, url: str, german: str) -> None:
    assert german in site.get(user, url)


def test_part_that_is_not_there(site: Site) -> None:
    url = f"/message/{LEGAL}/{site.archive_id}/part/9"
    assert "die Nachricht hat keinen Teil 9; sie hat 1" in site.get("anna", url)


def test_no_index_and_one_that_lags(
    own_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postfix_archive.search.search.LAG_BYTES", -1)
    page = own_site.get("anna", "/search", q="contract")
    assert "sein Index wird gerade aufgebaut (100 %)" in page
    index = Path(own_site.store.settings.archive_index_directory)
    index.rename(index.with_name("away"))
    index.mkdir()
    page = own_site.get("anna", "/search", q="contract")
    assert f"{LEGAL} hat keinen Index" in page


def test_store_that_is_away(own_site: Site) -> None:
    own_site.store.path.rename(own_site.store.path.with_name("away"))
    page = own_site.get("anna", "/search", q="contract")
    assert "nicht durchsucht: es ist nicht in" in page and "eingehängt?" in page


def post(client: FlaskClient, url: str, **fields: str) -> str:
    client.get("/account?language=de")  # the choice stays
    return web_site.post(client, url, **fields).text


def test_hold_and_erase_that_the_service_refuses(deciding: Site) -> None:
    """Their texts come from another process."""
    otto = deciding.log_in("otto")
    hold = {"query": "contract", "name": "smith", "reason": "court order"}
    post(otto, "/holds", **hold)
    assert "eine Sperre smith, gesetzt von otto auf der Webseite" in post(
        otto, "/holds", **hold
    )
    page = post(otto, "/holds", **{**hold, "name": ".x"})
    assert "kann kein Name einer Sperre sein" in page
    erasure = {"archive": LEGAL, "id": deciding.archive_id, "reason": "Zoe asked"}
    assert "ist gesperrt durch smith" in post(otto, "/erasures", **erasure)
    post(otto, "/holds/smith/release", reason="settled")
    post(otto, "/erasures", **erasure)
    page = otto.get(f"/erasures/{LEGAL}/{deciding.archive_id}").text
    assert "ist dieselbe Person; eine andere muss es genehmigen" in page


def test_export_that_fails(own_site: Site) -> None:
    """The child process writes its problems in English; others may read them later."""
    order = Order("contract", (), (LEGAL,), "mbox", False, "")
    problem = f"there is no message {ID} for you to read"
    data = export_jobs._to_json(AUDITOR, order, (problem,))
    with open_database(own_site.web.database_path) as db:
        db.executemany(
            "INSERT INTO export_job VALUES (?, 'anna', 0, 'failed', 0, 0, ?)",
            [(f"{each:032x}", data) for each in range(export_jobs.KEPT_LIMIT)],
        )
    anna = own_site.log_in("anna")
    page = post(anna, "/exports", query="contract", format="mbox")
    assert "Sie haben 20 Exporte: entfernen Sie einen" in page
    assert f"es gibt keine Nachricht {ID}" in anna.get(f"/exports/{0:032x}").text


def test_the_interface_for_programs_stays_english(site: Site) -> None:
    answer = site.app.test_client().get("/api/v1/search?q=x", headers=GERMAN)
    assert "a request needs the header" in answer.text
    with site.app.test_request_context("/health", headers=GERMAN):
        assert status.PROBLEMS["old"] == "the numbers are old: the timer does not run"


def test_every_error_of_a_page_is_shown_in_its_language() -> None:
    """What templates show of errors, notices and problems goes through the filter."""
    shown = re.compile(r"\{\{ (?:error|problem|damage|one\.refusal|text) ?[|}][^}]*\}")
    directory = Path(error_texts.__file__).with_name("templates")
    for path in directory.glob("*.html"):
        if path.name in ("base.html", "search.html", "message.html", "work.html"):
            continue
        for each in shown.findall(path.read_text("utf-8")):
            assert "translated" in each, f"{path.name}: {each}"
