"""Find the lookup tables that Postfix uses, and the parameters that name them.

Used by doctor and tables. Searches the values of main.cf and of -o options: restriction
lists, restriction classes, header and body checks, maps. Resolves proxy:, pipemap: and
unionmap: (DATABASE_README).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from postfix_archive.postfix import configuration
from postfix_archive.postfix.configuration import Configuration, Service

TABLE_TYPES = frozenset(
    "btree cdb cidr dbm environ fail hash inline internal ldap lmdb memcache mongodb"
    " mysql netinfo nis nisplus pcre pgsql pipemap randmap regexp sdbm socketmap sqlite"
    " static tcp texthash unionmap unix".split()
)
# Suffix of check_sender_access etc.: access(5), cidr_table(5).
ACCESS_SUFFIX = "_access"
CHECKS_SUFFIXES = ("header_checks", "body_checks")  # suffixes of five parameters' names


@dataclass(frozen=True)
class Lookup:
    """One use of one lookup table."""

    table: str  # type: name
    parameter: str  # smtpd_sender_restrictions, header_checks
    check: str  # check_sender_access; "" outside restriction lists
    service: Service | None  # None: main.cf

    @property
    def location(self) -> str:
        """The file and parameter that name the table."""
        file = f"master.cf {self.service.key}" if self.service else "main.cf"
        return f"{file}: {self.parameter}"

    @property
    def has_actions(self) -> bool:
        """True if the table returns actions: access(5), header_checks(5)."""
        return self.check.endswith(ACCESS_SUFFIX) or self.parameter.endswith(
            CHECKS_SUFFIXES
        )


def in_configuration(config: Configuration) -> Iterator[Lookup]:
    """Yield every use of a table in main.cf and master.cf."""
    for name in config.main:
        yield from _in_value(config, name, None)
    for service in config.services:
        for name in service.options:
            yield from _in_value(config, name, service)


def in_parameter(
    config: Configuration, name: str, service: Service | None = None
) -> Iterator[Lookup]:
    """Yield the tables that a parameter names, as this service sees it."""
    yield from _in_value(config, name, service)


def _in_value(
    config: Configuration, name: str, service: Service | None
) -> Iterator[Lookup]:
    previous = ""
    for element in configuration.split_list(config.value(name, service)):
        for table in _resolve_tables(element):
            check = previous if previous.startswith("check_") else ""
            yield Lookup(table, name, check, service)
        previous = element


def _resolve_tables(element: str) -> Iterator[str]:
    while element.startswith("proxy:"):
        element = element[len("proxy:") :]
    table_type, colon, name = element.partition(":")
    if table_type in ("pipemap", "unionmap") and colon:
        for each in configuration.split_list(name.strip("{}")):
            yield from _resolve_tables(each)
    elif table_type in TABLE_TYPES and colon:
        yield element
