"""The page to log in, and logging out."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from postfix_archive.errors import LoginDelayed, LoginFailed
from postfix_archive.web import logins, sessions

blueprint = Blueprint("login", __name__)
WRONG_LOGIN, TOO_MANY = 401, 429  # HTTP status


@blueprint.route("/login", methods=["GET", "POST"])
def log_in() -> str | Response:
    """Ask for name and password, or check them."""
    target = local_target(request.values.get("next", ""))
    if request.method == "GET":
        return render_template("login.html", next=target, error="")
    try:
        user = logins.check_password(
            request.form.get("name", ""), request.form.get("password", "")
        )
        if logins.needs_code(user):
            logins.await_code(user, target)
            return redirect(url_for("login.code"))
        return logins.finish(user, target)
    except LoginFailed as error:
        return refused("login.html", error, next=target)


@blueprint.route("/login/code", methods=["GET", "POST"])
def code() -> str | Response:
    """Ask for the one-time code after the password, or check it."""
    pending = logins.pending()
    if pending is None:
        return redirect(url_for("login.log_in"))
    if request.method == "GET":
        return render_template("login_code.html", error="")
    user, target = pending
    try:
        logins.check_code(user, request.form.get("code", ""))
        return logins.finish(user, target)
    except LoginFailed as error:
        return refused("login_code.html", error)


@blueprint.post("/logout")
def log_out() -> Response:
    """End the session."""
    sessions.log_out()
    return redirect(url_for("login.log_in"))


def refused(template: str, error: LoginFailed, **values: object) -> Response:
    """Return a page of a login again, with the error."""
    response = make_response(render_template(template, error=str(error), **values))
    response.status_code = WRONG_LOGIN
    if isinstance(error, LoginDelayed):
        response.status_code = TOO_MANY
        response.headers["Retry-After"] = str(error.seconds)
    return response


def local_target(url: str) -> str:
    """Return a URL if it is one of this page, else ""."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    is_local = not parts.scheme and not parts.netloc and url.startswith("/")
    is_plain = url.isprintable() and "\\" not in url and not url.startswith("//")
    return url if is_local and is_plain else ""
