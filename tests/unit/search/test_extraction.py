"""Claims about what is found of a message: every kind of text, whatever its label."""

from __future__ import annotations

import base64
import builtins
import email
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.search import (
    charset,
    extraction,
    extraction_header,
    extraction_limits,
    extraction_parts,
    mime_entity,
)
from postfix_archive.search.content import Attachment, MessageContent

import corpora
from unit.search import documents

HEADER = b"From: a@example.org\r\nMIME-Version: 1.0\r\n"


def extract(*lines: bytes) -> MessageContent:
    return extraction.extract(b"\r\n".join(lines))


def text_of(content_type: bytes, body: bytes, encoding: bytes = b"8bit") -> str:
    field = b"Content-Transfer-Encoding: " + encoding
    return extract(b"Content-Type: " + content_type, field, b"", body).text


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (documents.word_document(), "docx", [documents.WORDS, "cell", "letterhead"]),
        (documents.workbook(), "xlsx", [documents.WORDS, "4711", "Budget", "remark"]),
        (documents.presentation(), "pptx", [documents.WORDS, "speaker notes"]),
        (documents.open_document(), "odt", [documents.WORDS + "\nsecond"]),
        (documents.pdf(), "pdf", [documents.LATIN_WORDS]),
        (documents.rtf(), "rtf", [documents.WORDS + "\nsecond"]),
        (documents.zip_archive({"a/offer.txt": b"x"}), "zip", ["a/offer.txt"]),
    ],
)
def test_documents_are_known_by_their_first_bytes(
    content: bytes, kind: str, words: list[str]
) -> None:
    found = extraction.extract(documents.mail_with(content, f"file.{kind}"))
    assert found.problems == ()
    for each in words:
        assert each in found.text, found.text
    assert found.text.startswith("the body\n\n")
    assert found.attachments == (
        Attachment(f"file.{kind}", "application/x", len(content)),
    )


def test_an_encrypted_pdf_is_a_problem_and_no_more() -> None:
    found = extraction.extract(documents.mail_with(documents.pdf(password="x"), "f"))
    assert (found.text, found.problems) == ("the body", ("pdf: encrypted",))


@pytest.mark.parametrize(
    ("kind", "content", "package"),
    [
        ("pdf", documents.pdf(), "pypdf"),
        ("docx", documents.word_document(), "defusedxml"),
        ("rtf", documents.rtf(), "striprtf"),
        ("winmail.dat", b"\x78\x9f\x3e\x22" + bytes(30), "tnefparse"),
    ],
)
def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, kind: str, content: bytes, package: str
) -> None:
    import_module = builtins.__import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return import_module(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    found = extraction.extract(documents.mail_with(content, "file"))
    assert found.problems == (f"{kind}: {package} is not installed",)
    assert found.text == "the body"


def test_html_has_its_words_without_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "selectolax.lexbor", None)
    found = extract(b"Content-Type: text/html", b"", b"<p>one<b>two</b> &amp; &lt;<")
    assert found.text.split() == ["one", "two", "&", "<<"]
    assert found.problems == ("html: selectolax is not installed",)


@pytest.mark.parametrize(
    "content",
    [
        b"%PDF-1.7\nno more",
        b"PK\x03\x04 no archive",
        documents.word_document()[:2000],
        documents.docx_of(b"<w:document>never closed"),
        b"{\\rtf" + b"{" * 100 + b"\\u99999999999?",
        b"\x78\x9f\x3e\x22" + b"\xff" * 100,
    ],
)
def test_a_damaged_document_is_a_problem_and_no_more(content: bytes) -> None:
    found = extraction.extract(documents.mail_with(content, "file"))
    assert found.text.startswith("the body")
    assert all("damaged" in each for each in found.problems)
    assert found.problems or content[:1] in b"{x"  # those libraries take anything


def test_winmail_dat_of_outlook_is_read_with_its_attachments(
    pytestconfig: pytest.Config,
) -> None:
    assert pytestconfig.cache is not None
    paths = corpora.tnef_files(Path(pytestconfig.cache.mkdir("corpora")))
    found = {
        path.stem: extraction.extract(
            documents.mail_with(path.read_bytes(), "winmail.dat")
        )
        for path in paths
    }
    assert len(found) > 15
    names = {stem: {a.name for a in each.attachments} for stem, each in found.items()}
    assert {"winmail.dat", "AUTHORS", "README"} <= names["two-files"]
    assert "This is a test" in found["rtf"].text or len(found["rtf"].text) > 20
    assert len(found["body"].text) > len("the body\n\n")


# --- MIME -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        (b'filename="plain name.txt"', "plain name.txt"),
        (b"filename*=UTF-8''%e2%82%ac%20rates.txt", "€ rates.txt"),
        (
            b"filename*0*=iso-8859-1'de'Gr%FC; filename*1*=%DFe; filename*2=.txt",
            "Grüße.txt",
        ),
        (b'filename="=?utf-8?B?R3LDvMOfZS50eHQ=?="', "Grüße.txt"),  # RFC 2047: wrong
        (b"filename==?utf-8?Q?Gr=C3=BC=C3=9Fe.txt?=", "Grüße.txt"),
        ('filename="Grüße.txt"'.encode(), "Grüße.txt"),
        ("filename=Grüße.txt".encode("latin-1"), "Grüße.txt"),
        (b"filename*=x-none''%ff.txt", "ÿ.txt"),
        (b"", ""),
    ],
)
def test_names_of_attachments_are_decoded(parameters: bytes, name: str) -> None:
    found = extract(
        b"Content-Type: application/octet-stream",
        b"Content-Disposition: attachment; " + parameters,
        b"",
        b"x",
    )
    assert found.attachments == (Attachment(name, "application/octet-stream", 1),)


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit", "x-none"])
def test_the_size_of_an_attachment_is_that_of_its_decoded_bytes(encoding: str) -> None:
    content = b"decoded = bytes\r\n" * 7
    body = {
        "base64": base64.encodebytes(content),
        "quoted-printable": content.replace(b"=", b"=3D"),
    }.get(encoding, content)
    found = extract(
        b"Content-Type: application/octet-stream",
        b"Content-Transfer-Encoding: " + encoding.encode(),
        b"",
        body,
    )
    assert found.attachments[0].size == len(content)


def test_base64_is_decoded_up_to_where_it_was_cut() -> None:
    content = b"x, decoded up to here\n" * 9
    encoded = base64.encodebytes(content)
    for end in range(len(encoded) - 8, len(encoded)):
        found = text_of(b"text/plain", encoded[:end], b"base64")
        assert len(found) > 180 and content.startswith(found.encode())


@pytest.mark.parametrize(
    ("declared", "raw", "text"),
    [
        (b"utf-8", "Grüße".encode(), "Grüße"),
        (b"iso-8859-1", "Grüße".encode("latin-1"), "Grüße"),
        (b"iso-8859-1", "Grüße".encode(), "Grüße"),  # really UTF-8
        (b"us-ascii", "Grüße aus Köln".encode(), "Grüße aus Köln"),
        (b"utf-8", "Привет из Москвы".encode("cp1251"), "Привет из Москвы"),
        (b"gb2312", "合同€".encode("gb18030"), "合同€"),
        (b"iso-2022-jp", "日本語".encode("iso-2022-jp"), "日本語"),
        (b"utf-16", "日本語".encode("utf-16"), "日本語"),
        (b"utf-16le", b"odd", None),
        (b"no-such-charset", "Grüße".encode(), "Grüße"),
        (b"base64", b"R3LDvA==", "R3LDvA=="),
        (b"", "Grüße".encode(), "Grüße"),
        (b"idna", b"xn--abc\xff", None),
    ],
)
def test_no_charset_fails(declared: bytes, raw: bytes, text: str | None) -> None:
    encoded = base64.encodebytes(raw)
    found = text_of(b"text/plain; charset=" + declared, encoded, b"base64")
    assert found == text or text is None


@pytest.mark.parametrize(
    ("html", "text"),
    [
        (b"<p>one</p><p>two</p>three", "one\ntwo\nthree"),
        (b"<b>H</b>ello <i>wor</i>ld", "Hello world"),
        (b"<table><td>a<td>b</table><i>c</i><br>d", "a\nb\nc\nd"),
        (b"<script>var x</script><style>p{}</style>text<template>x</template>", "text"),
        (
            b"<title>T</title><img alt='Alt'><a title='Link'>a</a>",
            "T\na\nAlt\nLink",
        ),
        ("<meta charset=windows-1252>Grüße".encode("cp1252"), "Grüße"),
        (b"&euro;&#8364;&nbsp;&lt;x&gt;", "€€\xa0<x>"),
        (b"<!-- hidden --><![CDATA[x]]>shown", "shown"),
        (b"", ""),
        (b"<", "<"),
    ],
)
def test_html_becomes_text(html: bytes, text: str) -> None:
    assert text_of(b"text/html", html) == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        (b"<a href='https://a.example/b?c=1&amp;d'>e</a>", "https://a.example/b"),
        (b"<a href=https://a.example/b/c#d>e</a>", "https://a.example/b/c"),
        (b"<a href=https://a.example/b?c>https://a.example/b?c</a>", ""),
        (b"<a href=https://a.example/?c></a><a href=https://a.example/?d>", None),
        (b"<a href=b:" + b"c" * 999 + b">d</a>", "b:" + "c" * 198),
        (b"<area href=https://a.example/><a href=https://a.example/>", None),
        (b"<a href=mailto:bob@a.example>Bob</a>", "mailto:bob@a.example"),
        (b"<a href=https://a.example/>https://a.example/</a>", ""),
        (b"<a href='#top'>a</a><a href='cid:1'>b</a><a href=javascript:x()>c</a>", ""),
        (b"<a>a</a><a href>b</a>", ""),
    ],
)
def test_the_target_of_a_link_follows_the_text(html: bytes, text: str | None) -> None:
    found, _, links = text_of(b"text/html", b"<p>text</p>" + html).partition("\n\n")
    if text is None:
        assert (found, links) == ("text\n\nhttps://a.example/".partition("\n\n")[::2])
    else:
        assert found.startswith("text") and links == text


def test_html_with_links_is_left_out_after_the_same_plain_text() -> None:
    found = extract(
        b"Content-Type: multipart/alternative; boundary=b",
        b"",
        b"--b\r\n\r\nsee here\r\n--b\r\nContent-Type: text/html\r\n",
        b"<p>see <a href=https://a.example/>here</a>\r\n--b--",
    )
    assert found.text == "see here\n\nhttps://a.example/"


def test_what_stands_around_the_parts_is_read_after_them() -> None:
    found = extract(
        b"Content-Type: multipart/mixed; boundary=b",
        b"",
        b"This is a multi-part message in MIME format.\r\n",
        "Gr\u00fc\u00dfe vorab\r\n".encode(),
        b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n",
        b"inner preamble\r\n--c\r\n\r\nthe text\r\n--c--\r\ninner epilogue",
        b"--b--\r\nthe end\r\n" + base64.encodebytes(bytes(171)),
    )
    assert found.text.split("\n\n") == [
        "the text",
        "Gr\u00fc\u00dfe vorab",
        "the end",
        "inner preamble",
        "inner epilogue",
    ]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (b"The list <list.example.org>", ("list.example.org", "The list")),
        (b'"Q, list" <l.example.org>', ("l.example.org", "Q, list")),
        (b"=?utf-8?Q?Gr=C3=BC=C3=9Fe?= <g.example>", ("g.example", "Grüße")),
        (b"<list.example.org>", ("list.example.org", "")),
        (b"list.example.org", ("list.example.org", "")),
    ],
)
def test_a_list_has_an_id_and_a_name(field: bytes, values: tuple[str, str]) -> None:
    found = extract(b"List-Id: " + field, b"", b"")
    assert (found.list_id, found.list_name) == values


def test_a_calendar_is_unfolded() -> None:
    body = b"BEGIN:VEVENT\r\nSUMMARY:Budget meet\r\n ing\\, room 5\r\nEND:VEVENT"
    assert "Budget meeting, room 5" in text_of(b"text/calendar", body)


def test_a_delivery_report_is_read_with_the_message_in_it() -> None:
    found = extract(
        b"Content-Type: multipart/report; boundary=b",
        b"",
        b"--b\r\n\r\nsorry\r\n--b\r\nContent-Type: message/delivery-status\r\n",
        b"Reporting-MTA: dns; mx.example\r\n\r\nFinal-Recipient: rfc822; x@y.example",
        b"Status: 5.1.1\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n",
        b"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nTo: x@y.example\r\n\r\ninner",
        b"--b--",
    )
    for words in ("sorry", "Final-Recipient: rfc822; x@y.example", "Grüße", "inner"):
        assert words in found.text
    assert found.subject == ""


def test_an_attached_message_in_base64_is_read() -> None:
    inner = base64.encodebytes(b"Subject: inside\r\n\r\ninner text\r\n")
    found = extract(
        b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64", b"", inner
    )
    assert "inner text" in found.text


@pytest.mark.parametrize(
    "inner",
    [
        b"Subject: a long subject that is folded\r\n\there\r\nX: \xff\r\n\r\ntext\r\n",
        b"Content-Type: multipart/mixed; boundary=c\r\n\r\npreamble\r\n--c\r\n"
        b"Content-Type: text/plain\r\n\r\none\r\n--c\r\n\r\ntwo\r\n--c--\r\n",
        b"\r\nno header\r\n",
    ],
)
def test_an_attached_message_is_written_as_it_was_sent(inner: bytes) -> None:
    start = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
    part_header = b"Content-Type: message/rfc822\r\n\r\n"
    original = start + part_header + inner + b"\r\n--b--\r\n"
    parts = extraction_parts.parts(mime_entity.parse(original), [])
    first = next(parts)
    assert (first.media_type, first.content()) == ("message/rfc822", inner)
    assert first.size() == len(inner)


def test_parts_are_those_that_pythons_email_reads(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    mails = corpora.real_messages(Path(pytestconfig.cache.mkdir("corpora")))
    assert len(mails) > 300
    for each in mails:
        ours = [
            (part.media_type, part.content().strip())
            for part in extraction_parts.parts(mime_entity.parse(each.content), [])
            if not part.media_type.startswith(("message/", "multipart/"))
        ]
        theirs = [
            (part.get_content_type(), part.get_payload(decode=True).strip())
            for part in leaves(email.message_from_bytes(each.content))
            if not part.get_content_type().startswith("multipart/")
        ]
        assert ours == theirs, each.name


def leaves(part: Any) -> Iterator[Any]:
    """Yield what email reads; it takes all message/* for messages."""
    media_type = part.get_content_type()
    if not part.is_multipart():
        yield part
    elif media_type.startswith("multipart/") or media_type == "message/rfc822":
        for each in part.get_payload():
            yield from leaves(each)


@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        (["--b", "", "one", "--b", "", "two", "--b--"], ["one", "two"]),
        (["--b", "", "one", "--b \t", "", "two"], ["one", "two"]),
        (["--b", "--b", "", "one", "--b", "--b--"], ["one"]),
        (["--b", "", "one", "--bb", "--b-", " --b", "--b--"], ["one--bb--b- --b"]),
        (["--b", "X: y", "--b", "", "two"], ["", "two"]),
        # The delimiter of the outer one ends what is inside, whatever it is.
        (
            ["--b", "Content-Type: multipart/mixed; boundary=c", "", "--c", "", "one"]
            + ["--b", "", "two", "--c", "three", "--b--"],
            ["one", "two--cthree"],
        ),
        (
            ["--b", "Content-Type: multipart/mixed; boundary=b", "", "--b", "", "one"],
            ["", "one"],
        ),
        (
            ["--b", "Content-Type: message/rfc822", "", "Subject: inner", "", "one"]
            + ["--b", "", "two"],
            ["Subject: innerone", "one", "two"],
        ),
        (["no delimiter"], ["no delimiter"]),
    ],
)
@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_a_delimiter_ends_all_inside_it(
    lines: list[str], texts: list[str], line_end: bytes
) -> None:
    field = b"Content-Type: multipart/mixed; boundary=b"
    original = line_end.join([field, b"", *(each.encode() for each in lines)])
    found = [
        part.content().replace(line_end, b"").decode()
        for part in extraction_parts.parts(mime_entity.parse(original), [])
    ]
    assert found == texts


def test_what_is_nested_too_deep_is_read_as_text() -> None:
    nested = b"Content-Type: message/rfc822\r\n\r\n" * 300 + b"\r\nhello"
    found = extraction.extract(nested)
    assert "hello" in found.text
    limit = extraction_limits.NESTING_LIMIT
    assert found.problems == (f"nesting: deeper than {limit}",)


def test_a_usual_message_is_read_without_the_package_email() -> None:
    program = (
        "import sys; sys.path[:] = sys.argv[1:];"
        " from postfix_archive.search import extraction;"
        " extraction.extract(b'From: A B <a@x.example>, b@x.example\\n'"
        " b'Date: Mon, 5 Jan 2026 10:00:00 +0100\\n'"
        " b'Content-Type: text/html; charset=\"utf-8\"\\n\\n<p>hello');"
        " sys.exit('email' in sys.modules)"
    )
    subprocess.run([sys.executable, "-I", "-c", program, *sys.path], check=True)


def test_header_fields_are_decoded() -> None:
    found = extract(
        b"From: =?utf-8?Q?J=C3=BCrgen?= <j@example.org>",
        b'To: "Bo, B" <b@example.org>, friends: c@example.org, d@example.org;',
        b"Cc: broken address",
        "Bcc: Grüße <g@example.org>".encode("latin-1"),
        b"Subject: =?utf-8?B?R3LDvA==?=\r\n =?utf-8?B?w59l?=",
        b"Date: Mon, 5 Jan 2026 10:00:00 +0100",
        b"Message-ID: <1@example.org>",
        b"List-Id: The list <list.example.org>",
        b"References: <a@x> <b@x>\r\nIn-Reply-To: <b@x>",
        b"",
        b"",
    )
    assert found[:10] == (
        ("Jürgen <j@example.org>",),
        ("Bo, B <b@example.org>", "c@example.org", "d@example.org"),
        ("broken address",),
        ("Grüße <g@example.org>",),
        "Grüße",
        1767603600.0,
        "1@example.org",
        "list.example.org",
        "The list",
        ("a@x", "b@x"),
    )


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        (b"a@x.example", ["a@x.example"]),
        (b" A  B <a@x.example> ,b@x.example", ["A B <a@x.example>", "b@x.example"]),
        (b'"B, A" <a@x.example>,', ["B, A <a@x.example>"]),
        (b'"A" B <a@x.example>', ["A B <a@x.example>"]),
        (b"a@x.example (A B)", ["A B <a@x.example>"]),
        (b"a b <a@x.example>, broken", ["a b <a@x.example>", "broken"]),
        (b"<>", ["<>"]),
    ],
)
def test_simple_addresses_are_read_like_all_others(
    value: bytes, addresses: list[str]
) -> None:
    assert extract(b"To: " + value, b"", b"").to == tuple(addresses)


def test_real_addresses_are_those_that_pythons_email_reads(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pytestconfig.cache is not None
    mails = corpora.real_messages(Path(pytestconfig.cache.mkdir("corpora")))
    headers = {each.name: mime_entity.parse(each.content).fields for each in mails}
    ours = {name: extraction_header.read(each) for name, each in headers.items()}
    monkeypatch.setattr(extraction_header, "MAILBOX", re.compile("(?!)"))
    theirs = {name: extraction_header.read(each) for name, each in headers.items()}
    # It gives up over a comma at the end.
    different = {name for name in ours if ours[name] != theirs[name]}
    assert different <= {
        "golang-github-jhillyerd-enmime-dev/mime-bad-8bit-filename.raw"
    }


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("notes.txt", "Grüße\n".encode(), "Grüße"),
        ("PAGE.HTM", b"<p>one<p>two", "one\ntwo"),
        ("image.png", b"\x89PNG text", ""),
    ],
)
def test_text_without_a_media_type_is_known_by_its_name(
    name: str, content: bytes, text: str
) -> None:
    mail = documents.mail_with(content, name, "application/octet-stream")
    assert extraction.extract(mail).text == f"the body\n\n{text}".strip()


@pytest.mark.parametrize("date", [b"yesterday", b"", b"Mon, 99 Jan 99999999 10:00:00"])
def test_a_date_that_is_none_is_none(date: bytes) -> None:
    assert extract(b"Date: " + date, b"", b"").date is None


def test_text_and_attachments_stop_at_their_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extraction, "TEXT_LIMIT", 10)
    found = extract(b"Content-Type: text/plain", b"", b"x" * 11)
    assert (found.text, found.problems) == ("x" * 10, ("text: cut at 10 characters",))
    monkeypatch.setattr(extraction, "MESSAGE_LIMIT", 40)
    found = extract(b"Subject: x", b"", b"y" * 40)
    assert found.problems[0] == "message: cut at 40 bytes"


def test_html_stops_at_its_limit() -> None:
    html = b"<p>x" * (extraction_limits.HTML_LIMIT // 4 + 1)
    problem = f"html: cut at {extraction_limits.HTML_LIMIT} characters"
    assert extract(b"Content-Type: text/html", b"", html).problems == (problem,)


def test_every_awkward_message_is_extracted(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    cache = Path(pytestconfig.cache.mkdir("corpora"))
    mails = corpora.real_messages(cache) + corpora.awkward_messages()
    found = {each.name: extraction.extract(each.content) for each in mails}
    assert len(found) > 400
    assert "hello" in found["awkward/nested 101 deep"].text
    assert any(each.attachments for each in found.values())
    for name, each in found.items():
        assert "\0" not in each.text, name
        each.text.encode()
        assert not any("MemoryError" in problem for problem in each.problems), name


def test_chardet_sees_a_sample_only(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def detect(raw: bytes) -> dict[str, str]:
        sizes.append(len(raw))
        return {"encoding": "cp1251"}

    monkeypatch.setattr("chardet.detect", detect)
    assert charset.decode("Привет ".encode("cp1251") * 10_000).startswith("Привет")
    assert sizes == [charset.SAMPLE_SIZE]


def test_limits_leave_room_for_what_postfix_accepts_by_default() -> None:
    assert extraction_limits.MESSAGE_LIMIT > 10_240_000  # message_size_limit


DOCUMENTS = (
    documents.word_document(),
    documents.open_document(),
    documents.pdf(),
    documents.rtf(),
)


@given(
    st.sampled_from(DOCUMENTS), st.lists(st.tuples(st.integers(0), st.integers(0, 255)))
)
def test_no_change_of_a_document_is_an_error(
    document: bytes, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(document)
    for offset, value in changes:
        content[offset % len(content)] = value
    found = extraction.extract(documents.mail_with(bytes(content), "file"))
    assert found.text.startswith("the body")
    assert found.attachments[0].size == len(document)


HEADER_PARTS = st.sampled_from(
    [b"Content-Type: ", b"multipart/", b"message/rfc822", b"text/html", b"; boundary="]
    + [
        b"b",
        b"--b",
        b"\r\n",
        b"\r\n\r\n",
        b"charset=utf-16",
        b"=?",
        b"?=",
        b"; name*0*=",
    ]
    + [b"Content-Transfer-Encoding: base64", b"From: ", b"<", b'"', b"\xff", b"\0"]
)


@given(st.lists(HEADER_PARTS | st.binary(max_size=9), max_size=60))
def test_no_message_is_an_error(pieces: list[bytes]) -> None:
    found = extraction.extract(b"".join(pieces))
    found.text.encode()
    kinds = {each.partition(":")[0] for each in found.problems}
    assert kinds <= {"pdf", "rtf", "winmail.dat", "zip", "nesting"}
