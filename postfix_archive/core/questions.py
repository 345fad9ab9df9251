"""The lookup tables that the doctor reads, and the keys that it looks up.

Used by doctor.inspection, which does the lookups, and by the checks, which find the
results under the same table and key.
"""

from __future__ import annotations

from collections.abc import Iterator

from postfix_archive.core import gates, lookups
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.settings import Settings

REQUEST_DOMAIN = "archive-request.invalid"
REQUEST = f"1.61@{REQUEST_DOMAIN}"  # in the form of a request recipient
REWRITING = ("canonical_maps", "recipient_canonical_maps", "virtual_alias_maps")
ROUTING = "transport_maps"
BCC = ("sender_bcc_maps", "recipient_bcc_maps")
LOCAL = ("local_recipient_maps", "alias_maps", "alias_database")
VIRTUAL = ("virtual_alias_maps", "virtual_mailbox_maps", "relay_recipient_maps")


def tables(found: Configuration) -> Iterator[str]:
    """Yield the tables to read in full: those with actions, and bcc maps."""
    uses = [each for each in lookups.named(found) if each.has_actions]
    for parameter in BCC:
        uses += lookups.in_parameter(found, parameter)
    yield from dict.fromkeys(each.table for each in uses)


def keys(found: Configuration, settings: Settings | None) -> Iterator[tuple[str, str]]:
    """Yield table and key of each lookup."""
    for parameter in REWRITING:
        for each in lookups.in_parameter(found, parameter):
            yield each.table, REQUEST
            yield each.table, f"@{REQUEST_DOMAIN}"
    for each in lookups.in_parameter(found, ROUTING):
        yield each.table, REQUEST
        yield each.table, REQUEST_DOMAIN
    if settings is not None and settings.mails:
        for archive in gates.archives(found):
            yield from _of_archive(found, archive)


def _of_archive(found: Configuration, archive: str) -> Iterator[tuple[str, str]]:
    """Yield table and key of the lookups that Postfix makes for an archive address."""
    user, _, domain = archive.rpartition("@")
    for parameter in LOCAL:
        for each in lookups.in_parameter(found, parameter):
            yield each.table, user
    for parameter in VIRTUAL:
        for each in lookups.in_parameter(found, parameter):
            yield each.table, archive
            yield each.table, f"@{domain}"
