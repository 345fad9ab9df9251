"""The page that asks why somebody reads mail, where archive_require_reason = yes.

The reason stays in the session, for this day, and is recorded with each access.
"""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from postfix_archive.web import site
from postfix_archive.web.login.login_page import local_target

blueprint = Blueprint("reason", __name__)


@blueprint.route("/reason", methods=["GET", "POST"])
@site.needs_login
def ask() -> str | Response:
    """Ask for the reason, or note it and go on."""
    target = local_target(request.values.get("next", ""))
    reason = request.form.get("reason", "").strip()
    if reason:
        site.say_reason(reason)
        return redirect(target or url_for("home.show"))
    return render_template("reason.html", next=target, reason=site.said_reason())
