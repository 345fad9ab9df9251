"""The page of a message: what it shows to whom, and what it never shows."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.http import parse_options_header
from werkzeug.test import TestResponse

from postfix_archive.access import access_journal, access_service
from postfix_archive.errors import CopyUnreachable
from postfix_archive.store import copy_file
from postfix_archive.store.outcome import DELIVERED, Outcome
from postfix_archive.web.message import safe_images

import active_content
import web_site
from sample_store import LEGAL
from web_site import WebSite

PAYLOADS = Path(__file__).with_name("xss_payloads.txt").read_text().splitlines()
CAROL = b"carol@example.net"
FOR_AUDITORS = (b"carol", b"Envelope", b"Timeline", b"queue id", b"Held by", b"chain")
PARTS = ("", "/inside/4", "/print", "/thread", "/source", "/original.eml", "/part/1")
VIEWS = ("/part/2/html", "/part/3/image", "/part/1/text", "/copy.eml", "/report.eml")


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(file, "PNG")
    return file.getvalue()


def mail(*parts: bytes, header: bytes = b"") -> bytes:
    return (
        b"From: alice@example.org\r\nTo: bob@example.net\r\nMessage-ID: <one@example>"
        b"\r\n%sContent-Type: multipart/mixed; boundary=b\r\n\r\n" % header
        + b"".join(b"--b\r\n%s\r\n" % each for each in parts)
        + b"--b--\r\n"
    )


TEXT = b"Content-Type: text/plain\r\n\r\nhello <b>you</b>"
HTML = b'Content-Type: text/html\r\n\r\n<p>hi<img src="cid:pic"><script>x</script>'
PNG = (
    b'Content-Type: image/png; name="../../etc/a\xe2\x80\xaegnp.exe"\r\n'
    b"Content-ID: <pic>\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + base64.b64encode(png())
)
NESTED = (
    b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n"
    b"Content-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\ninner text\r\n--i\r\n"
    b"Content-Type: message/rfc822\r\n\r\nSubject: innermost\r\n\r\ndeep text\r\n"
    b"--i--\r\n"
)
MAIL = mail(
    *(TEXT, HTML, PNG, NESTED),
    header=b"Subject: Re: contract\r\nReferences: <root@example>\r\n"
    b"Bcc: carol@example.net\r\nX-Loop: carol@example.net\r\n"
    b"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s1; b=abc\r\n",
)


class Page:
    """A site with a message for Bob and, blind, Carol; one not his; and an answer."""

    def __init__(self, directory: Path) -> None:
        self.site = WebSite(directory)
        store = self.site.store
        self.id = store.add(MAIL, recipients=(b"bob@example.net", CAROL))
        self.other = store.add(
            b"Subject: contract\r\nMessage-ID: <root@example>\r\n\r\nroot\r\n",
            recipients=(CAROL,),
        )
        self.answer = store.add(
            b"Subject: AW: contract\r\nIn-Reply-To: <one@example>\r\n\r\nanswer\r\n"
        )
        outcome = Outcome(
            "carol@example.net",
            DELIVERED,
            "4Z0000000001",
            "4Zdelivered",
            "2026-11-22T11:53:05Z",
            status="2.0.0",
            remote="mx.example.net[192.0.2.1]:25",
        )
        store.add_outcome(self.id, outcome)
        self.site.index()
        self.clients: dict[str, FlaskClient] = {}

    def get(self, path: str = "", user: str = "anna", id_: str = "") -> TestResponse:
        if user not in self.clients:
            self.clients[user] = self.site.log_in(user)
        url = f"/message/{LEGAL}/{id_ or self.id}{path}"
        return self.clients[user].get(url)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def damaged_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(tmp_path_factory.mktemp("damaged"))


def test_auditor_sees_envelope_and_proof(page: Page) -> None:
    text = page.get().text
    for each in (
        "<strong>Bcc</strong>",
        "mx.example.net[192.0.2.1]:25",
        "4Zdelivered",
        "Checked now: journal lines, files and original",
        hashlib.sha256(MAIL).hexdigest(),
        "segment 2026-11, line",
        "d=example.org, s=s1",
        "no result of this host",
        "hello &lt;b&gt;you&lt;/b&gt;",
    ):
        assert each in text, each
    assert active_content.problems(text, is_page=True) == []
    assert page.get("/print").text.index("Envelope") < text.index("hello")


def test_own_mail_shows_nothing_of_others(page: Page) -> None:
    for path in (*PARTS, *VIEWS):
        content = page.get(path, "bob").data
        assert not [each for each in FOR_AUDITORS if each in content], path
    assert "Checked now: the original" in page.get("", "bob").text
    assert page.get("/copy.eml", "bob").status_code == 403
    assert page.get("/report.eml", "bob").status_code == 403


@pytest.mark.parametrize("user", ["bob", "adam"])
@pytest.mark.parametrize("path", [*PARTS, *VIEWS])
def test_mail_of_others_is_not_found(page: Page, path: str, user: str) -> None:
    missing = page.other[:-1] + ("0" if page.other[-1] != "0" else "1")
    answers = [page.get(path, user, each) for each in (page.other, missing)]
    assert [each.status_code for each in answers] == [404, 404]
    texts = [
        each.text.partition("<main")[2].partition("</main")[0].replace(id_, "")
        for each, id_ in zip(answers, (page.other, missing), strict=True)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "path",
    [
        f"/message/{LEGAL}/../../../etc/passwd",
        f"/message/{LEGAL}/..%2f..%2fjournal",
        f"/message/..%2f{LEGAL}/ID",
        "/message/%2e%2e/ID",
        f"/message/{LEGAL}/ID%00",
        f"/message/{LEGAL}/*",
        f"/message/{LEGAL}/2026",
        f"/message/{LEGAL}/4Z0000000001",
        f"/message/{LEGAL}/one@example",
        f"/message/{LEGAL}/ID/part/0",
        f"/message/{LEGAL}/ID/part/8",
        f"/message/{LEGAL}/ID/part/-1",
        f"/message/{LEGAL}/ID/part/99999999999999999999999",
        f"/message/{LEGAL}/ID/part/1/html",
        f"/message/{LEGAL}/ID/part/1/image",
        f"/message/{LEGAL}/ID/inside/1",
        f"/message/{LEGAL}/ID/part/1%2f..%2f..",
        "/message/nobody@example.com/ID",
        f"/message/{quote('<script>alert(1)</script>')}/ID",
    ],
)
def test_no_such_thing(page: Page, path: str) -> None:
    page.get()
    answer = page.clients["anna"].get(path.replace("ID", page.id))
    assert answer.status_code == 404
    assert active_content.problems(answer.text, is_page=True) == []
    assert "root:" not in answer.text


def test_part_is_a_download(page: Page) -> None:
    answer = page.get("/part/3")
    assert answer.data == png()
    assert hashlib.sha256(answer.data).hexdigest() in page.get().text
    assert answer.mimetype == "application/octet-stream"
    kind, names = parse_options_header(answer.headers["Content-Disposition"])
    assert (kind, names["filename"]) == ("attachment", "agnp.exe")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_image_is_made_anew(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    # In another process: some images take hours.
    monkeypatch.setattr(safe_images, "encode", None)
    answer = page.get("/part/3/image")
    assert answer.mimetype == "image/png"
    assert Image.open(io.BytesIO(answer.data)).size == (3, 2)


def test_html_is_in_a_frame_without_scripts(page: Page) -> None:
    answer = page.get("/part/2/html")
    assert "data:image/png;base64," in answer.text
    frame = answer.text.partition("</head>")[2]
    assert active_content.problems(frame, is_page=False) == []
    policy = answer.headers["Content-Security-Policy"]
    assert "sandbox allow-popups" in policy and "allow-scripts" not in policy
    assert "allow-same-origin" not in policy + page.get().text


def test_nested_messages(page: Page) -> None:
    inner = page.get("/inside/4").text
    assert "inner text" in inner and "hello" not in inner
    assert f"/message/{LEGAL}/{page.id}/inside/6" in inner
    assert "deep text" in page.get("/inside/6").text
    assert b"Subject: innermost" in page.get("/part/6").data


def test_source_and_originals(page: Page) -> None:
    assert page.get("/original.eml").data == MAIL
    assert "X-Loop: carol" in page.get("/source").text
    assert page.get("/source").mimetype == "text/plain"
    assert b"Final-Recipient: rfc822; carol@example.net" in page.get("/copy.eml").data


def test_thread(page: Page) -> None:
    text = page.get("/thread").text
    assert text.index(page.other) < text.index(page.answer)
    own = page.get("/thread", "bob").text
    assert page.answer in own and page.other not in own


def test_neighbours_of_a_search(page: Page) -> None:
    hits = [page.answer, page.other, page.id]  # newest first
    for current, direction, expected in (
        (1, "next", 2),
        (1, "previous", 0),
        (0, "previous", 0),
        (2, "next", 2),
    ):
        path = f"/neighbour?q=contract&direction={direction}"
        location = page.get(path, id_=hits[current]).headers["Location"]
        assert location == f"/message/{LEGAL}/{hits[expected]}?q=contract"
    path = "/neighbour?q=contract&direction=next"
    assert page.other not in page.get(path, "bob", page.answer).headers["Location"]


def test_every_view_is_recorded(page: Page) -> None:
    count = len(page.site.store.run("history", page.id).output.splitlines())
    for number, path in enumerate((*PARTS, *VIEWS[:-1]), 1):
        page.get(path)
        lines = page.site.store.run("history", page.id).output.splitlines()
        assert len(lines) >= count + number, path
        assert "anna" in lines[-1]


def test_payloads_stay_text(tmp_path: Path) -> None:
    """In header fields, names of people and files, types, ids, text, HTML."""
    site = WebSite(tmp_path)
    ids = []
    for start in range(0, len(PAYLOADS), 40):
        raw = [each.encode() for each in PAYLOADS[start : start + 40]]
        fields = b"".join(b"X-Payload-%d: %s\r\n" % pair for pair in enumerate(raw))
        names = b"".join(b'To: "%s" <a@example.net>\r\n' % each for each in raw)
        header = b"Subject: %s\r\nSender: =?utf-8?b?%s?=\r\n%s%s" % (
            raw[0],
            base64.b64encode(raw[0]),
            fields,
            names,
        )
        parts = [
            (
                b"Content-Type: text/%s; name=%s\r\nContent-ID: <%s>\r\n\r\n%s"
                % (each,)
                * 1
                if False
                else b'Content-Type: application/x; name="%s"\r\n\r\n%s' % (each, each)
            )
            for each in raw
        ]
        text = b"Content-Type: text/plain\r\n\r\n" + b"\r\n".join(raw)
        ids.append(site.store.add(mail(text, *parts, header=header)))
    site.index()
    client = site.log_in("anna")
    for id_ in ids:
        for path in ("", "/print", "/thread", "?q=%3Cscript%3E"):
            answer = client.get(f"/message/{LEGAL}/{id_}{path}")
            assert answer.status_code == 200
            assert active_content.problems(answer.text, is_page=True) == []
        assert "X-Payload-0" in client.get(f"/message/{LEGAL}/{id_}").text


@pytest.mark.parametrize(
    "original",
    [
        b"Content-Type: text/plain; charset=\0x\r\n\r\n\xe4",
        b"Content-Type: a/b; name*=x; name*0=y; name*1=z\r\n\r\nx",
        b"Content-Type: a/b; name*0*=utf\0-8'en'%e2%82; name*1=x\r\n\r\nx",
        b"Content-Type: multipart/mixed; boundary*=x\0'y'b\r\n\r\n--b\r\n\r\nx",
        b"Content-Type: text/plain; charset*=x''%00\r\n\r\n\xe4",
        b"Content-Type: multipart/mixed\r\n\r\nx",
        b"\xff\xfe: \0\r\n\r\n\0",
        b"no header at all",
        b"",
    ],
)
def test_no_damaged_message_is_an_error(page: Page, original: bytes) -> None:
    id_ = page.site.store.add(original)
    for path in ("", "/part/1", "/part/1/text", "/source", "/original.eml"):
        assert page.get(path, id_=id_).status_code == 200, path


LARGE = {
    "parts": (mail(*[b"\r\nx"] * 10_000), ["parts: more than 2000", "100 of 2000"]),
    "html": (
        b"Content-Type: text/html\r\n\r\n" + b"<p>x</p>" * 4_500_000,
        ["message: cut at 32 MB"],
    ),
    "field": (b"X-Long: " + b"x" * 1_000_000 + b"\r\n\r\nx", ["[…]"]),
    "fields": (b"X: y\r\n" * 60_000 + b"\r\nx", ["header: cut at 200 fields"]),
    "text": (b"\r\n" + b"%60d\r\n" % 1 * 600_000, ["text: cut", "message: cut"]),
}


@pytest.mark.parametrize("name", LARGE)
def test_limits(page: Page, name: str) -> None:
    original, texts = LARGE[name]
    answer = page.get(id_=page.site.store.add(original))
    assert answer.status_code == 200
    assert not [each for each in texts if each not in answer.text]
    assert len(answer.data) < 1_000_000


def test_copy_in_the_object_storage_alone(
    damaged_page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The access service gives it to the page; or else the page says what to do."""
    page = damaged_page
    whole = page.site.store.copy_path(page.id).read_bytes()
    page.site.store.move(page.id)
    monkeypatch.setattr(copy_file, "fetch_moved", copy_file.fetch_moved)
    blocks = [whole[:400], whole[400:]]

    def fetch(*_: str) -> Iterator[bytes]:
        yield from blocks
        if not blocks:
            raise CopyUnreachable("the bucket does not answer")

    with web_site.access_service(page.site, fetch=fetch):
        access_service.fetch_copies(page.site.store.settings)
        assert "hello &lt;b&gt;you" in page.get(user="bob").text
        assert "carol@" not in page.get(user="bob").text
        assert page.get("/original.eml").data == MAIL
        [*_, last] = access_journal.entries(str(page.site.store.path), LEGAL)
        assert (last.user.web_user, last.ids) == ("anna", (page.id,))
        for wrong in ([], [whole[:400]], [whole[:400], b"x"]):
            blocks[:] = wrong
            for user in ("anna", "bob"):
                text = page.get(user=user).text
                assert "kept in the object storage, which cannot be read now" in text
                assert "hello" not in text
            assert page.get("/original.eml").status_code == 503
    assert "which cannot be read now" in page.get().text


@pytest.mark.parametrize("content", [None, b"", b"\x1f\x8b\x08 no gzip"])
def test_damaged_copy(damaged_page: Page, content: bytes | None) -> None:
    page = damaged_page
    path = page.site.store.copy_path(page.id)
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    text = page.get().text
    assert 'role="alert"' in text and "carol@example.net" in text and "✗" in text
    own = page.get(user="bob")
    assert own.status_code == 200
    assert "missing or damaged" in own.text and str(path.parent) not in own.text
    assert page.get("/original.eml").status_code == 503
