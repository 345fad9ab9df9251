"""The language of a page: who chooses it, and how it writes times and numbers."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from babel import dates, numbers
from flask import Flask

from postfix_archive.web import language

from web_site import WebSite

MOMENT = 1_764_428_709.7  # 2025-11-29T15:05:09Z


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    return WebSite(tmp_path_factory.mktemp("site")).app


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dates, "LOCALTZ", datetime.UTC)


@pytest.mark.parametrize(
    ("accepted", "url", "expected"),
    [
        ("", "/login", "en"),
        ("fr", "/login", "en"),
        ("de-AT,en;q=0.5", "/login", "de"),
        ("de", "/login?language=en", "en"),
        ("de", "/login?language=xx", "de"),
        ("de", "/no-such-page", "de"),
    ],
)
def test_language_of_a_page(app: Flask, accepted: str, url: str, expected: str) -> None:
    answer = app.test_client().get(url, headers={"Accept-Language": accepted})
    assert f'<html lang="{expected}">' in answer.text


def test_chosen_language_stays(app: Flask) -> None:
    client = app.test_client()
    client.get("/login?language=de")
    assert '<html lang="de">' in client.get("/login").text


def test_other_language_keeps_the_page(app: Flask) -> None:
    page = app.test_client().get("/login?next=/account&next=/x").text
    assert 'href="/login?next=/account&amp;next=/x&amp;language=de"' in page


@pytest.mark.parametrize(
    ("filter_", "value", "english", "german"),
    [
        ("number", 1234567, "1,234,567", "1.234.567"),
        ("size", 0, "0 B", "0 B"),
        ("size", 999, "999 B", "999 B"),
        ("size", 1_234, "1.2 kB", "1,2 kB"),
        ("size", 12_345_678, "12 MB", "12 MB"),
        ("size", 5e15, "5,000 TB", "5.000 TB"),
        ("day", MOMENT, "29 Nov 2025", "29.11.2025"),
        ("day", "2025-11-29", "29 Nov 2025", "29.11.2025"),
        ("day", datetime.date(2025, 11, 29), "29 Nov 2025", "29.11.2025"),
        ("day", None, "", ""),
        ("day", "always", "always", "always"),
        ("day", "not-a-date", "not-a-date", "not-a-date"),
        ("time", None, "", ""),
        ("time", "", "", ""),
        ("time", "<b>", "&lt;b&gt;", "&lt;b&gt;"),
        ("time", 1e20, "1e+20", "1e+20"),
    ],
)
def test_filters(
    app: Flask, filter_: str, value: object, english: str, german: str
) -> None:
    template = app.jinja_env.from_string("{{ value|" + filter_ + "|forceescape }}")
    for code, expected in (("en", english), ("de", german)):
        with app.test_request_context(f"/?language={code}"):
            assert template.render(value=value).replace("\N{NBSP}", " ") == expected


@pytest.mark.parametrize(
    "value",
    [MOMENT, "2025-11-29T16:05:09+01:00", datetime.datetime.fromtimestamp(MOMENT)],
)
def test_time_has_the_moment_in_utc(app: Flask, value: object) -> None:
    template = app.jinja_env.from_string("{{ value|time }}")
    with app.test_request_context("/?language=de"):
        assert template.render(value=value) == (
            '<time datetime="2025-11-29T15:05:09Z" title="2025-11-29T15:05:09Z">'
            "29.11.2025, 15:05:09</time>"
        )


@pytest.mark.parametrize("value", [0, 7, 999, 1000, -4321, 10**13, 1.5, 9.0, 1234.5])
def test_numbers_are_those_of_babel(app: Flask, value: float) -> None:
    for code, locale in language.LOCALES.items():
        with app.test_request_context(f"/?language={code}"):
            expected = numbers.format_decimal(value, locale=locale)
            assert language.number(value) == expected


def test_every_catalogue_is_read() -> None:
    codes = {each.parent.parent.name for each in Path(language.DIRECTORY).rglob("*.po")}
    assert codes <= {*language.LANGUAGES}
