"""web_group_roles: which groups have which roles."""

from __future__ import annotations

import pytest

from postfix_archive.errors import SettingInvalid
from postfix_archive.web import group_roles, web_settings

DN = "CN=Mail Auditors,OU=Groups,DC=example,DC=com"
TEXT = f"""\
web_group_roles =
    {{ {DN} = auditor officer:legal@example.com }},
    {{ admins = admin }}
    {{ * = own }}
"""


@pytest.mark.parametrize(
    ("groups", "grants"),
    [
        ([], "own:*"),
        (["admins"], "admin:* own:*"),
        (["Admins"], "own:*"),  # outside a DN case matters
        ([DN], "auditor:* officer:legal@example.com own:*"),
        ([DN.lower().replace(",", " , ")], "auditor:* officer:legal@example.com own:*"),
        ([DN + ",DC=x", "CN=Mail Auditors"], "own:*"),
        (["", "*", "="], "own:*"),
    ],
)
def test_grants(groups: list[str], grants: str) -> None:
    parsed = web_settings.parse(TEXT, path="archive-web.cf").web_group_roles
    found = group_roles.grants_of(parsed, groups)
    assert " ".join(sorted(map(str, found))) == grants


@pytest.mark.parametrize(
    "value",
    [
        "auditors = auditor",
        "{ auditors }",
        "{ = auditor }",
        "{ auditors = }",
        "{ auditors = root }",
        "{ auditors = auditor",
        "{ a = own } x",
    ],
)
def test_invalid(value: str) -> None:
    with pytest.raises(SettingInvalid, match="line 1: web_group_roles"):
        web_settings.parse(f"web_group_roles = {value}\n", path="archive-web.cf")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("web_logins = ldap\n", "ldap needs web_ldap_server"),
        ("web_logins = local oidc\n", "oidc needs web_url"),
        ("web_logins = proxy\n", "proxy needs web_proxy_secret"),
        ("web_proxy_secret = short\n", "16 ASCII characters"),
        ("web_ldap_server = http://x\n", "must be ldap://HOST"),
        ("web_ldap_user_filter = uid=%s\n", "must be a filter"),
        ("web_ldap_user_filter = (uid=x)\n", "must be a filter"),
        ("web_oidc_issuer = http://idp.example.com\n", "must be an https URL"),
        ("web_require_totp = maybe\n", "must be yes or no"),
        ("web_session_limit = never\n", "must be a time"),
    ],
)
def test_invalid_settings_of_logins(text: str, error: str) -> None:
    with pytest.raises(SettingInvalid, match=error) as found:
        web_settings.parse(text, path="archive-web.cf")
    assert "short" not in str(found.value)
