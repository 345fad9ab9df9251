"""The page to log in, and logging out."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from postfix_archive.errors import LoginFailed
from postfix_archive.web import local_users, sessions, site

blueprint = Blueprint("login", __name__)
WRONG_LOGIN = 401  # HTTP status


@blueprint.route("/login", methods=["GET", "POST"])
def log_in() -> str | Response | tuple[str, int]:
    """Ask for name and password, or check them."""
    target = local_target(request.values.get("next", ""))
    if request.method == "GET":
        return render_template("login.html", next=target, error="")
    try:
        with site.database_() as db:
            user = local_users.check(
                db, request.form.get("name", ""), request.form.get("password", "")
            )
    except LoginFailed as error:
        return (
            render_template("login.html", next=target, error=str(error)),
            WRONG_LOGIN,
        )
    sessions.log_in(user)
    return redirect(target or url_for("home.show"))


@blueprint.post("/logout")
def log_out() -> Response:
    """End the session."""
    sessions.log_out()
    return redirect(url_for("login.log_in"))


def local_target(url: str) -> str:
    """Return a URL if it is one of this page, else ""."""
    parts = urlsplit(url)
    is_local = not parts.scheme and not parts.netloc and url.startswith("/")
    return url if is_local and not url.startswith(("//", "/\\")) else ""
