"""The page that has a message delivered once more, to an address the admin allows."""

from __future__ import annotations

from flask import Blueprint, render_template, request
from werkzeug.wrappers import Response

from postfix_archive.errors import HoldRefused
from postfix_archive.web import site
from postfix_archive.web.decisions.holds_page import decisions, reason_of_form

blueprint = Blueprint("replay", __name__)
for_auditors = site.needs(
    lambda user: not user.is_own_only, "this page is for auditors and officers"
)
Page = str | Response | tuple[str, int]


@blueprint.route("/replay/<archive>/<archive_id>", methods=["GET", "POST"])
@for_auditors
def show(archive: str, archive_id: str) -> Page:
    """Ask for the address and the reason, or deliver the message."""
    found = site.current().settings
    queue_id = error = ""
    if request.method == "POST":
        try:
            reason = reason_of_form()
            queue_id = decisions(reason).replay(
                archive, archive_id, request.form.get("to", ""), reason
            )
        except HoldRefused as failure:
            error = str(failure)
    page = render_template(
        "replay.html",
        archive=archive,
        archive_id=archive_id,
        addresses=found.archive_replay_to,
        queue_id=queue_id,
        error=error,
    )
    return page, 400 if error else 200
