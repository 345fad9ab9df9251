"""List the table lookups that Postfix makes for a message, and the default request.

Used by ``postfix-archive explain`` through tables.explain, which does the lookups. Keys
are in the order of access(5). Lookups whose key only DNS or a TLS session provides are
listed as unanswered. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from postfix_archive.errors import RequestInvalid
from postfix_archive.message import request
from postfix_archive.postfix import (
    archive_services,
    capture_maps,
    configuration,
    lookup_tables,
)
from postfix_archive.postfix.configuration import Configuration, Service
from postfix_archive.postfix.lookup_tables import Lookup

PATTERN_TYPES = ("pcre", "regexp", "cidr")  # looked up with the whole string alone
RESTRICTION_LISTS = tuple(
    f"smtpd_{each}_restrictions"
    for each in "client helo sender relay recipient data end_of_data".split()
)
HEADER_CHECKS = ("header_checks", "mime_header_checks", "nested_header_checks")
NULL_SENDER_PARAMETER = "smtpd_null_access_lookup_key"


@dataclass(frozen=True)
class Mail:
    """The message to explain: envelope, client and session, "" where not known."""

    sender: str
    recipients: tuple[str, ...]
    client: str = ""  # IP address
    client_name: str = ""
    helo: str = ""
    sasl_username: str = ""
    has_content: bool = False


@dataclass(frozen=True)
class TableQuery:
    """One table to look up: the keys in Postfix's order, or flags for a message."""

    lookup: Lookup
    keys: tuple[str, ...] = ()
    postmap_flags: str = ""  # postmap(1): hm, bm for the message; "" for keys


def default_request(
    config: Configuration, service: Service
) -> tuple[str, tuple[str, ...]]:
    """Return the archive parameter of a service, with its place, and its archives.

    No archives where the parameter has no effect; the text ends with the reason in
    brackets then.
    """
    is_option = "archive" in service.options
    place = f"master.cf {service.key}: -o archive" if is_option else "main.cf: archive"
    value = config.value("archive", service)
    try:
        archives = request.from_nexthop(value) if value else ()
    except RequestInvalid:
        return f"{place} = {value} (not an archive address: mail is deferred)", ()
    text = f"{place} = {config.raw('archive', service)}"
    if capture_maps.map_of(config, service):
        return text, archives
    content_filter = config.value("content_filter", service)
    if archives and not content_filter.startswith(archive_services.STAMP_TRANSPORT):
        return (
            f"{text} (no effect: the service's content_filter is"
            f" {content_filter or 'empty'}, and it has no capture map)"
        ), ()
    return text, archives


def table_queries(
    config: Configuration, service: Service, mail: Mail
) -> Iterator[TableQuery]:
    """Yield the lookups that Postfix makes for a message from this service."""
    if service.program == "smtpd":
        for parameter in RESTRICTION_LISTS:
            for lookup in lookup_tables.in_parameter(config, parameter, service):
                if lookup.check:
                    yield from _access_queries(config, mail, lookup)
    if mail.has_content:
        yield from _cleanup_queries(config, service)


def unknown_lookups(
    config: Configuration, service: Service, mail: Mail
) -> Iterator[str]:
    """Yield the lookups whose keys are not known, as text."""
    for parameter in RESTRICTION_LISTS if service.program == "smtpd" else ():
        for lookup in lookup_tables.in_parameter(config, parameter, service):
            if lookup.check and not any(_lookup_keys(config, mail, lookup)):
                yield f"{lookup.check} {lookup.table} ({parameter})"


def _access_queries(
    config: Configuration, mail: Mail, lookup: Lookup
) -> Iterator[TableQuery]:
    is_pattern = lookup.table.partition(":")[0] in PATTERN_TYPES
    for keys in _lookup_keys(config, mail, lookup):
        yield TableQuery(lookup, keys[:1] if is_pattern else keys)


def _lookup_keys(
    config: Configuration, mail: Mail, lookup: Lookup
) -> Iterator[tuple[str, ...]]:
    """Yield for each string that a check looks up its keys, the most specific first."""
    if lookup.check == "check_sender_access":
        yield _address_keys(config, mail.sender)
    elif lookup.check == "check_recipient_access":
        yield from (_address_keys(config, one) for one in mail.recipients)
    elif lookup.check == "check_client_access":
        if mail.client_name:
            yield _domain_keys(config, mail.client_name)
        if mail.client:
            yield _network_keys(mail.client)
    elif lookup.check == "check_helo_access" and mail.helo:
        yield _domain_keys(config, mail.helo)
    elif lookup.check == "check_sasl_access" and mail.sasl_username:
        yield (mail.sasl_username,)


def _cleanup_queries(config: Configuration, service: Service) -> Iterator[TableQuery]:
    """Yield the header and body checks of cleanup(8)."""
    options = config.value("receive_override_options", service)
    if "no_header_body_checks" in configuration.split_list(options):
        return
    cleanup = config.service(f"{config.value('cleanup_service_name', service)}/unix")
    values = {config.value(name, cleanup) for name in HEADER_CHECKS}
    for lookup in lookup_tables.in_parameter(config, HEADER_CHECKS[0], cleanup):
        yield TableQuery(lookup, postmap_flags="hm" if len(values) == 1 else "h")
    for name in HEADER_CHECKS[1:] if len(values) > 1 else ():
        for lookup in lookup_tables.in_parameter(config, name, cleanup):
            yield TableQuery(lookup, postmap_flags="hm")
    for lookup in lookup_tables.in_parameter(config, "body_checks", cleanup):
        yield TableQuery(lookup, postmap_flags="bm")


def _address_keys(config: Configuration, address: str) -> tuple[str, ...]:
    """Return the keys for a mail address (access(5), EMAIL ADDRESS PATTERNS)."""
    if not address:
        return (config.value(NULL_SENDER_PARAMETER) or "<>",)
    local, _, domain = address.rpartition("@")
    delimiters = config.value("recipient_delimiter")
    end = next((i for i, char in enumerate(local) if i and char in delimiters), None)
    user = local[:end] if end else local
    keys = [address, f"{user}@{domain}", *_domain_keys(config, domain)]
    return tuple(dict.fromkeys([*keys, f"{local}@", f"{user}@"]))


def _domain_keys(config: Configuration, domain: str) -> tuple[str, ...]:
    """Return a domain and its parents (access(5), HOST NAME/ADDRESS PATTERNS)."""
    features = configuration.split_list(
        config.value("parent_domain_matches_subdomains")
    )
    dot = "" if "smtpd_access_maps" in features else "."
    labels = domain.split(".")
    parents = (dot + ".".join(labels[start:]) for start in range(1, len(labels)))
    return (domain, *parents)


def _network_keys(client: str) -> tuple[str, ...]:
    """Return an IP address and its networks (access(5))."""
    separator = ":" if ":" in client else "."
    parts = client.split(separator)
    networks = (separator.join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    return (client, *networks)
