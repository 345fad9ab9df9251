"""The pages about the user: who they are, password, one-time codes, sessions."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import (
    Blueprint,
    abort,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from werkzeug.wrappers import Response

from postfix_archive.errors import LoginFailed, UserInvalid
from postfix_archive.web import sessions, site
from postfix_archive.web.language import gettext as _
from postfix_archive.web.login import local_users, logins
from postfix_archive.web.login import totp as codes

blueprint = Blueprint("account", __name__)
NEW_SECRET, RECOVERY = "totp_secret", "recovery_codes"  # keys of the session


@blueprint.get("/account")
@site.needs_login
def show() -> str:
    """Show name, roles, addresses and sessions."""
    web = site.current().web
    with site.database_() as db:
        open_sessions = sessions.of_user(db, web, site.user().name)
    return render_template(
        "account.html",
        archives=site.archives().names,
        sessions=open_sessions,
        current_id=sessions.current_id(),
        # Those of other logins have neither password nor codes here.
        is_local=site.user().source == local_users.SOURCE,
    )


@blueprint.post("/account/end-session")
@site.needs_login
def end_session() -> Response:
    """End one session of this user."""
    with site.database_() as db:
        sessions.end(db, site.user().name, request.form.get("id", ""))
    flash(_("The session has ended."))
    return redirect(url_for("account.show"))


@blueprint.route("/account/password", methods=["GET", "POST"])
@site.needs_login
def password() -> str | Response | tuple[str, int]:
    """Change the password; all other sessions of this user end."""
    require_local()
    if request.method == "GET":
        return render_template("account_password.html", error="")
    try:
        _change_password()
    except (LoginFailed, UserInvalid) as error:
        return render_template("account_password.html", error=str(error)), 400
    flash(_("The password is changed. Your other sessions have ended."))
    return redirect(url_for("account.show"))


def _change_password() -> None:
    name = site.user().name
    new = request.form.get("new", "")
    old = request.form.get("old", "")
    user = logins.check_password(name, old)
    if new != request.form.get("again", ""):
        raise UserInvalid(_("the two new passwords differ"))
    if new == old:
        raise UserInvalid(_("the new password must be another one"))
    with site.database_() as db:
        local_users.set_password(db, name, new, changed_by=name)
    logins.begin_session(user)  # the others have ended, this one begins anew


@blueprint.route("/account/totp", methods=["GET", "POST"])
@site.needs_login
def totp() -> str | Response | tuple[str, int]:
    """Set up one-time codes, or take them away."""
    require_local()
    if request.method == "GET":
        return _totp_page()
    try:
        if request.form.get("action") == "disable":
            _disable_totp()
        else:
            _enable_totp()
    except (LoginFailed, UserInvalid) as error:
        return _totp_page(str(error)), 400
    return redirect(url_for("account.totp"))


def _totp_page(error: str = "") -> str:
    name = site.user().name
    with site.database_() as db:
        has_totp = local_users.find(db, name).has_totp
        count = codes.recovery_count(db, name)
    if not has_totp and NEW_SECRET not in session:
        session[NEW_SECRET] = codes.new_secret()
    return render_template(
        "account_totp.html",
        error=error,
        has_totp=has_totp,
        is_required=site.current().web.web_require_totp,
        secret=session.get(NEW_SECRET, ""),
        recovery_codes=session.pop(RECOVERY, []),
        recovery_count=count,
    )


def _enable_totp() -> None:
    user = site.user()
    secret = session.get(NEW_SECRET, "")
    with site.database_() as db:
        if local_users.find(db, user.name).has_totp:
            raise UserInvalid(_("take the codes of before away first"))
        recovery_codes = codes.enable(
            db, user.name, secret, request.form.get("code", ""), changed_by=user.name
        )
    logins.begin_session(user)
    session[RECOVERY] = recovery_codes


def _disable_totp() -> None:
    """Take the codes away; a stolen session alone cannot."""
    name = site.user().name
    user = logins.check_password(name, request.form.get("password", ""))
    with site.database_() as db:
        codes.disable(db, name, changed_by=name)
    logins.begin_session(user)


@blueprint.get("/account/totp.svg")
@site.needs_login
def totp_image() -> Response:
    """Show the QR code of the new secret."""
    secret = session.get(NEW_SECRET)
    if secret is None:
        abort(404)
    image = codes.image(site.user().name, secret, _issuer())
    return make_response(image, {"Content-Type": "image/svg+xml"})


def _issuer() -> str:
    """Return the name of this page as the user's device shows it."""
    host = urlsplit(site.current().web.web_url).hostname
    return f"Mail archive {host}" if host else "Mail archive"


def require_local() -> None:
    """Raise UserInvalid for a user whose password the page does not keep."""
    if site.user().source != local_users.SOURCE:
        raise UserInvalid(
            _("your password is not kept here: change it where you log in elsewhere")
        )
