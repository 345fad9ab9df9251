"""Logins by LDAP and Active Directory.

The page finds the entry of a name, binds as that entry with the password (RFC 4513
5.1.3), and reads addresses and groups. Passwords go over TLS alone, to the configured
server alone. Raises LoginFailed, PasswordWrong and DirectoryFailed, whose texts name no
server: they are for whoever stands before the page; the log has the reason.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Iterator
from typing import Any

import ldap3
from ldap3.core.exceptions import LDAPException
from ldap3.utils.conv import escape_filter_chars

from postfix_archive.errors import (
    DirectoryFailed,
    LoginFailed,
    PasswordWrong,
    UserInvalid,
)
from postfix_archive.message.printable import safe_text
from postfix_archive.web import group_roles
from postfix_archive.web.language import gettext as _
from postfix_archive.web.login import local_users
from postfix_archive.web.user import User
from postfix_archive.web.web_settings import WebSettings

SOURCE = "ldap"
CONNECT_TIME, ANSWER_TIME = 5, 10  # seconds
LOGGER = logging.getLogger("postfix_archive.web")
SMTP = "smtp:"  # before the addresses in proxyAddresses of Active Directory
DISPLAY_NAMES = ("displayName", "cn")


class Entry:
    """An entry of the directory."""

    def __init__(self, dn: str, attributes: dict[str, list[str]]) -> None:
        self.dn = dn
        self._attributes = {name.lower(): each for name, each in attributes.items()}

    def values(self, attribute: str) -> list[str]:
        """Return the values of an attribute, in whatever case it is written."""
        return self._attributes.get(attribute.lower(), [])


def authenticate(web: WebSettings, name: str, password: str) -> User:
    """Return the user of a name and password."""
    # An empty password binds nobody, with success (RFC 4513 5.1.2).
    if not name or not password:
        raise LoginFailed(_wrong())
    with _translated(), _bound(web, web.web_ldap_bind_dn) as service:
        entry = _find(web, service, name)
        user = _user(web, service, entry)
        connection = _connect(web, entry.dn, password)
        try:
            if not connection.bind():
                raise PasswordWrong(_wrong())
        finally:
            connection.unbind()
        return user


def find(web: WebSettings, name: str) -> User:
    """Return the user of a name that somebody else has checked."""
    with _translated(), _bound(web, web.web_ldap_bind_dn) as service:
        return _user(web, service, _find(web, service, name))


def _wrong() -> str:
    return _("the name or the password is wrong")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (LDAPException, OSError, ssl.SSLError) as error:
        raise _failed(str(error)) from error


def _failed(reason: str) -> DirectoryFailed:
    LOGGER.warning(safe_text(f"directory-failed {reason}"))
    return DirectoryFailed(
        _("the directory does not answer: try again, or tell the postmaster")
    )


def _connect(web: WebSettings, dn: str, password: str) -> ldap3.Connection:
    """Return a connection that is encrypted, or of this host, and not yet bound."""
    url = web.web_ldap_server
    tls = ldap3.Tls(
        validate=ssl.CERT_REQUIRED, ca_certs_file=web.web_ldap_ca_file or None
    )
    server = ldap3.Server(
        url, tls=tls, connect_timeout=CONNECT_TIME, get_info=ldap3.NONE
    )
    connection = ldap3.Connection(
        server,
        user=dn or None,
        password=password or None,
        authentication=ldap3.SIMPLE if dn else ldap3.ANONYMOUS,
        read_only=True,
        receive_timeout=ANSWER_TIME,
        auto_referrals=False,  # a referral would give the password to another server
    )
    try:
        connection.open()
        if url.startswith("ldap://") and not connection.start_tls():
            raise _failed(f"{url}: StartTLS refused: {connection.result}")
    except BaseException:
        if connection.socket is not None:
            connection.socket.close()
        raise
    return connection


@contextlib.contextmanager
def _bound(web: WebSettings, dn: str) -> Iterator[ldap3.Connection]:
    """Bind as the page itself."""
    connection = _connect(web, dn, web.web_ldap_bind_password)
    try:
        if not connection.bind():
            raise _failed(f"web_ldap_bind_dn = {dn}: {connection.result}")
        yield connection
    finally:
        connection.unbind()


def _find(web: WebSettings, service: ldap3.Connection, name: str) -> Entry:
    attributes = {
        *web.web_ldap_address_attributes,
        web.web_ldap_name_attribute,
        *DISPLAY_NAMES,
    }
    if not web.web_ldap_group_filter:
        attributes.add(web.web_ldap_group_attribute)
    entries = _search(web, service, web.web_ldap_user_filter, name, attributes)
    if len(entries) != 1 or not entries[0].dn:
        raise LoginFailed(_wrong())
    return entries[0]


def _search(
    web: WebSettings,
    service: ldap3.Connection,
    search_filter: str,
    value: str,
    attributes: set[str],
) -> list[Entry]:
    """Return what a filter finds, with a value in it that means nothing but itself."""
    service.search(
        web.web_ldap_search_base,
        search_filter.replace("%s", escape_filter_chars(value)),
        attributes=sorted(attributes),
    )
    if service.result["result"] not in (0, 32):  # success, noSuchObject
        raise _failed(f"search in {web.web_ldap_search_base}: {service.result}")
    found: list[dict[str, Any]] = service.response or []
    return [
        Entry(each["dn"], _texts(each["attributes"]))
        for each in found
        if each["type"] == "searchResEntry"
    ]


def _texts(attributes: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: [str(each) for each in (value if isinstance(value, list) else [value])]
        for name, value in attributes.items()
    }


def _user(web: WebSettings, service: ldap3.Connection, entry: Entry) -> User:
    """Return the user of an entry: the name is the entry's, not what was typed."""
    names = entry.values(web.web_ldap_name_attribute)
    if web.web_ldap_group_filter:
        found = _search(web, service, web.web_ldap_group_filter, entry.dn, {"cn"})
        groups = [each.dn for each in found]
    else:
        groups = entry.values(web.web_ldap_group_attribute)
    display_names = [each for name in DISPLAY_NAMES for each in entry.values(name)]
    try:
        name = local_users.parse_name(names[0] if names else "")
    except UserInvalid as error:
        raise _failed(f"{entry.dn}: {web.web_ldap_name_attribute}: {error}") from error
    return User(
        name,
        SOURCE,
        group_roles.grants_of(web.web_group_roles, groups),
        _addresses(web, entry),
        display_names[0] if display_names else "",
    )


def _addresses(web: WebSettings, entry: Entry) -> tuple[str, ...]:
    """Return the mail addresses; what is none, such as X.400, is left out."""
    addresses: list[str] = []
    for attribute in web.web_ldap_address_attributes:
        for value in entry.values(attribute):
            text = value.lower().removeprefix(SMTP)
            with contextlib.suppress(UserInvalid):
                if ":" not in text:
                    addresses += local_users.parse_addresses([text])
    return tuple(dict.fromkeys(addresses))
