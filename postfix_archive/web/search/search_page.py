"""The search page: the query, its hits, the chart and lists that narrow it.

The URL is the query: /search?q=…&sort=…&archive=…&after=…
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlencode

from flask import Blueprint, current_app, redirect, render_template, request
from werkzeug.wrappers import Response

from postfix_archive.errors import (
    ArchiveError,
    IndexMissing,
    QueryInvalid,
    ReasonMissing,
    RecordNotFound,
    SavedSearchInvalid,
)
from postfix_archive.search.index_engine import ORDERS
from postfix_archive.search.index_schema import OUTCOME_KINDS
from postfix_archive.web import site
from postfix_archive.web.language import gettext as _
from postfix_archive.web.search import facets, hit_rows, query_form, saved_searches
from postfix_archive.web.search.saved_searches import SavedSearch

blueprint = Blueprint("search", __name__)
PAGE_SIZE = 20  # hits
DEFAULT_SORT = "newest"
SORTS: dict[str, Callable[[], str]] = {
    "newest": lambda: _("last archived first"),
    "oldest": lambda: _("first archived first"),
    "date": lambda: _("newest first"),
    "date-oldest": lambda: _("oldest first"),
    "largest": lambda: _("largest first"),
    "smallest": lambda: _("smallest first"),
}
NOT_FOUND, UNAVAILABLE, INVALID = 404, 503, 400  # HTTP status
needs_reader = site.needs(lambda user: user.is_reader, site.FOR_READERS)


class Request(NamedTuple):
    """What the URL asks for."""

    query: str
    sort: str
    archives: tuple[str, ...]
    after: str
    before: str

    def url(self, **changes: object) -> str:
        """Return the URL of the first page of this search, with changes."""
        values = self._replace(after="", before="")._replace(
            **changes  # type: ignore[arg-type]
        )
        pairs = [
            ("q", values.query),
            ("sort", values.sort if values.sort != DEFAULT_SORT else ""),
            *(("archive", each) for each in values.archives),
            ("after", values.after),
            ("before", values.before),
        ]
        # Not url_for(), which takes 0.1 ms: a page has a hundred of these.
        parameters = urlencode([each for each in pairs if each[1]], safe="@:/")
        return f"{request.script_root}/search?{parameters}".rstrip("?")


@blueprint.get("/search")
@needs_reader
def search() -> str | tuple[str, int]:
    """Show the box, and what the query finds."""
    asked = _request()
    return _page(asked, "") if not asked.query.strip() else _results(asked)


@blueprint.get("/search/compose")
@needs_reader
def compose() -> Response:
    """Write a query from the fields of the form, and go to its search."""
    fields = {each: request.args.get(each, "") for each in query_form.FIELDS}
    asked = Request(query_form.compose(fields), _request().sort, (), "", "")
    return redirect(asked.url())


@blueprint.post("/search/saved")
@needs_reader
def save() -> Response | tuple[str, int]:
    """Save a search."""
    asked = _request()
    name = request.form.get("name", "")
    saved = SavedSearch(name, asked.query, asked.sort, " ".join(asked.archives))
    try:
        with site.database_() as db:
            saved_searches.save(db, site.user().name, saved)
    except SavedSearchInvalid as error:
        return _page(asked, str(error)), INVALID
    return redirect(asked.url())


@blueprint.post("/search/saved/delete")
@needs_reader
def delete() -> Response:
    """Delete a saved search."""
    with site.database_() as db:
        saved_searches.delete(db, site.user().name, request.form.get("name", ""))
    return redirect(_request().url())


def _request() -> Request:
    values = request.values
    sort = values.get("sort", DEFAULT_SORT)
    return Request(
        values.get("q", ""),
        sort if sort in ORDERS else DEFAULT_SORT,
        tuple(values.getlist("archive")),
        values.get("after", ""),
        values.get("before", ""),
    )


def _results(asked: Request) -> str | tuple[str, int]:
    archives = site.archives()
    try:
        if not archives.names:
            error = _("There is no archive that you may read.")
            return _page(asked, error, notices=archives.away), UNAVAILABLE
        page = archives.search(
            asked.query,
            sort=asked.sort,
            archives=asked.archives,
            after=asked.after,
            before=asked.before,
            limit=PAGE_SIZE,
        )
        groups = archives.groups(asked.query, archives=asked.archives)
    except QueryInvalid as error:
        return _page(asked, str(error), mark=_mark(error)), INVALID
    except RecordNotFound as error:
        return _page(asked, str(error)), NOT_FOUND
    except ReasonMissing:
        raise
    except ArchiveError as error:
        return _page(asked, str(error), is_missing=isinstance(error, IndexMissing)), (
            UNAVAILABLE
        )
    notices = list(page.notices)
    holds = archives.hold_names(page.hits, notices.append)
    rows = hit_rows.make(archives, page.hits, asked.query, holds)
    return _page(
        asked,
        "",
        result=page,
        rows=rows,
        notices=notices,
        groups=groups,
        facets=facets.facets(groups, asked.query),
        chart=facets.chart(groups, asked.query),
    )


def _mark(error: QueryInvalid) -> tuple[str, str, str]:
    """Return the query before the place of the error, at it, and after."""
    place = error.position
    return (
        error.query[:place],
        error.query[place : place + 1] or " ",
        error.query[place + 1 :],
    )


def _page(asked: Request, error: str, **values: object) -> str:
    user, names = site.user(), _archive_names()
    with site.database_() as db:
        saved = saved_searches.of_user(db, user.name)
    return render_template(
        "search.html",
        asked=asked,
        error=error,
        saved=[(each, _saved_url(each)) for each in saved],
        sorts=[(each, label()) for each, label in SORTS.items()],
        outcomes=OUTCOME_KINDS if any(map(user.may_read_all, names)) else (),
        archives=names,
        reason=site.said_reason(),
        can_export="exports.start" in current_app.view_functions,
        needs_reason=site.current().settings.archive_require_reason,
        **values,
    )


def _saved_url(saved: SavedSearch) -> str:
    return Request(saved.query, saved.sort, tuple(saved.archives.split()), "", "").url()


def _archive_names() -> list[str]:
    """Return the archives to choose from, none where the store is away."""
    try:
        return site.archives().names
    except ArchiveError:
        return []
