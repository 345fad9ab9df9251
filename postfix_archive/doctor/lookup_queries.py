"""The lookup tables that the doctor reads, and the keys that it looks up.

Used by doctor.inspection, which does the lookups, and by the checks, which find the
results under the same table and key.
"""

from __future__ import annotations

from collections.abc import Iterator

from postfix_archive.config.settings import Settings
from postfix_archive.postfix import archive_services, lookup_tables
from postfix_archive.postfix.configuration import Configuration

REQUEST_DOMAIN = "archive-request.invalid"
REQUEST_RECIPIENT = f"1.61@{REQUEST_DOMAIN}"  # in the form of a request recipient
REWRITING_MAPS = ("canonical_maps", "recipient_canonical_maps", "virtual_alias_maps")
TRANSPORT_MAPS = "transport_maps"
BCC_MAPS = ("sender_bcc_maps", "recipient_bcc_maps")
LOCAL_RECIPIENT_MAPS = ("local_recipient_maps", "alias_maps", "alias_database")
VIRTUAL_RECIPIENT_MAPS = (
    "virtual_alias_maps",
    "virtual_mailbox_maps",
    "relay_recipient_maps",
)


def tables_to_read(config: Configuration) -> Iterator[str]:
    """Yield the tables to read in full: those with actions, and bcc maps."""
    uses = [each for each in lookup_tables.in_configuration(config) if each.has_actions]
    for parameter in BCC_MAPS:
        uses += lookup_tables.in_parameter(config, parameter)
    yield from dict.fromkeys(each.table for each in uses)


def table_keys(
    config: Configuration, settings: Settings | None
) -> Iterator[tuple[str, str]]:
    """Yield table and key of each lookup."""
    for parameter in REWRITING_MAPS:
        for lookup in lookup_tables.in_parameter(config, parameter):
            yield lookup.table, REQUEST_RECIPIENT
            yield lookup.table, f"@{REQUEST_DOMAIN}"
    for lookup in lookup_tables.in_parameter(config, TRANSPORT_MAPS):
        yield lookup.table, REQUEST_RECIPIENT
        yield lookup.table, REQUEST_DOMAIN
    if settings is not None and settings.has_mail_delivery:
        for archive in archive_services.configured_archives(config):
            yield from _archive_keys(config, archive)


def _archive_keys(config: Configuration, archive: str) -> Iterator[tuple[str, str]]:
    """Yield table and key of the lookups that Postfix makes for an archive address."""
    user, _, domain = archive.rpartition("@")
    for parameter in LOCAL_RECIPIENT_MAPS:
        for lookup in lookup_tables.in_parameter(config, parameter):
            yield lookup.table, user
    for parameter in VIRTUAL_RECIPIENT_MAPS:
        for lookup in lookup_tables.in_parameter(config, parameter):
            yield lookup.table, archive
            yield lookup.table, f"@{domain}"
