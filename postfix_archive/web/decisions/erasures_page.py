"""The pages about erasures, for officers: two of them must say so.

One requests it on the page of the message, another one approves it here.
"""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from postfix_archive.errors import HoldRefused
from postfix_archive.web import site
from postfix_archive.web.decisions.holds_page import decisions, reason_of_form
from postfix_archive.web.language import gettext as _

blueprint = Blueprint("erasures", __name__)
Page = str | Response | tuple[str, int]


@blueprint.get("/erasures")
@site.for_officers
def list_() -> Page:
    """List the open requests."""
    return render_template("erasures.html", requests=decisions().erasures())


@blueprint.get("/erasures/<archive>/<archive_id>")
@site.for_officers
def show(archive: str, archive_id: str) -> Page:
    """Show one request: what goes, what stays, what cannot be reached."""
    view = decisions(request.args.get("reason", ""))
    one = view.erasure(archive, archive_id)
    hits, copies = view.effect(one)
    settings = site.current().settings
    return render_template(
        "erasure.html", one=one, hits=hits, copies=copies, settings=settings
    )


@blueprint.post("/erasures")
@site.for_officers
def add() -> Page:
    """Request the erasure of a message."""
    form = request.form
    archive, archive_id = form.get("archive", ""), form.get("id", "")
    try:
        reason = reason_of_form()
    except HoldRefused as error:
        page = render_template(
            "erasure_new.html", archive=archive, archive_id=archive_id, error=str(error)
        )
        return page, 400
    decisions(reason).request_erasure(archive, archive_id, reason)
    flash(_("The erasure is requested. Another officer must approve it."))
    return redirect(url_for("erasures.list_"))


@blueprint.get("/erasures/new/<archive>/<archive_id>")
@site.for_officers
def new(archive: str, archive_id: str) -> Page:
    """Ask for the reason of a request."""
    decisions().require([archive])
    return render_template("erasure_new.html", archive=archive, archive_id=archive_id)


@blueprint.post(
    "/erasures/<archive>/<archive_id>/<any(approve, withdraw):decision>",
)
@site.for_officers
def decide(archive: str, archive_id: str, decision: str) -> Page:
    """Approve or withdraw a request."""
    decisions().decide_erasure(archive, archive_id, decision)
    if decision == "approve":
        flash(_("The message is erased."))
    else:
        flash(_("The request is withdrawn: the message stays."))
    return redirect(url_for("erasures.list_"))
