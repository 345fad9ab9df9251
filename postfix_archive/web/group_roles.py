"""Which groups of a directory or an OpenID provider have which roles (web_group_roles).

    web_group_roles =
        { cn=auditors,ou=groups,dc=example,dc=com = auditor officer:legal@example.com }
        { * = own }

The braces are those of main.cf, since names of groups have commas and spaces. * is
everybody who can log in. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from postfix_archive.postfix import main_cf
from postfix_archive.web.user import EVERY_ARCHIVE, Grant

EVERYBODY = "*"
GroupRoles = tuple[tuple[str, frozenset[Grant]], ...]


def parse(text: str) -> GroupRoles:
    """Return group and roles of each pair of braces. Raises ValueError."""
    pairs = []
    rest = text.strip(" ,")
    while rest:
        parts = main_cf.split_brackets(rest) if rest.startswith("{") else None
        if parts is None:
            raise ValueError("must be { GROUP = ROLES } for each group")
        group, equals, roles = parts[0].rpartition(" = ")
        grants = frozenset(map(_grant, roles.replace(",", " ").split()))
        if not equals or not group.strip() or not grants:
            raise ValueError(
                f"{{{parts[0]}}}: must be {{ GROUP = ROLES }}, with spaces around ="
            )
        pairs.append((normalize(group.strip()), grants))
        rest = parts[1].lstrip(" ,")
    return tuple(pairs)


def grants_of(group_roles: GroupRoles, groups: Iterable[str]) -> frozenset[Grant]:
    """Return the roles of somebody in these groups."""
    names = {EVERYBODY, *map(normalize, groups)}
    return frozenset(
        each for group, grants in group_roles if group in names for each in grants
    )


def normalize(group: str) -> str:
    """Return a group's name in one spelling: in a DN case and spaces do not matter."""
    if "=" not in group:
        return group
    parts = (each.strip().partition("=") for each in group.split(","))
    return ",".join(f"{k.strip()}={v.strip()}" for k, _, v in parts).casefold()


def _grant(text: str) -> Grant:
    try:
        grant = Grant.parse(text.lower())
    except ValueError:
        raise ValueError(
            f"{text}: must be own, auditor, officer or admin, for one archive with"
            " its address: auditor:legal@example.com"
        ) from None
    return grant if ":" in text else Grant(grant.role, EVERY_ARCHIVE)
