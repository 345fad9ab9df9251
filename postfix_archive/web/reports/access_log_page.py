"""The page about who read what: for officers of an archive."""

from __future__ import annotations

from flask import Blueprint, Response, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from postfix_archive.web import site
from postfix_archive.web.language import gettext as _
from postfix_archive.web.visible.access import Filter, VisibleAccess, parse_day

blueprint = Blueprint("access_log", __name__)
Page = str | BaseResponse | tuple[str, int]
# What commands and the page record; the field takes any other, too.
ACTIONS = (
    *("access-log", "count", "erase", "export", "hold", "import", "list", "login"),
    *("login-refused", "refused", "replay", "search", "show"),
)
FIELDS = ("archive", "user", "action", "id", "since", "until")


def _access() -> VisibleAccess:
    return VisibleAccess(site.current().settings, site.archives())


def _filter() -> Filter:
    """Return the filter in the URL. Raises ValueError for a day that is none."""
    values = {name: request.values.get(name, "").strip() for name in FIELDS}
    return Filter(
        values["user"],
        values["action"],
        values["id"],
        parse_day(values["since"]),
        parse_day(values["until"]),
    )


def _archive(view: VisibleAccess) -> str:
    return request.values.get("archive", "") or next(iter(view.archives), "")


@blueprint.get("/access-log")
@site.for_officers
def list_() -> Page:
    """Show a page of entries, newest first."""
    view = _access()
    error, page = "", None
    try:
        end = request.args.get("before", type=int)
        page = view.page(_archive(view), _filter(), end)
    except ValueError:
        error = _("A day is written as 2026-11-30.")
    shown = render_template(
        "access_log.html",
        page=page,
        archive=_archive(view),
        archives=view.archives,
        actions=ACTIONS,
        fields={name: request.args.get(name, "") for name in FIELDS},
        error=error,
    )
    return shown, 400 if error else 200


@blueprint.get("/access-log.csv")
@site.for_officers
def download() -> Page:
    """Send all entries of the filter as CSV."""
    view = _access()
    try:
        lines = view.csv_lines(_archive(view), _filter())
    except ValueError:
        return _("A day is written as 2026-11-30."), 400
    response = Response(lines, mimetype="text/csv")
    response.headers.set("Content-Disposition", "attachment", filename="access-log.csv")
    return response


@blueprint.post("/access-log/verify")
@site.for_officers
def verify() -> Page:
    """Verify the chain of the access journal now."""
    view = _access()
    verdict = view.verify(_archive(view))
    return render_template(
        "access_verdict.html", verdict=verdict, archive=_archive(view)
    )
