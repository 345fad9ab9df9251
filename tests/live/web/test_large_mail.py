"""Large and hostile mail on a running page: bounded memory, and files stay in place."""

from __future__ import annotations

import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_archive.search.extraction_limits import MESSAGE_LIMIT

from sample_store import SampleStore
from web_browser import Browser
from web_host import WebHost

pytestmark = pytest.mark.live
MEGABYTE = 1 << 20
SIZE = 50 * MEGABYTE
MEMORY_LIMIT = 250 * 1024  # kB that the server keeps
PEAK_LIMIT = 250 * 1024  # kB that it has had while it reads one message
OUTSIDE = "../../../outside"
HEADER = """From: {0} <a@example.org>
To: bob@example.net
Message-ID: <{0}@example.org>
Subject: {1} {0}
MIME-Version: 1.0
"""


def header(subject: str, content_type: str) -> bytes:
    text = HEADER.format(OUTSIDE, subject) + f"Content-Type: {content_type}\n"
    return text.replace("\n", "\r\n").encode()


def with_attachment() -> bytes:
    """Return a message with an attachment of 50 MB, named after a path."""
    text = b"--b\r\n\r\nThe first lines.\r\n--b\r\nContent-Disposition: attachment;"
    text += b' filename="%s"\r\n' % OUTSIDE.encode()
    lines = (b"QUFB" * 19 + b"\r\n") * (SIZE // 78)
    encoding = b"Content-Transfer-Encoding: base64\r\n\r\n"
    start = header("attachment", "multipart/mixed; boundary=b")
    return start + b"\r\n" + text + encoding + lines + b"--b--\r\n"


def base64() -> bytes:
    """Return a message with 50 MB of text, of which one digit of four is the last read.

    Decoders refuse that, or want a copy of it.
    """
    start = header("base64", "text/plain")
    start += b"Content-Transfer-Encoding: base64\r\n\r\n"
    lines = b"VGhl" + b"IGZpcnN0" * 9 + b"\r\n"  # The first first …
    filling = b"x" * ((MESSAGE_LIMIT - len(start) - 5) % len(lines))
    start = b"X: %s\r\n" % filling + start
    assert (MESSAGE_LIMIT + 1 - len(start)) % len(lines) == 1
    return start + lines * (SIZE // len(lines))


def html() -> bytes:
    """Return a message with 50 MB of HTML."""
    line = b"<p>The first <b>lines</b>.</p>\r\n"
    return header("html", "text/html") + b"\r\n" + line * (SIZE // len(line))


def parts() -> bytes:
    """Return a message with 10,000 parts."""
    start = header("parts", "multipart/mixed; boundary=b")
    return start + b"\r\n" + b"--b\r\n\r\nThe first lines.\r\n" * 10_000 + b"--b--\r\n"


MESSAGES = (with_attachment, base64, html, parts)


def fill(store: SampleStore) -> None:
    for each in MESSAGES:
        store.add(each())


@pytest.fixture(scope="module")
def host() -> Iterator[WebHost]:
    with WebHost(fill) as instance:
        yield instance


def check_memory(host: WebHost) -> None:
    now, peak = host.memory()
    assert now < MEMORY_LIMIT and peak < PEAK_LIMIT


@pytest.mark.parametrize(
    ("subject", "limit"),
    [
        ("attachment", "32 MB"),
        ("base64", "32 MB"),
        ("html", "32 MB"),
        ("parts", "2000"),
    ],
)
def test_message_opens_in_bounded_memory(
    host: WebHost, browser: Browser, subject: str, limit: str
) -> None:
    """Its beginning is shown, and the page says what is not."""
    visit = browser.visit(host.url)
    visit.log_in("anna")
    visit.go(f"/search?q=subject:{subject}")
    visit.page.click("ol.hits a")
    visit.page.wait_for_selector("h2:has-text('Integrity')")
    notices = " ".join(visit.page.locator("main .notice").all_inner_texts())
    assert "Not shown completely" in notices and limit in notices
    assert "The first" in visit.page.inner_text("pre.text")
    visit.close()
    check_memory(host)


def test_export_unpacks_nowhere_else(
    host: WebHost, browser: Browser, tmp_path: Path
) -> None:
    """Whatever header fields and attachments say; and it is complete."""
    visit = browser.visit(host.url)
    visit.log_in("anna")
    visit.go("/exports?q=*")
    visit.page.click("form.work button.main")
    with visit.page.expect_download() as download:
        visit.page.click("text=messages.zip")
    path = tmp_path / "messages.zip"
    download.value.save_as(path)
    visit.close()
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        contents = {archive.read(e) for e in names if e.endswith(".eml")}
        assert not [e.filename for e in archive.infolist() if e.external_attr >> 28 & 2]
    assert contents == {each() for each in MESSAGES}
    assert all(
        re.fullmatch(r"[\w@-][\w@.-]*(/[\w@-][\w@.-]*)*", each) for each in names
    )
    place = tmp_path / "a" / "b" / "c" / "d"
    place.mkdir(parents=True)
    subprocess.run(["unzip", "-q", str(path), "-d", str(place)], check=True)
    found = {e for e in tmp_path.rglob("*") if e.is_file() and e != path}
    assert found == {place / each for each in names}
    check_memory(host)
