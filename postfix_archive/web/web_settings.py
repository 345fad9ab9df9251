"""The settings of archive-web.cf: names, defaults, parsing.

Used by the package web alone, so that what handles mail reads none of this. The syntax
is that of main.cf (postfix/main_cf). The file has passwords of directories: only root
and archive_web_user may read it. Raises SettingInvalid and SettingsUnreadable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postfix_archive.config import settings as archive_settings
from postfix_archive.errors import SettingInvalid, SettingsUnreadable
from postfix_archive.postfix import main_cf
from postfix_archive.web import group_roles

FILE_NAME = "archive-web.cf"
LOGINS = ("local", "ldap", "oidc", "proxy")

DEFAULTS = {
    "web_directory": "/var/lib/postfix-archive-web",
    "web_export_days": "7",
    "web_export_limit": "10000000000",
    "web_group_roles": "",
    "web_language": "en",
    "web_ldap_address_attributes": "mail proxyAddresses",
    "web_ldap_bind_dn": "",
    "web_ldap_bind_password": "",
    "web_ldap_ca_file": "",
    "web_ldap_group_attribute": "memberOf",
    "web_ldap_group_filter": "",
    "web_ldap_name_attribute": "uid",
    "web_ldap_search_base": "",
    "web_ldap_server": "",
    "web_ldap_user_filter": "(uid=%s)",
    "web_listen": "127.0.0.1:8090",
    "web_logins": "local",
    "web_oidc_ca_file": "",
    "web_oidc_client_id": "",
    "web_oidc_client_secret": "",
    "web_oidc_groups_claim": "groups",
    "web_oidc_issuer": "",
    "web_oidc_name_claim": "sub",
    "web_proxy_header": "X-Remote-User",
    "web_proxy_secret": "",
    "web_require_totp": "no",
    "web_session_limit": "12h",
    "web_session_time": "30m",
    "web_url": "",
}


# What each kind of login cannot do without.
NEEDED = {
    "ldap": ("web_ldap_server", "web_ldap_search_base"),
    "oidc": ("web_url", "web_oidc_issuer", "web_oidc_client_id"),
    "proxy": ("web_proxy_header", "web_proxy_secret"),
}
SECRET_SIZE = 16  # characters


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """All settings of archive-web.cf, with valid values."""

    web_directory: str
    web_export_days: int  # that the files of an export are kept
    web_export_limit: int  # bytes of mail in one export
    web_group_roles: group_roles.GroupRoles
    web_language: str
    web_ldap_address_attributes: tuple[str, ...]
    web_ldap_bind_dn: str  # "" for an anonymous bind
    web_ldap_bind_password: str
    web_ldap_ca_file: str  # PEM; "" for those of the system
    web_ldap_group_attribute: str  # of a user: DNs of groups
    web_ldap_group_filter: str  # finds groups; %s is the DN of the user
    web_ldap_name_attribute: str  # the login name that is kept
    web_ldap_search_base: str  # DN
    web_ldap_server: str  # ldap:// (with StartTLS), ldaps:// or ldapi://
    web_ldap_user_filter: str  # finds a user; %s is what was typed
    web_listen: str  # address:port, or unix:path
    web_logins: tuple[str, ...]
    web_oidc_ca_file: str  # PEM; "" for those of the system
    web_oidc_client_id: str
    web_oidc_client_secret: str
    web_oidc_groups_claim: str
    web_oidc_issuer: str  # URL, as the provider writes it
    web_oidc_name_claim: str  # the login name that is kept
    web_proxy_header: str  # with the name of who has logged in at the proxy
    web_proxy_secret: str  # that the proxy sends in X-Archive-Proxy-Secret
    web_require_totp: bool  # of local users
    web_session_limit: int  # seconds after the login
    web_session_time: int  # seconds without a request
    web_url: str  # as browsers see it, without a slash at the end

    @property
    def database_path(self) -> str:
        """The database of users, sessions and jobs."""
        return f"{self.web_directory}/web.db"

    @property
    def export_directory(self) -> str:
        """The directory with one directory for each export."""
        return f"{self.web_directory}/exports"

    @property
    def is_https(self) -> bool:
        """True if browsers come by https: then cookies are for https alone."""
        return self.web_url.startswith("https://")


def load(config_directory: str) -> WebSettings:
    """Return the settings; without the file all of them have their defaults."""
    path = f"{config_directory}/{FILE_NAME}"
    try:
        text = Path(path).read_text("utf-8")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsUnreadable(
            f"{path} cannot be read: {error}; archive_web_user must be able to"
        ) from error
    return parse(text, path=path)


def parse(text: str, *, path: str) -> WebSettings:
    """Parse the text of archive-web.cf. Errors have path and line number."""
    raw_values = dict(DEFAULTS)
    locations = dict.fromkeys(DEFAULTS, path)
    for number, name, value in main_cf.logical_lines(text, path=path):
        locations[name] = f"{path}, line {number}"
        if name not in DEFAULTS:
            raise SettingInvalid(
                f"{locations[name]}: {name}: unknown setting; archive-web.cf has"
                f" {', '.join(DEFAULTS)}"
            )
        raw_values[name] = value
    values: dict[str, Any] = {}
    for name in DEFAULTS:
        location = f"{locations[name]}: {name}"
        value = main_cf.expand(
            raw_values[name], raw_values.get, location=location, must_be_set=True
        )
        values[name] = PARSERS[name](value, f"{location} = {value}")
    settings = WebSettings(**values)
    _require_login_settings(settings, locations["web_logins"])
    return settings


def _require_login_settings(settings: WebSettings, location: str) -> None:
    """Raise SettingInvalid if a kind of login lacks a setting."""
    for kind in settings.web_logins:
        for name in NEEDED.get(kind, ()):
            if not getattr(settings, name):
                raise SettingInvalid(
                    f"{location}: web_logins: {kind} needs {name}, which is empty"
                )


def _parse_directory(value: str, location: str) -> str:
    if not value.startswith("/"):
        raise SettingInvalid(f"{location}: must be an absolute path")
    return value.rstrip("/")


def parse_listen(value: str, location: str) -> str:
    """Check where the page listens; location begins the error message."""
    if value.startswith("unix:/"):
        return value
    try:
        archive_settings.parse_port(value, location)
    except SettingInvalid:
        raise SettingInvalid(
            f"{location}: must be address:port, such as 127.0.0.1:8090, or unix:/path"
        ) from None
    return value


def _parse_logins(value: str, location: str) -> tuple[str, ...]:
    logins = tuple(value.replace(",", " ").split())
    if not logins or {*logins} - {*LOGINS}:
        raise SettingInvalid(f"{location}: must be some of {', '.join(LOGINS)}")
    return logins


def _parse_number(value: str, location: str) -> int:
    number = main_cf.parse_number(value)
    if not number:
        raise SettingInvalid(f"{location}: must be a number, at least 1")
    return number


def _parse_language(value: str, location: str) -> str:
    if value not in ("en", "de"):
        raise SettingInvalid(f"{location}: must be en or de")
    return value


def _parse_time(value: str, location: str) -> int:
    seconds = main_cf.parse_time(value.lower())
    if not seconds or seconds > archive_settings.TIME_LIMIT:
        raise SettingInvalid(f"{location}: must be a time such as 30m or 8h")
    return seconds


def _parse_text(value: str, location: str) -> str:
    if not value.isprintable():
        raise SettingInvalid(f"{location}: has characters that cannot be printed")
    return value


def _parse_words(value: str, location: str) -> tuple[str, ...]:
    return tuple(value.replace(",", " ").split())


def _parse_group_roles(value: str, location: str) -> group_roles.GroupRoles:
    try:
        return group_roles.parse(value)
    except ValueError as error:
        raise SettingInvalid(f"{location}: {error}") from error


def _parse_ldap_server(value: str, location: str) -> str:
    if value and not value.startswith(("ldap://", "ldaps://", "ldapi://")):
        raise SettingInvalid(
            f"{location}: must be ldap://HOST, ldaps://HOST or ldapi://PATH"
        )
    return value


def _parse_filter(value: str, location: str) -> str:
    if value and (value[:1] + value[-1:] != "()" or "%s" not in value):
        raise SettingInvalid(
            f"{location}: must be a filter such as (uid=%s), with %s for the name"
        )
    return value


def _parse_issuer(value: str, location: str) -> str:
    is_loopback = value.startswith(("http://127.0.0.1:", "http://localhost:"))
    if value and not (value.startswith("https://") or is_loopback):
        raise SettingInvalid(f"{location}: must be an https URL")
    return value


def _parse_password(value: str, location: str) -> str:
    return _parse_text(value, location.partition(" = ")[0])


def _parse_secret(value: str, location: str) -> str:
    if value and (len(value) < SECRET_SIZE or not value.isascii()):
        # Without the value: it is a secret.
        raise SettingInvalid(
            f"{location.partition(' = ')[0]}: must have {SECRET_SIZE} ASCII characters"
            " or more"
        )
    return value


def _parse_yes_no(value: str, location: str) -> bool:
    if value not in ("yes", "no"):
        raise SettingInvalid(f"{location}: must be yes or no")
    return value == "yes"


def _parse_url(value: str, location: str) -> str:
    scheme, separator, host = value.partition("://")
    is_url = scheme in ("http", "https") and separator and host and "?" not in host
    if value and not (is_url and value.isascii() and value.isprintable()):
        raise SettingInvalid(
            f"{location}: must be the URL of the page, such as"
            " https://archive.example.com"
        )
    return value.rstrip("/")


PARSERS: dict[str, Callable[[str, str], Any]] = {
    "web_directory": _parse_directory,
    "web_export_days": _parse_number,
    "web_export_limit": _parse_number,
    "web_group_roles": _parse_group_roles,
    "web_language": _parse_language,
    "web_ldap_address_attributes": _parse_words,
    "web_ldap_bind_dn": _parse_text,
    "web_ldap_bind_password": _parse_password,
    "web_ldap_ca_file": _parse_text,
    "web_ldap_group_attribute": _parse_text,
    "web_ldap_group_filter": _parse_filter,
    "web_ldap_name_attribute": _parse_text,
    "web_ldap_search_base": _parse_text,
    "web_ldap_server": _parse_ldap_server,
    "web_ldap_user_filter": _parse_filter,
    "web_listen": parse_listen,
    "web_logins": _parse_logins,
    "web_oidc_ca_file": _parse_text,
    "web_oidc_client_id": _parse_text,
    "web_oidc_client_secret": _parse_password,
    "web_oidc_groups_claim": _parse_text,
    "web_oidc_issuer": _parse_issuer,
    "web_oidc_name_claim": _parse_text,
    "web_proxy_header": _parse_text,
    "web_proxy_secret": _parse_secret,
    "web_require_totp": _parse_yes_no,
    "web_session_limit": _parse_time,
    "web_session_time": _parse_time,
    "web_url": _parse_url,
}
