"""List the table lookups that Postfix makes for a message, and the default request.

Used by ``postfix-archive explain`` through tables.explain, which does the lookups. Keys
are in the order of access(5). Lookups whose key only DNS or a TLS session provides are
listed as unanswered. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from postfix_archive.core import configuration, gates, lookups, request
from postfix_archive.core.configuration import Configuration, Service
from postfix_archive.core.errors import RequestUnusable
from postfix_archive.core.lookups import Lookup

PATTERNS = ("pcre", "regexp", "cidr")  # looked up with the whole string alone
RESTRICTIONS = tuple(
    f"smtpd_{each}_restrictions"
    for each in "client helo sender relay recipient data end_of_data".split()
)
HEADERS = ("header_checks", "mime_header_checks", "nested_header_checks")
NULL_KEY = "smtpd_null_access_lookup_key"


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
class Question:
    """One table to look up: the keys in Postfix's order, or flags for a message."""

    lookup: Lookup
    keys: tuple[str, ...] = ()
    flags: str = ""  # postmap(1): hm, bm for the message; "" for keys


def default(found: Configuration, service: Service) -> tuple[str, tuple[str, ...]]:
    """Return the archive parameter of a service, with its place, and its archives.

    No archives where the parameter has no effect; the text ends with the reason in
    brackets then.
    """
    is_option = "archive" in service.options
    place = f"master.cf {service.key}: -o archive" if is_option else "main.cf: archive"
    value = found.value("archive", service)
    try:
        archives = request.from_nexthop(value) if value else ()
    except RequestUnusable:
        return f"{place} = {value} (not an archive address: mail is deferred)", ()
    text = f"{place} = {found.raw('archive', service)}"
    content_filter = found.value("content_filter", service)
    if archives and not content_filter.startswith(gates.STAMP):
        return (
            f"{text} (no effect: the service's content_filter is"
            f" {content_filter or 'empty'})"
        ), ()
    return text, archives


def questions(found: Configuration, service: Service, mail: Mail) -> Iterator[Question]:
    """Yield the lookups that Postfix makes for a message from this service."""
    if service.program == "smtpd":
        for parameter in RESTRICTIONS:
            for each in lookups.in_parameter(found, parameter, service):
                if each.check:
                    yield from _access(found, mail, each)
    if mail.has_content:
        yield from _checks(found, service)


def unanswered(found: Configuration, service: Service, mail: Mail) -> Iterator[str]:
    """Yield the lookups whose keys are not known, as text."""
    for parameter in RESTRICTIONS if service.program == "smtpd" else ():
        for each in lookups.in_parameter(found, parameter, service):
            if each.check and not any(_subjects(found, mail, each)):
                yield f"{each.check} {each.table} ({parameter})"


def _access(found: Configuration, mail: Mail, each: Lookup) -> Iterator[Question]:
    is_pattern = each.table.partition(":")[0] in PATTERNS
    for keys in _subjects(found, mail, each):
        yield Question(each, keys[:1] if is_pattern else keys)


def _subjects(
    found: Configuration, mail: Mail, each: Lookup
) -> Iterator[tuple[str, ...]]:
    """Yield for each string that a check looks up its keys, the most specific first."""
    if each.check == "check_sender_access":
        yield _address(found, mail.sender)
    elif each.check == "check_recipient_access":
        yield from (_address(found, one) for one in mail.recipients)
    elif each.check == "check_client_access":
        if mail.client_name:
            yield _domain(found, mail.client_name)
        if mail.client:
            yield _network(mail.client)
    elif each.check == "check_helo_access" and mail.helo:
        yield _domain(found, mail.helo)
    elif each.check == "check_sasl_access" and mail.sasl_username:
        yield (mail.sasl_username,)


def _checks(found: Configuration, service: Service) -> Iterator[Question]:
    """Yield the header and body checks of cleanup(8)."""
    options = found.value("receive_override_options", service)
    if "no_header_body_checks" in configuration.words(options):
        return
    cleanup = found.service(f"{found.value('cleanup_service_name', service)}/unix")
    values = {found.value(name, cleanup) for name in HEADERS}
    for each in lookups.in_parameter(found, HEADERS[0], cleanup):
        yield Question(each, flags="hm" if len(values) == 1 else "h")
    for name in HEADERS[1:] if len(values) > 1 else ():
        for each in lookups.in_parameter(found, name, cleanup):
            yield Question(each, flags="hm")
    for each in lookups.in_parameter(found, "body_checks", cleanup):
        yield Question(each, flags="bm")


def _address(found: Configuration, address: str) -> tuple[str, ...]:
    """Return the keys for a mail address (access(5), EMAIL ADDRESS PATTERNS)."""
    if not address:
        return (found.value(NULL_KEY) or "<>",)
    local, _, domain = address.rpartition("@")
    delimiters = found.value("recipient_delimiter")
    end = next((i for i, char in enumerate(local) if i and char in delimiters), None)
    user = local[:end] if end else local
    keys = [address, f"{user}@{domain}", *_domain(found, domain)]
    return tuple(dict.fromkeys([*keys, f"{local}@", f"{user}@"]))


def _domain(found: Configuration, domain: str) -> tuple[str, ...]:
    """Return a domain and its parents (access(5), HOST NAME/ADDRESS PATTERNS)."""
    features = configuration.words(found.value("parent_domain_matches_subdomains"))
    dot = "" if "smtpd_access_maps" in features else "."
    labels = domain.split(".")
    parents = (dot + ".".join(labels[start:]) for start in range(1, len(labels)))
    return (domain, *parents)


def _network(client: str) -> tuple[str, ...]:
    """Return an IP address and its networks (access(5))."""
    separator = ":" if ":" in client else "."
    parts = client.split(separator)
    networks = (separator.join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    return (client, *networks)
