"""The admins' page: users, their roles, what was changed by whom.

An admin reads no mail. Whoever gets a role is listed with who gave it, here and in the
access journals, and no admin changes their own roles.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, flash, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response

from postfix_archive.errors import UserInvalid
from postfix_archive.web import site
from postfix_archive.web.language import gettext as _
from postfix_archive.web.login import local_users, login_log
from postfix_archive.web.user import User

blueprint = Blueprint("users", __name__)
CHANGES_SHOWN = 100
ONE_TIME = "one_time_password"  # key of the session: shown once
needs_admin = site.needs(lambda user: user.is_admin, site.FOR_ADMINS)


@blueprint.get("/users")
@needs_admin
def list_() -> str:
    """List the users, and the last changes."""
    return _page()


def _page(error: str = "") -> str:
    with site.database_() as db:
        users = local_users.read(db)
        changes = local_users.changes(db, CHANGES_SHOWN)
    return render_template(
        "users.html",
        users=users,
        changes=changes,
        error=error,
        one_time=session.pop(ONE_TIME, None),
    )


@blueprint.post("/users")
@needs_admin
def add() -> Response | tuple[str, int]:
    """Add a user with a one-time password."""
    try:
        user = _user_in_form(_other_name())
        password = _set_one_time_password(local_users.add, user)
    except UserInvalid as error:
        return _page(str(error)), 400
    return _show_once(
        user.name, password, f"added {user.name}: {local_users.rights(user)}"
    )


@blueprint.get("/users/edit")
@needs_admin
def edit() -> str:
    """Show one user with forms."""
    return _edit_page(_name(request.args.get("name", "")))


def _edit_page(name: str, error: str = "") -> str:
    with site.database_() as db:
        found = local_users.find(db, name)
    return render_template("users_edit.html", found=found, error=error)


@blueprint.post("/users/rights")
@needs_admin
def change_rights() -> Response | tuple[str, int]:
    """Set roles, addresses and display name."""
    name = _other_name()
    try:
        user = _user_in_form(name)
    except UserInvalid as error:
        return _edit_page(name, str(error)), 400
    with site.database_() as db:
        local_users.change_rights(db, user, changed_by=site.user().name)
    return _changed(f"changed {name}: {local_users.rights(user)}")


@blueprint.post("/users/password")
@needs_admin
def reset_password() -> Response:
    """Give a user a one-time password, and take the second factor away."""
    name = _other_name()
    password = _set_one_time_password(local_users.set_password, name)
    return _show_once(name, password, f"reset the password of {name}")


@blueprint.post("/users/state")
@needs_admin
def set_state() -> Response:
    """Disable or enable a user."""
    name = _other_name()
    is_disabled = request.form.get("state") == "disabled"
    with site.database_() as db:
        local_users.set_disabled(db, name, is_disabled, changed_by=site.user().name)
    return _changed(f"{'disabled' if is_disabled else 'enabled'} {name}")


def _set_one_time_password(store: Callable[..., None], user: User | str) -> str:
    """Return a new password, which store has written for a new or known user."""
    password = local_users.one_time_password()
    changed_by = site.user().name
    with site.database_() as db:
        store(db, user, password, changed_by=changed_by, must_change_password=True)
    return password


def _show_once(name: str, password: str, text: str) -> Response:
    session[ONE_TIME] = {"name": name, "password": password}
    return _changed(text)


def _changed(text: str) -> Response:
    login_log.changed(site.user().name, text)
    flash(_("The change is made and recorded."))
    return redirect(url_for("users.list_"))


def _name(text: str) -> str:
    name = local_users.parse_name(text)
    with site.database_() as db:
        return local_users.find(db, name).user.name


def _other_name() -> str:
    """Return the name in the form, unless it is the admin's own."""
    name = local_users.parse_name(request.form.get("name", ""))
    if name == site.user().name:
        raise UserInvalid(
            _(
                "nobody changes their own roles and state: ask another admin, or on the"
                " host use the command postfix-archive user"
            )
        )
    return name


def _user_in_form(name: str) -> User:
    return User(
        name,
        local_users.SOURCE,
        frozenset(map(local_users.parse_grant, request.form.get("roles", "").split())),
        local_users.parse_addresses(request.form.get("addresses", "").split()),
        " ".join(request.form.get("display_name", "").split()),
    )
