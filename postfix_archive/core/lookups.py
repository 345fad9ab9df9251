"""Which lookup tables Postfix uses, for what, and where that is said.

Used by the checks. Reads the values of main.cf and of -o options: restriction lists
(restriction classes too), header and body checks, maps. proxy: is looked through, and
so are pipemap: and unionmap: (DATABASE_README).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from postfix_archive.core import configuration
from postfix_archive.core.configuration import Configuration, Service

TYPES = frozenset(
    "btree cdb cidr dbm environ fail hash inline internal ldap lmdb memcache mongodb"
    " mysql netinfo nis nisplus pcre pgsql pipemap randmap regexp sdbm socketmap sqlite"
    " static tcp texthash unionmap unix".split()
)
ACCESS = "_access"  # check_sender_access and so on: access(5) and cidr_table(5)
CHECKS = ("header_checks", "body_checks")  # the ends of five parameters' names


@dataclass(frozen=True)
class Lookup:
    """One use of one table."""

    table: str  # type: name
    parameter: str  # smtpd_sender_restrictions, header_checks
    check: str  # check_sender_access; "" outside restriction lists
    service: Service | None  # None: main.cf

    @property
    def place(self) -> str:
        """Where it is said."""
        where = f"master.cf {self.service.key}" if self.service else "main.cf"
        return f"{where}: {self.parameter}"

    @property
    def has_actions(self) -> bool:
        """Tell whether the table yields actions: access(5), header_checks(5)."""
        return self.check.endswith(ACCESS) or self.parameter.endswith(CHECKS)


def named(found: Configuration) -> Iterator[Lookup]:
    """Give every table that is named anywhere, as often as it is."""
    for name in found.main:
        yield from _in_value(found, name, None)
    for service in found.services:
        for name in service.options:
            yield from _in_value(found, name, service)


def in_parameter(
    found: Configuration, name: str, service: Service | None = None
) -> Iterator[Lookup]:
    """Give the tables that a parameter names, as this service sees it."""
    yield from _in_value(found, name, service)


def _in_value(
    found: Configuration, name: str, service: Service | None
) -> Iterator[Lookup]:
    before = ""
    for word in configuration.words(found.value(name, service)):
        for table in _tables(word):
            check = before if before.startswith("check_") else ""
            yield Lookup(table, name, check, service)
        before = word


def _tables(word: str) -> Iterator[str]:
    while word.startswith("proxy:"):
        word = word[len("proxy:") :]
    kind, colon, name = word.partition(":")
    if kind in ("pipemap", "unionmap") and colon:
        for each in configuration.words(name.strip("{}")):
            yield from _tables(each)
    elif kind in TYPES and colon:
        yield word
