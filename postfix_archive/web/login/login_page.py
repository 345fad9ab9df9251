"""The page to log in, and logging out."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import (
    Blueprint,
    abort,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from werkzeug.wrappers import Response

from postfix_archive.errors import LoginDelayed, LoginFailed
from postfix_archive.web import sessions, site
from postfix_archive.web.login import kept_form, logins, proxy_login

blueprint = Blueprint("login", __name__)
LOGGED_OUT = "logged_out"  # in the URL
URL_LIMIT = 2000  # characters of a URL that is shown after the login
WRONG_LOGIN, TOO_MANY = 401, 429  # HTTP status


@blueprint.route("/login", methods=["GET", "POST"])
def log_in() -> str | Response:
    """Ask for name and password, or check them."""
    target = local_target(request.values.get("next", ""))
    if request.method == "GET":
        return _login_by_proxy(target) or _login_page(target)
    try:
        user = logins.check_password(
            request.form.get("name", ""), request.form.get("password", "")
        )
        if logins.needs_code(user):
            logins.await_code(user, target)
            return redirect(url_for("login.code"))
        return logins.finish(user, target)
    except LoginFailed as error:
        return refused(_login_page(target, str(error)), error)


def _login_page(target: str, error: str = "") -> str:
    web = site.current().web
    return render_template(
        "login.html",
        next=target,
        error=error,
        has_password=not {"local", "ldap"}.isdisjoint(web.web_logins),
        has_oidc="oidc" in web.web_logins,
        has_proxy=bool(proxy_login.name_in_request(web)),
        has_kept_form=kept_form.KEPT in session,
    )


def _login_by_proxy(target: str) -> Response | None:
    """Log in who has logged in at the proxy, unless they have just logged out."""
    web = site.current().web
    name = proxy_login.name_in_request(web)
    if not name or LOGGED_OUT in request.args:
        return None
    try:
        answer = logins.finish(proxy_login.user_of(web, name), target)
        session[proxy_login.NAME] = name
        return answer
    except LoginFailed as error:
        return refused(_login_page(target, str(error)), error)


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
        page = render_template("login_code.html", error=str(error))
        return refused(page, error)


@blueprint.get("/login/oidc")
def oidc() -> Response:
    """Lead to the OpenID provider. By GET: forms may lead to this page alone."""
    _require_oidc()
    from postfix_archive.web.login import oidc_login  # takes 200 ms

    target = local_target(request.args.get("next", ""))
    try:
        return oidc_login.begin(site.current().web, target)
    except LoginFailed as error:
        return refused(_login_page(target, str(error)), error)


@blueprint.get("/login/oidc/callback")
def oidc_callback() -> Response:
    """Log in who comes back from the OpenID provider."""
    _require_oidc()
    from postfix_archive.web.login import oidc_login  # takes 200 ms

    try:
        user, target = oidc_login.finish(site.current().web)
        return logins.finish(user, target)
    except LoginFailed as error:
        return refused(_login_page("", str(error)), error)


def _require_oidc() -> None:
    if "oidc" not in site.current().web.web_logins:
        abort(404)


@blueprint.post("/logout")
def log_out() -> Response:
    """End the session."""
    sessions.log_out()
    return redirect(url_for("login.log_in") + f"?{LOGGED_OUT}=1")


def refused(page: str, error: LoginFailed) -> Response:
    """Return a page of a login that was refused."""
    response = make_response(page)
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
    return url if is_local and is_plain and len(url) <= URL_LIMIT else ""
