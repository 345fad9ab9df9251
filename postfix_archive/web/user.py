"""Who uses the web page, and in which archives as what. Pure values."""

from __future__ import annotations

import enum
from dataclasses import dataclass

EVERY_ARCHIVE = "*"


class Role(enum.StrEnum):
    """What somebody may do in an archive.

    OWN: read mail that names one of their addresses. AUDITOR: read all mail. OFFICER:
    that, hold, and request or approve an erasure. ADMIN: users and status, no mail.
    """

    OWN = "own"
    AUDITOR = "auditor"
    OFFICER = "officer"
    ADMIN = "admin"


@dataclass(frozen=True)
class Grant:
    """A role in one archive, or in EVERY_ARCHIVE."""

    role: Role
    archive: str = EVERY_ARCHIVE

    def __str__(self) -> str:
        """Return it as commands and archive-web.cf write it: ``auditor:a@b``."""
        return f"{self.role}:{self.archive}"

    @classmethod
    def parse(cls, text: str) -> Grant:
        """Return the grant in ``role:archive``. Raises ValueError."""
        role, _, archive = text.partition(":")
        return cls(Role(role), archive)


@dataclass(frozen=True)
class User:
    """Somebody who has logged in.

    ``name`` is the login name, ``source`` one of web_settings.LOGINS; ``addresses`` are
    their own, in lower case. The same name of two sources is one person.
    """

    name: str
    source: str
    grants: frozenset[Grant]
    addresses: tuple[str, ...] = ()
    display_name: str = ""

    def has_role(self, role: Role, archive: str) -> bool:
        """Tell whether this user has a role in an archive."""
        return not self.grants.isdisjoint((Grant(role, archive), Grant(role)))

    def may_read_all(self, archive: str) -> bool:
        """Tell whether this user may read all mail of an archive."""
        return any(self.has_role(e, archive) for e in (Role.AUDITOR, Role.OFFICER))

    def may_read_own(self, archive: str) -> bool:
        """Tell whether this user may read their own mail in an archive."""
        return bool(self.addresses) and self.has_role(Role.OWN, archive)

    def may_read(self, archive: str) -> bool:
        """Tell whether this user may read any mail of an archive."""
        return self.may_read_all(archive) or self.may_read_own(archive)

    @property
    def is_officer(self) -> bool:
        """True for an officer of any archive."""
        return any(each.role is Role.OFFICER for each in self.grants)

    @property
    def is_admin(self) -> bool:
        """True for an admin."""
        return any(each.role is Role.ADMIN for each in self.grants)

    @property
    def is_reader(self) -> bool:
        """True for who may read any mail."""
        return any(each.role is not Role.ADMIN for each in self.grants)

    @property
    def is_own_only(self) -> bool:
        """True for who may do nothing but read their own mail."""
        return all(each.role is Role.OWN for each in self.grants)
