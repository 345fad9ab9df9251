"""The page of one message: header, text, parts, envelope, proof; and its thread.

A nested message has the same page, by the number of its part. files_page gives the
parts themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from postfix_archive.errors import (
    CopyUnreachable,
    RecordDamaged,
    SpoolFailed,
    StoreFailed,
)
from postfix_archive.message import address
from postfix_archive.message.printable import safe_text
from postfix_archive.search.index_engine import ORDERS
from postfix_archive.web import site
from postfix_archive.web.language import gettext as _
from postfix_archive.web.message import envelope, evidence, reader, threads
from postfix_archive.web.message.reader import MessageReading
from postfix_archive.web.visible.message import VisibleMessage

blueprint = Blueprint("message", __name__)
PATH = "/message/<archive>/<archive_id>"
NEWEST = "newest"


@blueprint.get(PATH)
@blueprint.get(f"{PATH}/inside/<int:number>")
@site.needs_login
def show(archive: str, archive_id: str, number: int = 0) -> str:
    """Show a message, or the one in its part with this number."""
    return _page(archive, archive_id, number, is_print=False)


@blueprint.get(f"{PATH}/print")
@site.needs_login
def print_(archive: str, archive_id: str) -> str:
    """Show a message for a printer: the envelope first, everything open."""
    return _page(archive, archive_id, 0, is_print=True)


@blueprint.get(f"{PATH}/thread")
@site.needs_login
def thread(archive: str, archive_id: str) -> str:
    """List the messages of the thread that the user may see."""
    archives = site.archives()
    message = archives.message(archive, archive_id)
    with reader.reading(message) as top:
        content = top.content
    return render_template(
        "thread.html",
        message=message,
        subject=safe_text(content.subject),
        hits=threads.thread(archives, content),
        link=_links(message),
    )


@blueprint.get(f"{PATH}/neighbour")
@site.needs_login
def neighbour(archive: str, archive_id: str) -> Response:
    """Go to the next hit of the search that led here, or to the one before."""
    archives = site.archives()
    query, place = request.args.get("q", "*"), f"{archive}/{archive_id}"
    is_previous = request.args.get("direction") == "previous"
    page = archives.search(
        query,
        sort=_search().get("sort", NEWEST),
        after="" if is_previous else place,
        before=place if is_previous else "",
        limit=1,
    )
    for hit in page.hits:
        archive, archive_id = hit.archive, hit.archive_id
    if not page.hits:
        flash(_("There is no further hit of this search."))
    parameters: dict[str, Any] = {"archive": archive, "archive_id": archive_id}
    return redirect(url_for(".show", **{**parameters, **_search()}))


def _search() -> dict[str, str]:
    """Return what links carry on of the search that led here."""
    found = {each: request.args[each] for each in ("q", "sort") if each in request.args}
    if found.get("sort", NEWEST) not in ORDERS:
        del found["sort"]
    return found


def _links(message: VisibleMessage) -> Callable[..., str]:
    """Return what makes a link to a page of this message, by its endpoint."""

    def link(endpoint: str, **values: Any) -> str:
        own = {"archive": message.archive, "archive_id": message.archive_id}
        is_page = endpoint.startswith(f"{blueprint.name}.")
        carried = _search() if is_page else {}
        parameters: dict[str, Any] = {**own, **carried, **values}
        return url_for(endpoint, **parameters)

    return link


def _page(archive: str, archive_id: str, number: int, *, is_print: bool) -> str:
    message = site.archives().message(archive, archive_id)
    values: dict[str, Any] = {
        "search": _search(),
        "link": _links(message),
        "is_print": is_print,
    }
    try:
        with reader.reading(message) as top:
            shown = top.nested(number) if number else top
            values |= _content(message, shown)
            if shown is not top:
                values["inside"] = top.part(number).inside
    except CopyUnreachable:
        values["damage"] = _(
            "The message is kept in the object storage, which cannot be read now: try"
            " again in some minutes, or ask the postmaster to run postfix-archive"
            " doctor."
        )
    except (RecordDamaged, SpoolFailed, StoreFailed) as error:
        values["damage"] = (
            safe_text(str(error))
            if message.is_whole
            else _("The copy of this message is missing or damaged.")
        )
    if message.is_whole and not number:
        values |= _record(message)
    return render_template("message.html", message=message, number=number, **values)


def _content(message: VisibleMessage, shown: MessageReading) -> dict[str, Any]:
    important, others = shown.fields()
    host = address.as_text(message.settings.myhostname)
    is_top = not shown.number
    return {
        "subject": safe_text(shown.content.subject),
        "fields": important,
        "other_fields": others,
        "text": shown.text(),
        "html_part": shown.html_part,
        "has_plain_text": shown.has_plain_text,
        "parts": shown.listed_parts(),
        "signatures": evidence.signatures(others, host) if is_top else [],
        "problems": list(map(safe_text, dict.fromkeys(shown.problems))),
    }


def _record(message: VisibleMessage) -> dict[str, Any]:
    """Return envelope, timeline and proof, for who may see all of the message."""
    try:
        named = message.named_recipients()
    except (RecordDamaged, StoreFailed):
        named = None
    return {
        "passes": list(envelope.passes(message.record, named)),
        "timeline": envelope.timeline(message.record),
        "evidence": evidence.evidence(message),
        "keeping": evidence.keeping(message),
        "has_report": bool(message.record.reports),
    }
