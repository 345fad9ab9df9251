"""The page of a whole host, and a browser, for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import web_browser
import web_mails
from web_browser import Browser
from web_host import WebHost


@pytest.fixture(scope="module")
def host() -> Iterator[WebHost]:
    with WebHost(web_mails.fill) as instance:
        yield instance


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as instance:
        yield instance


@pytest.fixture(scope="session")
def axe(pytestconfig: pytest.Config) -> str:
    assert pytestconfig.cache
    return web_browser.axe_source(Path(pytestconfig.cache.mkdir("corpora")))
