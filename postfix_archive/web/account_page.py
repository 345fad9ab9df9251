"""The pages about the user: who they are, what they may see, password, sessions."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from postfix_archive.errors import LoginFailed, UserInvalid
from postfix_archive.web import local_users, logins, sessions, site
from postfix_archive.web.language import gettext as _

blueprint = Blueprint("account", __name__)


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
    sessions.log_in(user)  # the others have ended, this one begins anew


def require_local() -> None:
    """Raise UserInvalid for a user whose password the page does not keep."""
    if site.user().source != local_users.SOURCE:
        raise UserInvalid(
            _("your password is not kept here: change it where you log in elsewhere")
        )
