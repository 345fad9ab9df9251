"""Exports, holds, erasures and their log on a whole host, in a browser.

The page runs as a user of its own, who can write nothing of the archive.
"""

from __future__ import annotations

import csv
import hashlib
import pwd
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import web_host
from web_browser import Browser, Visit
from web_host import WebHost

pytestmark = pytest.mark.live


def visit_as(browser: Browser, host: WebHost, name: str) -> Visit:
    visit = browser.visit(host.url)
    visit.log_in(name)
    return visit


def digests(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a store but its access journals."""
    return {
        str(each): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in directory.rglob("*")
        if each.is_file() and "access" not in each.relative_to(directory).parts[1]
    }


def download(visit: Visit, click: Callable[[], None], path: Path) -> Path:
    with visit.page.expect_download() as found:
        click()
    found.value.save_as(path)
    return path


def test_export_runs_as_the_pages_user(
    host: WebHost, browser: Browser, tmp_path: Path
) -> None:
    before = digests(host.directory / "store")
    visit = visit_as(browser, host, "anna")
    visit.go("/exports?q=contract")
    visit.page.fill("#reason", "case 7")
    visit.page.click("main form.work button")
    # The script of the page shows the end of it without a click.
    visit.page.wait_for_selector("section[data-state=complete] a")
    path = download(
        visit, lambda: visit.page.click("text=messages.zip"), tmp_path / "x.zip"
    )
    with zipfile.ZipFile(path) as file:
        rows = csv.DictReader(file.read("manifest.csv").decode().splitlines())
        sha256 = {each["file"]: each["sha256"] for each in rows}
        for name in sha256:
            assert hashlib.sha256(file.read(name)).hexdigest() == sha256[name]
    assert sha256
    uid = pwd.getpwnam(web_host.WEB_USER).pw_uid
    exports = host.directory / "web" / "exports"
    assert {each.stat().st_uid for each in exports.rglob("*")} == {uid}
    assert digests(host.directory / "store") == before
    log = host.run_command("history", "--user", "anna").stdout
    assert "export" in log and "reason='case 7'" in log
    visit.close()


def test_from_hold_to_erasure(host: WebHost, browser: Browser) -> None:
    """Two officers; the access log names all that they did."""
    otto, olga = (visit_as(browser, host, name) for name in ("otto", "olga"))
    otto.go("/new-hold")
    otto.page.fill("#query", "subject:offer")
    otto.page.click("text=Show what it would cover")
    assert "1 message" in otto.page.inner_text("main")
    otto.page.fill("#name", "smith")
    otto.page.fill("#reason", "court order")
    otto.page.click("text=Set the hold")
    assert "1 message in your archives" in otto.page.inner_text("main")

    found = host.run_command("search", "--json", "subject:offer").stdout
    archive_id = found.partition('"id": "')[2].partition('"')[0]
    otto.go("/search?q=subject:offer")
    otto.page.click("ol.hits a")
    otto.page.click("text=Request erasure")
    path = otto.page.url
    otto.page.fill("#reason", "Zoe asked")
    otto.page.click("main button")
    assert "is held by smith" in otto.page.inner_text("main")

    olga.go("/holds/smith")
    olga.page.fill("#reason", "settled")
    olga.page.click("text=Release the hold")
    otto.go(path)
    otto.page.fill("#reason", "Zoe asked")
    otto.page.click("main button")
    otto.page.click(f"text={archive_id}")
    assert "You cannot approve this" in otto.page.inner_text("main")
    olga.go("/erasures")
    olga.page.click(f"text={archive_id}")
    olga.page.click("text=Erase the message for ever")
    assert "The message is erased" in olga.page.inner_text("main")

    assert archive_id not in host.run_command("list", "--json").stdout
    verified = host.run_command("verify")
    assert verified.returncode == 0, verified.stdout
    olga.go("/access-log")
    log = olga.page.inner_text("main table")
    for name in ("otto", "olga"):
        assert f"{name} on the web page" in log
    olga.page.click("text=Verify the chain of this log now")
    assert "The chain is whole" in olga.page.inner_text("main")
    otto.close()
    olga.close()
