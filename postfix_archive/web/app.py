"""Makes the web page: a Flask application over one instance's archives.

Each page is a blueprint in a module of its own, named in PAGES. What all of them share
is here: who asks, the headers that keep a browser from doing anything else, the texts
of errors. Pages get mail from visible.archives alone.
"""

from __future__ import annotations

import copy
import importlib

from flask import Flask, Response, g, redirect, render_template, request, url_for
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from postfix_archive import __version__
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError, ReasonMissing
from postfix_archive.web import database, error_texts, language, sessions, site
from postfix_archive.web.api import endpoints
from postfix_archive.web.login import kept_form, logins
from postfix_archive.web.navigation import navigation
from postfix_archive.web.site import Site
from postfix_archive.web.web_settings import WebSettings

PAGES = (
    "login.login_page",
    "home",
    "login.kept_form",
    "login.account_page",
    "search.search_page",
    "login.reason_page",
    "message.message_page",
    "message.files_page",
    "login.users_page",
    "api.endpoints",
    "exports.exports_page",
    "decisions.holds_page",
    "decisions.erasures_page",
    "decisions.replay_page",
    "reports.access_log_page",
    "reports.dashboard_page",
)
REQUEST_LIMIT = 1 << 20  # bytes of a form
# Nothing from other hosts, no script and no style but ours, no frame around us.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; frame-src 'self'; form-action 'self';"
        " frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not no-referrer: by https the tokens of forms count only with a Referer of ours.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
PRIVATE = "no-store"  # mail stays in no cache


def create_app(settings: Settings, web: WebSettings) -> Flask:
    """Return the application. Raises WebDatabaseFailed and SettingInvalid."""
    app = Flask("postfix_archive.web")
    app.config.update(
        SECRET_KEY=database.secret_key(web.database_path),
        MAX_CONTENT_LENGTH=REQUEST_LIMIT,
        MAX_FORM_MEMORY_SIZE=REQUEST_LIMIT,
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session
        SESSION_COOKIE_NAME="__Host-session" if web.is_https else "session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",  # Strict would forget who came from OpenID
        SESSION_COOKIE_SECURE=web.is_https,
        PREFERRED_URL_SCHEME="https" if web.is_https else "http",
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    settings = copy.copy(settings)
    # That of archive.cf may be for the archive's user alone.
    settings.archive_spool_directory = web.web_directory
    app.extensions[site.NAME] = Site(settings, web)
    sessions.install(app)
    kept_form.install_before_tokens(app)
    CSRFProtect(app).exempt(endpoints.blueprint)  # which no browser's cookie opens
    kept_form.install(app)
    logins.install(app)
    language.install(app)
    app.add_template_filter(error_texts.translated)
    app.context_processor(_shared)
    app.after_request(_add_headers)
    app.register_error_handler(ArchiveError, _show_archive_error)
    app.register_error_handler(HTTPException, _show_http_error)
    app.register_error_handler(CSRFError, _show_token_error)
    for name in PAGES:
        module = importlib.import_module(f"postfix_archive.web.{name}")
        app.register_blueprint(module.blueprint)
    return app


def _shared() -> dict[str, object]:
    """Return what every template has."""
    return {
        "user": g.get("user"),
        "version": __version__,
        "language": language.code(),
        "navigation": navigation,
    }


def _add_headers(response: Response) -> Response:
    """Add the headers; those that a page has set itself stay."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", PRIVATE)
    return response


def _show_archive_error(error: ArchiveError) -> tuple[str, int] | BaseResponse:
    if isinstance(error, ReasonMissing) and request.method == "GET":
        return redirect(url_for("reason.ask", next=request.full_path.rstrip("?")))
    return _error_page(str(error), site.status_of(error))


def _show_http_error(error: HTTPException) -> tuple[str, int] | HTTPException:
    if error.code is None or error.code < 400:
        return error
    return _error_page(error.description or error.name, error.code)


def _show_token_error(error: CSRFError) -> tuple[str, int]:
    page = kept_form.form_again()
    if page is not None:
        return page, 400
    text = language.gettext(
        "This form was not accepted: it is of a session that has ended, or another"
        " site has sent it. Nothing was changed. Open the page again, and send it"
        " from there."
    )
    return _error_page(text, error.code or 400)


def _error_page(text: str, status: int) -> tuple[str, int]:
    return render_template("error.html", text=text, status=status), status
