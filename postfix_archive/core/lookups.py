"""Find the lookup tables that Postfix uses, and the parameters that name them.

Used by doctor and tables. Searches the values of main.cf and of -o options: restriction
lists, restriction classes, header and body checks, maps. Resolves proxy:, pipemap: and
unionmap: (DATABASE_README).
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
ACCESS = "_access"  # suffix of check_sender_access etc.: access(5), cidr_table(5)
CHECKS = ("header_checks", "body_checks")  # suffixes of five parameters' names


@dataclass(frozen=True)
class Lookup:
    """One use of one lookup table."""

    table: str  # type: name
    parameter: str  # smtpd_sender_restrictions, header_checks
    check: str  # check_sender_access; "" outside restriction lists
    service: Service | None  # None: main.cf

    @property
    def place(self) -> str:
        """The file and parameter that name the table."""
        where = f"master.cf {self.service.key}" if self.service else "main.cf"
        return f"{where}: {self.parameter}"

    @property
    def has_actions(self) -> bool:
        """True if the table returns actions: access(5), header_checks(5)."""
        return self.check.endswith(ACCESS) or self.parameter.endswith(CHECKS)


def named(found: Configuration) -> Iterator[Lookup]:
    """Yield every use of a table in main.cf and master.cf."""
    for name in found.main:
        yield from _in_value(found, name, None)
    for service in found.services:
        for name in service.options:
            yield from _in_value(found, name, service)


def in_parameter(
    found: Configuration, name: str, service: Service | None = None
) -> Iterator[Lookup]:
    """Yield the tables that a parameter names, as this service sees it."""
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
