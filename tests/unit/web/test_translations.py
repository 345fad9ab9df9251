"""The German catalogue has each text of the page, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from babel.messages.catalog import Catalog

import web_texts
from web_site import WebSite

PLACEHOLDER = re.compile(r"%\(\w+\)[sd]")


def ids(catalogue: Catalog) -> set[tuple[str, ...]]:
    return {tuple(web_texts.strings(each.id)) for each in catalogue if each.id}


def test_german_has_each_text_and_no_other() -> None:
    """Else run make translations, and translate what it names."""
    assert ids(web_texts.texts()) == ids(web_texts.read())


def test_each_text_is_translated_with_its_values() -> None:
    for each in web_texts.read():
        if not each.id:
            continue
        texts, german = web_texts.strings(each.id), web_texts.strings(each.string)
        assert all(german) and not each.fuzzy, each.id
        values = {value for text in texts for value in PLACEHOLDER.findall(text)}
        for text in german:
            assert {*PLACEHOLDER.findall(text)} == values, each.id


def test_a_page_in_german(tmp_path: Path) -> None:
    page = WebSite(tmp_path).log_in("anna").get("/account?language=de").text
    assert '<html lang="de">' in page and "Abmelden" in page
    assert 'hreflang="en"' in page
