"""What a message consists of, as files and as views: parts, images, HTML, source.

Nothing is shown as what its sender calls it: a download has one media type, an image is
made anew, HTML is cleaned and comes in a frame without scripts, all other is text.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from urllib.parse import quote

from flask import Blueprint, Response, render_template, request

from postfix_archive.errors import AccessRefused, RecordNotFound
from postfix_archive.search import extraction_html
from postfix_archive.search.extraction_parts import Part
from postfix_archive.web import error_texts, site
from postfix_archive.web.language import gettext as _
from postfix_archive.web.message import html_process, reader, safe_images
from postfix_archive.web.message.html_process import HtmlRefused
from postfix_archive.web.message.message_page import PATH
from postfix_archive.web.message.reader import MessageReading
from postfix_archive.web.message.safe_images import ImageRefused
from postfix_archive.web.visible.message import VisibleMessage

blueprint = Blueprint("message_files", __name__)
TEXT_LIMIT = 1 << 20  # bytes of text and source that a browser gets
IMAGE_LIMIT = 20 << 20  # bytes of pictures that HTML gets
DOWNLOAD_TYPE = "application/octet-stream"
MAIL_SUFFIX = ".eml"
NOTHING_ACTIVE = "default-src 'none'; base-uri 'none'; form-action 'none'"
TEXT_POLICY = f"{NOTHING_ACTIVE}; frame-ancestors 'none'; sandbox"
# The frame has no origin, so pictures come with the page itself. Links open new tabs.
HTML_HEADERS = {
    "Content-Security-Policy": (
        f"{NOTHING_ACTIVE}; img-src data:; style-src 'unsafe-inline';"
        " frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
    ),
    "X-Frame-Options": "SAMEORIGIN",
    # Browsers refuse a sandboxed page with another policy.
    "Cross-Origin-Opener-Policy": "unsafe-none",
}


@blueprint.get(f"{PATH}/part/<int:number>")
@site.needs_login
def part(archive: str, archive_id: str, number: int) -> Response:
    """Give a part as a download, decoded."""
    message = site.archives().message(archive, archive_id)
    with reader.reading(message) as top:
        found = top.part(number)
        name = reader.safe_name(found.name) or f"part-{number}"
        if found.nested and not name.endswith(MAIL_SUFFIX):
            name += MAIL_SUFFIX
        return _download(found.content(), name)


@blueprint.get(f"{PATH}/part/<int:number>/image")
@site.needs_login
def image(archive: str, archive_id: str, number: int) -> Response:
    """Show an image, made anew of its pixels."""
    message = site.archives().message(archive, archive_id)
    with reader.reading(message) as top:
        content = top.part(number).content()
    try:
        picture = html_process.encode_image(content)
    except ImageRefused as error:
        raise RecordNotFound(
            _("this image is not shown: %(reason)s; download it instead")
            % {"reason": error_texts.translated(error)}
        ) from error
    return Response(
        picture,
        mimetype=safe_images.MEDIA_TYPE,
        headers={"Content-Security-Policy": TEXT_POLICY},
    )


@blueprint.get(f"{PATH}/part/<int:number>/text")
@site.needs_login
def text(archive: str, archive_id: str, number: int) -> Response:
    """Show a part as text."""
    message = site.archives().message(archive, archive_id)
    with reader.reading(message) as top:
        return _text(reader.text_of(top.part(number)))


@blueprint.get(f"{PATH}/part/<int:number>/html")
@site.needs_login
def html(archive: str, archive_id: str, number: int) -> Response:
    """Show a part of HTML, cleaned, for a frame."""
    message = site.archives().message(archive, archive_id)
    with reader.reading(message) as top:
        found = top.part(number)
        if found.media_type not in extraction_html.MEDIA_TYPES:
            raise RecordNotFound(_("this part is no HTML"))
        start = found.start(extraction_html.SOURCE_LIMIT)
        source = extraction_html.source(start, found.charset)
        images = _images(top, found, source)
    try:
        cleaned = html_process.clean(source, images, _("leads to"))
        plain = ""
    except HtmlRefused:
        cleaned = None
        plain = reader.safe_lines(
            extraction_html.text_between_tags(source[: reader.TEXT_LIMIT])
        )
    page = render_template("message_html.html", cleaned=cleaned, plain=plain)
    return Response(page, headers=HTML_HEADERS)


def _images(top: MessageReading, found: Part, source: str) -> dict[str, bytes]:
    """Return the pictures that HTML names by their Content-ID."""
    images: dict[str, bytes] = {}
    remaining = IMAGE_LIMIT
    for content_id, each in top.images(found.inside).items():
        if content_id in source and remaining > 0:
            images[content_id] = each.content()
            remaining -= len(images[content_id])
    return images


@blueprint.get(f"{PATH}/source")
@site.needs_login
def source(archive: str, archive_id: str) -> Response:
    """Show the original as this user may see it, as text."""
    message = site.archives().message(archive, archive_id)
    content = b""
    for chunk in message.original_chunks():
        content += chunk
        if len(content) > TEXT_LIMIT:
            break
    return _text(content.decode("utf-8", "replace"))


@blueprint.get(f"{PATH}/original.eml")
@site.needs_login
def original(archive: str, archive_id: str) -> Response:
    """Give the original as this user may see it."""
    message = site.archives().message(archive, archive_id)
    return _stream(message.original_chunks(), f"{archive_id}{MAIL_SUFFIX}")


@blueprint.get(f"{PATH}/copy.eml")
@site.needs_login
def copy(archive: str, archive_id: str) -> Response:
    """Give the archive copy, with the envelope."""
    message = _whole_message(archive, archive_id)
    return _stream(message.copy_chunks(), f"{archive_id}.copy{MAIL_SUFFIX}")


@blueprint.get(f"{PATH}/report.eml")
@site.needs_login
def report(archive: str, archive_id: str) -> Response:
    """Give the latest outcome report."""
    message = _whole_message(archive, archive_id)
    return _stream(message.report_chunks(), f"{archive_id}.outcome{MAIL_SUFFIX}")


def _whole_message(archive: str, archive_id: str) -> VisibleMessage:
    """Return a message of which the user may see all. Raises AccessRefused."""
    archives = site.archives()
    message = archives.message(archive, archive_id)
    if not message.is_whole:
        archives.record_refusal(f"{request.method} {request.path}")
        raise AccessRefused("only auditors see the whole envelope")
    return message


def _text(text: str) -> Response:
    shown = reader.safe_lines(text[:TEXT_LIMIT])
    if len(text) > TEXT_LIMIT:
        shown += "\n\n[…] " + _("cut here; download it to see all")
    response = Response(shown, mimetype="text/plain")
    response.headers["Content-Security-Policy"] = TEXT_POLICY
    return response


def _download(content: bytes, name: str) -> Response:
    response = Response(content, mimetype=DOWNLOAD_TYPE)
    _set_name(response, name)
    return response


def _stream(chunks: Iterator[bytes], name: str) -> Response:
    """Return a download; what cannot be read is an error before it begins."""
    first = next(chunks, b"")

    def content() -> Generator[bytes]:
        yield first
        yield from chunks

    response = Response(content(), mimetype=DOWNLOAD_TYPE)
    _set_name(response, name)
    return response


def _set_name(response: Response, name: str) -> None:
    """Set Content-Disposition (RFC 6266): the name in ASCII, and in UTF-8."""
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    names = {"filename": plain}
    if plain != name:
        names["filename*"] = f"UTF-8''{quote(name, safe='')}"
    response.headers.set("Content-Disposition", "attachment", **names)
    response.headers["Content-Security-Policy"] = TEXT_POLICY
