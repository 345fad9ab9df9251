"""The page Status and /health: numbers of the user's archives, and of no others."""

from __future__ import annotations

import datetime
import json
import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from postfix_archive.status import collect, status_file
from postfix_archive.status.overview import Backlog, Snapshot
from postfix_archive.web.reports import chart

import web_site
from sample_store import LEGAL
from web_site import WebSite

BOARD = "board@example.com"


class Site(WebSite):
    """A page over two archives, with the numbers that the timer writes."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        arrival = int(datetime.datetime.now(datetime.UTC).timestamp())
        self.store.add(b"Subject: one\r\n\r\none\r\n", arrival=arrival)
        for number in range(2):
            text = b"Subject: %d\r\n\r\n" % number
            self.store.add(text, archive=BOARD, arrival=arrival)
        self.index()

    def write(self, **overrides: Any) -> None:
        """Write the numbers, with the queue as if Postfix had been asked."""
        settings = self.store.settings
        tallies, *_ = collect._tallies(settings)
        values: dict[str, Any] = {
            "directory": settings.config_directory,
            "version": "1",
            "backlogs": {e: Backlog() for e in ("queue", "fallback", "filter")},
            "on_hold": {},
            "tallies": tallies,
            "time": datetime.datetime.now().timestamp(),
        }
        status_file.save(settings, Snapshot(**values | overrides))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_numbers_of_ones_own_archives(site: Site) -> None:
    site.write(
        backlogs={"queue": Backlog(), "filter": Backlog(), "fallback": Backlog(3)}
    )
    page = site.log_in("anna").get("/status").text
    assert LEGAL in page and BOARD not in page
    assert re.findall(r'<th scope="row">\d{4}-\d\d</th><td>([1-9])</td>', page) == ["1"]
    assert "fallback directory</th>" not in page
    assert "for admins, and for auditors of every archive" in page


@pytest.mark.parametrize("name", ["adam", "otto"])
def test_numbers_of_all(site: Site, name: str) -> None:
    site.write(
        backlogs={"queue": Backlog(), "filter": Backlog(), "fallback": Backlog(3)}
    )
    page = site.log_in(name).get("/status").text
    assert LEGAL in page and BOARD in page
    assert re.findall(r'<th scope="row">\d{4}-\d\d</th><td>([1-9])</td>', page) == ["3"]
    assert "fallback directory</th><td>3" in page
    assert "up to date" in page


def test_own_mail_has_no_status(site: Site) -> None:
    answer = site.log_in("bob").get("/status")
    assert answer.status_code == 403 and LEGAL not in answer.text


def test_what_is_not_known_is_said(site: Site) -> None:
    page = site.log_in("otto").get("/status").text
    assert "There are no numbers yet" in page and "not known" in page
    site.write(time=1.0)
    assert "These numbers are old" in site.log_in("otto").get("/status").text
    path = Path(site.store.settings.archive_index_directory, status_file.FILE_NAME)
    path.write_text("[]")
    assert "cannot be read" in site.log_in("otto").get("/status").text


def test_status_file_is_for_the_group(site: Site) -> None:
    site.write()
    path = Path(site.store.settings.archive_index_directory, status_file.FILE_NAME)
    assert path.stat().st_mode & 0o777 == 0o640
    [day] = json.loads(path.read_text())["archives"][0]["days"].values()
    assert day[0] in (1, 2) and day[1] > 0


def test_health_without_login(site: Site) -> None:
    client = site.app.test_client()
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.text.startswith("warning\nthere are no numbers yet")
    site.write()
    answer = client.get("/health")
    assert (answer.status_code, answer.text) == (200, "ok\n")
    site.write(on_hold={"4Zx": "2026-11-22T11:53:00Z"}, store_errors={LEGAL: LEGAL})
    answer = client.get("/health")
    assert answer.status_code == 503
    assert "mail is on hold" in answer.text and "damaged or lost" in answer.text
    assert "@" not in answer.text and "4Zx" not in answer.text
    os.rename(site.store.path, site.store.path.with_name("away"))
    answer = client.get("/health")
    assert answer.status_code == 503 and str(site.store.path) not in answer.text


def test_health_knows_the_access_service(site: Site) -> None:
    site.write()
    with web_site.access_service(site):
        assert site.app.test_client().get("/health").text == "ok\n"
    answer = site.app.test_client().get("/health")
    assert "the access service does not run" in answer.text


def test_chart_is_small_and_well_formed() -> None:
    values = [0, 1, 10**9, *range(362)]
    text = str(chart.bars(values, '"<&'))
    path = ElementTree.fromstring(text)[0].get("d", "")
    assert path.startswith("M2 100v-1h2V100zM4 100v-100h2V100z")
    assert path.count("M") == sum(each > 0 for each in values)
    assert len(text) < 10_000
    assert "style" not in text
    assert 'd=""' in str(chart.bars([0] * 365, ""))
