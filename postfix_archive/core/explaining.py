"""Which requests for archiving a message would collect, and from which line.

Used by the command ``postfix-archive explain``. Says which table is asked for which
keys, in the order of access(5); the caller asks. What only DNS or a TLS session could
tell is named, not guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from postfix_archive.core import configuration, gates, lookups, request
from postfix_archive.core.configuration import Configuration, Service
from postfix_archive.core.errors import RequestUnusable
from postfix_archive.core.lookups import Lookup

PATTERNS = ("pcre", "regexp", "cidr")  # asked for the whole string alone
RESTRICTIONS = tuple(
    f"smtpd_{each}_restrictions"
    for each in "client helo sender relay recipient data end_of_data".split()
)
HEADERS = ("header_checks", "mime_header_checks", "nested_header_checks")
NULL_KEY = "smtpd_null_access_lookup_key"


@dataclass(frozen=True)
class Mail:
    """What is known of the message."""

    sender: str
    recipients: tuple[str, ...]
    client: str = ""  # IP address
    client_name: str = ""
    helo: str = ""
    sasl_username: str = ""
    has_content: bool = False


@dataclass(frozen=True)
class Question:
    """One table that Postfix asks: keys in their order, or the message itself."""

    lookup: Lookup
    keys: tuple[str, ...] = ()
    flags: str = ""  # postmap(1): hm, bm for the message; "" for keys


def default(found: Configuration, service: Service) -> tuple[str, tuple[str, ...]]:
    """Return where a service's own request stands, and the archives it names.

    No archives where it cannot be met, which the place says in brackets.
    """
    own = "archive" in service.options
    place = f"master.cf {service.key}: -o archive" if own else "main.cf: archive"
    value = found.value("archive", service)
    try:
        archives = request.from_nexthop(value) if value else ()
    except RequestUnusable:
        return f"{place} = {value} (no archive address: mail defers)", ()
    said = f"{place} = {found.raw('archive', service)}"
    leads = found.value("content_filter", service)
    if archives and not leads.startswith(gates.STAMP):
        return f"{said} (not met: its content_filter is {leads or 'empty'})", ()
    return said, archives


def questions(found: Configuration, service: Service, mail: Mail) -> Iterator[Question]:
    """Give what Postfix asks for a message that comes by this service."""
    if service.program == "smtpd":
        for parameter in RESTRICTIONS:
            for each in lookups.in_parameter(found, parameter, service):
                if each.check:
                    yield from _access(found, mail, each)
    if mail.has_content:
        yield from _checks(found, service)


def unanswered(found: Configuration, service: Service, mail: Mail) -> Iterator[str]:
    """Give the lookups that cannot be made with what is known."""
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
    """Give the keys, most special first, of every subject that a check looks up."""
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
    """Give header and body checks, which cleanup(8) makes."""
    options = found.value("receive_override_options", service)
    if "no_header_body_checks" in configuration.words(options):
        return
    cleanup = found.service(f"{found.value('cleanup_service_name', service)}/unix")
    apart = {found.value(name, cleanup) for name in HEADERS}
    for each in lookups.in_parameter(found, HEADERS[0], cleanup):
        yield Question(each, flags="hm" if len(apart) == 1 else "h")
    for name in HEADERS[1:] if len(apart) > 1 else ():
        for each in lookups.in_parameter(found, name, cleanup):
            yield Question(each, flags="hm")
    for each in lookups.in_parameter(found, "body_checks", cleanup):
        yield Question(each, flags="bm")


def _address(found: Configuration, address: str) -> tuple[str, ...]:
    if not address:
        return (found.value(NULL_KEY) or "<>",)
    local, _, domain = address.rpartition("@")
    delimiter = found.value("recipient_delimiter")
    cut = next((at for at, c in enumerate(local) if at and c in delimiter), None)
    bare = local[:cut] if cut else local
    keys = [address, f"{bare}@{domain}", *_domain(found, domain)]
    return tuple(dict.fromkeys([*keys, f"{local}@", f"{bare}@"]))


def _domain(found: Configuration, domain: str) -> tuple[str, ...]:
    """Return a domain and its parents, in the form that this host's tables have."""
    named = configuration.words(found.value("parent_domain_matches_subdomains"))
    dot = "" if "smtpd_access_maps" in named else "."
    labels = domain.split(".")
    parents = (dot + ".".join(labels[at:]) for at in range(1, len(labels)))
    return (domain, *parents)


def _network(client: str) -> tuple[str, ...]:
    """Return an address and the networks around it."""
    sign = ":" if ":" in client else "."
    parts = client.split(sign)
    shorter = (sign.join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    return (client, *shorter)
