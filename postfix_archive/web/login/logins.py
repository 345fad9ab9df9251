"""Logs a user in, whatever says who they are: the steps that all logins share.

Used by login_page. A name that the page keeps itself is checked there alone; others are
those of the directory. Then comes what the page demands of its own users: a code after
the password, a new password in place of a one-time one, codes set up. Raises
LoginFailed and its kinds, and WebDatabaseFailed.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from flask import Flask, g, redirect, request, session, url_for
from werkzeug.wrappers import Response

from postfix_archive.errors import LoginFailed, PasswordWrong, UserInvalid
from postfix_archive.web import sessions, site
from postfix_archive.web.language import gettext as _
from postfix_archive.web.login import (
    kept_form,
    local_users,
    login_limits,
    login_log,
    proxy_login,
    totp,
)
from postfix_archive.web.user import Grant, User

STEP = "step"  # key of the session: what must be done before anything else
PENDING_TIME = 300.0  # seconds to type a code
# By these the page's own users log in; no other may take the name of one then.
LOCAL_LOGINS = frozenset({local_users.SOURCE, proxy_login.SOURCE})
# What can be done before STEP is.
FREE_ENDPOINTS = frozenset(
    {
        *("static", "login.log_out", "account.password"),
        *("account.totp", "account.totp_image"),
    }
)


def client() -> str:
    """Return the address of the client."""
    return request.remote_addr or ""


def check_password(typed_name: str, password: str) -> User:
    """Return the user of a name and password, as they were typed."""
    try:
        g.login_name = local_users.parse_name(typed_name)
    except UserInvalid:
        g.login_name = ""
    with site.database_() as db:
        login_limits.begin(db, g.login_name, client())
    try:
        return _user_of(g.login_name, password)
    except PasswordWrong:
        login_log.refused(g.login_name, _grants(g.login_name), "password")
        raise
    except LoginFailed as error:
        login_log.refused("", (), type(error).__name__)
        raise


def _user_of(name: str, password: str) -> User:
    """Ask the page's own users first, then the directory."""
    web = site.current().web
    has_ldap = "ldap" in web.web_logins
    with site.database_() as db:
        is_local = local_users.find_or_none(db, name) is not None
        if local_users.SOURCE in web.web_logins and (is_local or not has_ldap):
            return local_users.check(db, name, password)
    if not has_ldap:
        raise LoginFailed(_("this page takes no passwords: log in the other way"))
    from postfix_archive.web.login import ldap_login  # takes 100 ms

    return ldap_login.authenticate(web, name, password)


def _grants(name: str) -> Collection[Grant]:
    """Return the roles of a name, where its refused login is recorded."""
    with site.database_() as db:
        local = local_users.find_or_none(db, name)
    return local.user.grants if local else login_log.EVERYWHERE


def needs_code(user: User) -> bool:
    """Tell whether a code must follow the password of this user."""
    if user.source != local_users.SOURCE:
        return False
    with site.database_() as db:
        return local_users.find(db, user.name).has_totp


def await_code(user: User, target: str) -> None:
    """Keep who has given the right password, until the code comes."""
    sessions.renew()
    session[sessions.PENDING] = {
        **sessions.to_fields(user),
        "target": target,
        "time": time.time(),
    }


def pending() -> tuple[User, str] | None:
    """Return whose code is awaited and where they go then."""
    fields = session.get(sessions.PENDING)
    if fields is None or fields["time"] < time.time() - PENDING_TIME:
        return None
    return sessions.user_of(fields), fields["target"]


def check_code(user: User, code: str) -> None:
    """Raise LoginFailed unless this is the code of a user, who gave the password."""
    with site.database_() as db:
        login_limits.begin(db, user.name, client())
    with site.database_() as db:
        is_right = totp.use(db, user.name, code)
    if not is_right:
        login_log.refused(user.name, user.grants, "code")
        raise LoginFailed(_("the code is wrong, or was used before"))


def finish(user: User, target: str) -> Response:
    """Begin the session of a user who is who they say; return where they go."""
    has_local = not LOCAL_LOGINS.isdisjoint(site.current().web.web_logins)
    with site.database_() as db:
        local = local_users.find_or_none(db, user.name)
        if local and local.is_disabled:
            user = User(user.name, user.source, frozenset())
        elif local and user.source not in LOCAL_LOGINS and has_local:
            login_log.refused(user.name, login_log.EVERYWHERE, "local-name")
            raise LoginFailed(
                _("this name is that of a user of the page itself: ask the postmaster")
            )
        if user.grants:
            name = g.get("login_name", user.name)  # as it was typed
            login_limits.succeeded(db, name, client())
    if not user.grants:
        login_log.refused(user.name, login_log.EVERYWHERE, "role")
        raise LoginFailed(_("you have no role here: ask the postmaster"))
    login_log.logged_in(user)
    begin_session(user)
    if kept_form.KEPT in session:
        return redirect(url_for("kept_form.show"))
    return redirect(target or url_for("home.show"))


def begin_session(user: User) -> None:
    """Begin a new session, with what its user must do first."""
    kept = kept_form.of_user(user.name)
    sessions.log_in(user)
    if kept:
        session[kept_form.KEPT] = kept
    if user.source != local_users.SOURCE:
        return
    with site.database_() as db:
        local = local_users.find(db, user.name)
    if local.must_change_password:
        session[STEP] = "account.password"
    elif site.current().web.web_require_totp and not local.has_totp:
        session[STEP] = "account.totp"


def _require_step() -> Response | None:
    """Lead a user to what must be done before anything else.

    The session of who has logged in at the proxy ends when the proxy names another.
    """
    if g.user and g.user.source == proxy_login.SOURCE:
        name = proxy_login.name_in_request(site.current().web)
        if name != session.get(proxy_login.NAME):
            sessions.log_out()
            g.user = None
    step = session.get(STEP) if g.user else None
    if step and request.endpoint not in FREE_ENDPOINTS:
        return redirect(url_for(step))
    return None


def install(app: Flask) -> None:
    """Have an application demand what its users must do first."""
    app.before_request(_require_step)
