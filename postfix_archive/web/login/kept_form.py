"""Keeps a form that was sent when the session had ended, so that nothing is lost.

The fields are kept in the session in which the user logs in again, for that user alone,
and only if the form came from a page of the session that has ended. After the login
they are shown, and sent again by a click. Forms with passwords are not kept.
"""

from __future__ import annotations

from typing import Any

import itsdangerous
from flask import (
    Blueprint,
    Flask,
    current_app,
    g,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from werkzeug.wrappers import Response

from postfix_archive.web import sessions, site

blueprint = Blueprint("kept_form", __name__)
KEPT = "kept_form"  # key of the session
TOKEN = "csrf_token"  # of Flask-WTF: field of a form, and key of the session
TOKEN_SALT = "wtf-csrf-token"  # of Flask-WTF
PASSWORD_PAGES = frozenset({"account", "login"})  # blueprints


@blueprint.get("/kept-form")
@site.needs_login
def show() -> str | Response:
    """Show the form that was kept, to be sent again."""
    kept = session.get(KEPT)
    if kept is None:
        return redirect(url_for("home.show"))
    return render_template("kept_form.html", kept=kept)


@blueprint.post("/kept-form/discard")
@site.needs_login
def discard() -> Response:
    """Forget the form."""
    session.pop(KEPT, None)
    return redirect(url_for("home.show"))


def form_again() -> str | None:
    """Return the page that sends this request's form again, with a token that is valid.

    For a user who has logged in again in another tab. None for a form that a page of
    another site may have sent: Sec-Fetch-Site is the browser's own word.
    """
    is_ours = request.headers.get("Sec-Fetch-Site") == "same-origin"
    if g.get("user") is None or not is_ours or not _can_be_kept():
        return None
    return render_template("kept_form.html", kept=_form(g.user.name))


def of_user(name: str) -> dict[str, Any] | None:
    """Return what is kept in this session for a user who logs in."""
    kept: dict[str, Any] | None = session.get(KEPT)
    return kept if kept and kept["user"] == name else None


def _keep() -> Response | None:
    """Keep the form of a session that has ended, and lead to the login."""
    if request.method != "POST" or g.user is not None or not _can_be_kept():
        return None
    found: Any = session
    former = found._get_current_object().former
    if sessions.USER not in former or not _is_token_of(former):
        return None
    session[KEPT] = _form(former[sessions.USER]["name"])
    return redirect(url_for("login.log_in"))


def _forget_sent() -> None:
    """Forget the form when it is sent again."""
    if request.method == "POST" and KEPT in session:
        if session[KEPT]["url"] == _url():
            session.pop(KEPT)


def _can_be_kept() -> bool:
    return request.endpoint is not None and request.blueprint not in PASSWORD_PAGES


def _form(user: str) -> dict[str, Any]:
    fields = [e for e in request.form.items(multi=True) if e[0] != TOKEN]
    return {"user": user, "url": _url(), "fields": fields}


def _url() -> str:
    return request.full_path.rstrip("?")


def _is_token_of(former: dict[str, Any]) -> bool:
    """Tell whether the form has the token of the session that has ended."""
    secret = current_app.secret_key
    assert secret
    serializer = itsdangerous.URLSafeTimedSerializer(secret, salt=TOKEN_SALT)
    try:
        token = serializer.loads(request.form.get(TOKEN, ""))
    except itsdangerous.BadData:
        return False
    return bool(token) and token == former.get(TOKEN)


def install_before_tokens(app: Flask) -> None:
    """Have an application keep forms; before CSRFProtect refuses them."""
    app.before_request(_keep)


def install(app: Flask) -> None:
    """Have an application forget what is sent again; after CSRFProtect."""
    app.before_request(_forget_sent)
