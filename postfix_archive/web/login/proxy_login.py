"""Logins that a proxy in front of the page has done (REMOTE_USER).

The proxy sends the name in web_proxy_header and web_proxy_secret in SECRET_HEADER, and
must overwrite both where a client sends them. Without the secret the name counts for
nothing. Roles and addresses are those of the local user of this name, else those of
the directory, if one is set. Raises LoginFailed and DirectoryFailed.
"""

from __future__ import annotations

import hmac

from flask import request

from postfix_archive.errors import UserInvalid
from postfix_archive.web import group_roles, site
from postfix_archive.web.login import local_users, login_log
from postfix_archive.web.user import User
from postfix_archive.web.web_settings import WebSettings

SOURCE = "proxy"
NAME = "proxy_name"  # key of the session: as the proxy sends it, not the directory
SECRET_HEADER = "X-Archive-Proxy-Secret"


def name_in_request(web: WebSettings) -> str:
    """Return the name that the proxy vouches for, "" if there is none."""
    if SOURCE not in web.web_logins:
        return ""
    secrets = request.headers.getlist(SECRET_HEADER)
    names = request.headers.getlist(web.web_proxy_header)
    if len(secrets) != 1 or len(names) != 1 or not names[0].strip():
        return ""
    expected = web.web_proxy_secret.encode()
    if not hmac.compare_digest(secrets[0].encode("utf-8", "replace"), expected):
        login_log.refused("", (), "proxy-secret")
        return ""
    try:
        return local_users.parse_name(names[0])
    except UserInvalid:
        return ""


def user_of(web: WebSettings, name: str) -> User:
    """Return the user of a name that the proxy vouches for."""
    with site.database_() as db:
        local = local_users.find_or_none(db, name)
    if local:
        user = local.user
    elif web.web_ldap_server:
        from postfix_archive.web.login import ldap_login  # takes 100 ms

        user = ldap_login.find(web, name)
    else:
        user = User(name, SOURCE, group_roles.grants_of(web.web_group_roles, ()))
    return User(user.name, SOURCE, user.grants, user.addresses, user.display_name)
