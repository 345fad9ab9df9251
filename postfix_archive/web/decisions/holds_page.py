"""The pages about legal holds, for officers: list, show, set, release."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from postfix_archive.errors import (
    AccessRefused,
    ArchiveError,
    HoldRefused,
    ReasonMissing,
)
from postfix_archive.web import site
from postfix_archive.web.language import gettext as _
from postfix_archive.web.visible.decisions import VisibleDecisions

blueprint = Blueprint("holds", __name__)
Page = str | Response | tuple[str, int]
WRONG_INPUT = 400  # HTTP status


def decisions(reason: str = "") -> VisibleDecisions:
    """Return the decisions of this user; reason is why they look or decide."""
    found = site.current()
    return VisibleDecisions(found.settings, site.user(), site.archives(reason))


def reason_of_form() -> str:
    """Return the reason in a form. Raises HoldRefused if it is empty."""
    reason = request.form.get("reason", "").strip()
    if not reason:
        raise HoldRefused(_("Give a reason: it is kept in the journal."))
    return reason


@blueprint.get("/holds")
@site.for_officers
def list_() -> Page:
    """List the holds of the officer's archives."""
    return render_template("holds.html", holds=decisions().holds())


@blueprint.get("/holds/<name>")
@site.for_officers
def show(name: str) -> Page:
    """Show a hold, how many messages it covers now, and the first of them."""
    return _show(name)


def _show(name: str, error: str = "") -> Page:
    view = decisions()
    hold = view.hold(name)
    covered, problem = None, ""
    if hold.is_open:
        archives = [e for e in hold.journals if e in view.archives]
        ids = [each for some in hold.ids.values() for each in some]
        try:
            covered = view.covered(hold.query, ids, archives, hold.set_at)
        except ReasonMissing:
            raise
        except ArchiveError as failure:
            problem = str(failure)
    page = render_template(
        "hold.html", hold=hold, covered=covered, problem=problem, error=error
    )
    return page, WRONG_INPUT if error else 200


@blueprint.route("/new-hold", methods=["GET", "POST"])
@site.for_officers
def new() -> Page:
    """Ask for a query; then show what a hold would cover, and ask for name and reason.

    A form may give ids (``archive/archive id``) instead of a query. Changes nothing.
    """
    return _new()


def _new(error: str = "") -> Page:
    values = request.values
    query = values.get("query", values.get("q", "")).strip()
    chosen = values.getlist("ids")
    view = decisions(values.get("reason", ""))
    covered = None
    if not chosen and values.get("only") == "selected":
        error = error or _("Select at least one message, or hold all of the query.")
    elif query or chosen:
        try:
            ids, archives = _targets(view, chosen, values.getlist("archive"))
            covered = view.covered(query, ids, archives)
        except (AccessRefused, ReasonMissing):
            raise
        except ArchiveError as failure:
            error = error or str(failure)
    page = render_template(
        "hold_new.html",
        query=query,
        ids=chosen,
        archives=view.archives,
        is_of_all=view.is_of_all,
        chosen=values.getlist("archive"),
        covered=covered,
        name=values.get("name", ""),
        reason=values.get("reason", ""),
        error=error,
    )
    return page, WRONG_INPUT if error else 200


def _targets(
    view: VisibleDecisions, chosen: list[str], archives: list[str]
) -> tuple[list[str], list[str]]:
    """Return the archive ids, and the archives that a hold is about."""
    pairs = [each.rpartition("/") for each in chosen]
    if pairs:
        archives = sorted({archive for archive, *_ in pairs})
    view.require(archives)
    return [archive_id for *_, archive_id in pairs], archives or view.archives


@blueprint.post("/holds")
@site.for_officers
def add() -> Page:
    """Set a hold."""
    form = request.form
    name, chosen = form.get("name", "").strip(), form.getlist("ids")
    try:
        reason = reason_of_form()
        view = decisions(reason)
        ids, archives = _targets(view, chosen, form.getlist("archive"))
        is_of_all = view.is_of_all and not (ids or form.getlist("archive"))
        view.add_hold(
            name,
            query=form.get("query", "").strip(),
            ids=ids,
            archives=[] if is_of_all else archives,
            reason=reason,
        )
    except AccessRefused:
        raise
    except ArchiveError as error:
        return _new(str(error))
    flash(_("The hold %(name)s is set.") % {"name": name})
    return redirect(url_for("holds.show", name=name))


@blueprint.post("/holds/<name>/release")
@site.for_officers
def release(name: str) -> Page:
    """Release a hold."""
    try:
        reason = reason_of_form()
        decisions(reason).release_hold(name, reason)
    except HoldRefused as error:
        return _show(name, str(error))
    flash(_("The hold %(name)s is released.") % {"name": name})
    return redirect(url_for("holds.list_"))
