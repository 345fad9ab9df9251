"""HTML of messages, made safe to show."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from brs_kb.payloads import FULL_PAYLOAD_DATABASE
from PIL import Image

from postfix_archive.web.message import html_process, safe_html, safe_images
from postfix_archive.web.message.html_process import HtmlRefused
from postfix_archive.web.message.safe_html import SafeHtml
from postfix_archive.web.message.safe_images import ImageRefused

import active_content

OWN = Path(__file__).with_name("xss_payloads.txt").read_text().splitlines()
PUBLIC = [each.payload for each in FULL_PAYLOAD_DATABASE.values()]


def clean(source: str, **images: bytes) -> SafeHtml:
    return safe_html.clean(source, images.get, "leads to")


def picture(size: tuple[int, int] = (3, 2), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return file.getvalue()


def test_there_are_enough_payloads() -> None:
    assert len(OWN) > 100 and len(PUBLIC) > 1000


@pytest.mark.parametrize("payload", OWN)
def test_nothing_active_is_left(payload: str) -> None:
    for source in (payload, f"<p title='{payload}'>x", f'<a href="{payload}">x</a>'):
        assert active_content.problems(clean(source).html, is_page=False) == []


def test_nothing_active_is_left_of_public_payloads() -> None:
    for payload in PUBLIC:
        result = clean(payload).html
        assert active_content.problems(result, is_page=False) == [], payload


def test_checker_finds_what_is_active() -> None:
    found = [each for each in OWN if active_content.problems(each, is_page=False)]
    assert len(found) > 80


def test_layout_stays() -> None:
    source = (
        '<h1 dir="rtl">x</h1><table bgcolor="#fff"><tbody><tr><td style="color:red">'
        "y</td></tr></tbody></table>"
    )
    assert clean(source).html == source


@pytest.mark.parametrize(
    ("style", "left"),
    [
        ("color: red; position: fixed", "color:red"),
        ("color: red; display: none; letter-spacing: -9px", "color:red"),
        ("color: red; text-indent: -999px; margin: 0 -99px 0 0", "color:red"),
        ("color: red; margin-left: calc(0px - (9px))", "color:red"),
        ("color: rgb(1, 2, 3); font-family: a-1", "color:rgb(1, 2, 3);font-family:a-1"),
        ("color: red; background: url(//t.example/x)", "color:red"),
        (r"color: red; width: e\78pression(alert(1))", "color:red"),
        ("direction: rtl; unicode-bidi: bidi-override", "direction:rtl"),
    ],
)
def test_style(style: str, left: str) -> None:
    assert clean(f'<p style="{style}">x</p>').html == f'<p style="{left}">x</p>'


def test_unsafe_style_is_gone() -> None:
    assert "behavior" not in clean('<p style="behavior: url(x)">x</p>').html


@pytest.mark.parametrize(
    "source",
    [
        '<img src="http://t.example/x.png">',
        '<img src="//t.example/x.png">',
        '<img src="https://user@T.example/x.png">',
        '<img srcset="https://t.example/x.png 2x">',
        '<table background="http://t.example/x.png"><tr><td>x</table>',
        '<p style="background: url(http://t.example/x)">x</p>',
        "<style>p { background: url('http://t.example/x') }</style>",
        '<style>@import "http://t.example/x.css";</style>',
        '<link rel="stylesheet" href="http://t.example/x.css">',
        '<video poster="http://t.example/x.png"></video>',
    ],
)
def test_remote_content_is_counted_and_gone(source: str) -> None:
    result = clean(source)
    assert result.remote == {"t.example": 1}
    assert "t.example" not in result.html


@pytest.mark.parametrize(
    ("link", "target", "is_marked"),
    [
        (
            '<a href="http://evil.example/x">http://good.example/</a>',
            "evil.example",
            True,
        ),
        (
            '<a href="http://evil.example/">www.<b>good</b>.example</a>',
            "evil.example",
            True,
        ),
        ('<a href="https://good.example/x">good.example</a>', "good.example", False),
        (
            '<a href="https://www.good.example/">good.example</a>',
            "www.good.example",
            False,
        ),
        ('<a href="https://good.example@evil.example/">x</a>', "evil.example", False),
        ('<a href="https://evil.example/">click here</a>', "evil.example", False),
        ('<a href="mailto:a@evil.example">a@good.example</a>', "a@evil.example", True),
        ('<a href="http:\\\\evil.example/">good.example</a>', "evil.example", True),
        ('<a href="https:///evil.example/x">good.example</a>', "evil.example", True),
        ('<a href="http:/evil.example">good.example</a>', "evil.example", True),
        ('<a href="HTTP:evil.example">good.example</a>', "evil.example", True),
        ('<a href=" https:/\\\t/evil.example">x</a>', "evil.example", False),
    ],
)
def test_link_shows_where_it_leads(link: str, target: str, is_marked: bool) -> None:
    html = clean(link).html
    assert f"<bdi>{target}</bdi>" in html
    assert ("leads to" in html) == is_marked
    assert 'target="_blank"' in html and 'rel="noreferrer noopener"' in html
    # Without both slashes it can lead to the archive's own host.
    assert re.search('href="(?i:https?://[^/]|mailto:)', html)


def test_link_in_a_title_is_none() -> None:
    link = '<a href="http://x.example/">y<b title="</a>">z</b></a>'
    assert safe_html._with_targets(link, "").startswith(link)


def test_reordering_characters_are_replaced() -> None:
    assert "\u202e" not in clean('<a href="http://x.example/">\u202ezzz</a>').html


def test_picture_of_the_message_is_made_anew() -> None:
    comment = b"<script>alert(1)</script>"
    html = clean(
        '<img src="cid:one"><img src="cid:none">', one=picture() + comment
    ).html
    [encoded] = html.split("base64,")[1:]
    content = base64.b64decode(encoded.partition('"')[0])
    assert b"script" not in content
    assert Image.open(io.BytesIO(content)).size == (3, 2)


def test_picture_in_the_html_is_made_anew() -> None:
    data = base64.b64encode(picture(kind="GIF")).decode()
    assert "data:image/png" in clean(f'<img src="data:image/gif;base64,{data}">').html
    svg = base64.b64encode(b"<svg onload='alert(1)'/>").decode()
    result = clean(f'<img src="data:image/svg+xml;base64,{svg}">')
    assert "svg" not in result.html and result.refused == 1


def bomb() -> bytes:
    """Return a PNG of a few bytes that says that it has 10,000 million pixels."""
    content = bytearray(picture())
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [bomb(), picture((5000, 5000)), b"GIF89a", b"", b"<svg/>", b"x" * (11 << 20)],
    ids=["bomb", "large", "cut", "empty", "svg", "bytes"],
)
def test_image_is_refused(content: bytes) -> None:
    with pytest.raises(ImageRefused):
        safe_images.encode(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_image_formats(kind: str) -> None:
    assert safe_images.encode(picture(kind=kind)).startswith(b"\x89PNG")


def test_process_gives_the_same() -> None:
    source = '<p>x<img src="cid:one"><a href="http://x.example/">x</a>'
    expected = clean(source, one=picture())
    assert html_process.clean(source, {"one": picture()}, "leads to") == expected


def test_html_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_process, "CPU_LIMIT", 1)
    with pytest.raises(HtmlRefused):
        html_process.clean("<div>" * 100_000, {}, "leads to")


def test_long_html_is_cut() -> None:
    assert clean("x" * 2_000_000).is_cut


def slow_picture() -> bytes:
    """A progressive JPEG whose last scan is there thousands of times."""
    file = io.BytesIO()
    Image.new("RGB", (4000, 4000), "red").save(file, "JPEG", progressive=True)
    content = file.getvalue()
    scan, end = content[content.rindex(b"\xff\xda") : -2], content[-2:]
    return content[:-2] + scan * 5000 + end


def test_picture_that_takes_too_long_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(html_process, "CPU_LIMIT", 1)
    with pytest.raises(ImageRefused, match="too long"):
        html_process.encode_image(slow_picture())


@pytest.mark.parametrize("content", [b"", b"<svg/>", b"x" * (11 << 20), bomb()])
def test_process_says_why_it_refuses_a_picture(content: bytes) -> None:
    with pytest.raises(ImageRefused) as error:
        safe_images.encode(content)
    with pytest.raises(ImageRefused, match=str(error.value)):
        html_process.encode_image(content)


def test_picture_that_is_shown_often_makes_no_large_page() -> None:
    image = Image.effect_noise((600, 600), 90).convert("RGB")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    result = clean("<img src=cid:a>" * 900, a=file.getvalue())
    assert len(result.html) < safe_html.SHOWN_LIMIT + 100_000
    shown = result.html.count("base64,")
    assert (shown > 0, result.refused) == (True, 900 - shown)


def test_process_that_replies_too_much_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(html_process, "REPLY_LIMIT", 1000)
    with pytest.raises(HtmlRefused):
        html_process.clean("x" * 2000, {}, "leads to")
