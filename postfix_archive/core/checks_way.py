"""Check that the mail of every service passes the stamp filter, exactly once.

Used by doctor.checks. install.routes and install.plan define the right configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.core import configuration, doors, gates, request, ways
from postfix_archive.core.configuration import Service
from postfix_archive.core.errors import RequestUnusable
from postfix_archive.core.finding import CRITICAL, WARNING, Finding
from postfix_archive.core.observed import Observed

INSTALL = "make install"
REFUSED = "archive-request.invalid=reject"


def asked_for(host: Observed) -> Iterator[Finding]:
    """Report a host that archives nothing, and archive parameters with a mistake."""
    if not any(_filter(host, each).startswith(gates.STAMP) for each in host.clients()):
        if not host.found.value(gates.BYPASS):
            harm = "no service has the stamp filter as content_filter: no archiving"
            yield Finding("not-asked", CRITICAL, "main.cf: archive", harm, INSTALL)
    for service in (None, *host.clients()):
        if service is None or "archive" in service.options:
            yield from _unusable(host, service)


def around(host: Observed) -> Iterator[Finding]:
    """Report services with archive= whose mail does not pass the stamp filter."""
    if host.found.value(gates.BYPASS):
        return
    return_ports = [each for each in host.clients() if _takes_back(host, each)]
    archives_later = any(
        _filter(host, each).startswith(gates.STAMP) for each in return_ports
    )
    for service in host.clients():
        content_filter = _filter(host, service)
        if content_filter.startswith(gates.STAMP):
            continue
        if not host.found.value("archive", service):
            continue
        if service in return_ports or _is_kept_free(host, service):
            continue
        if archives_later and content_filter:
            continue
        yield Finding(
            "service-around",
            CRITICAL,
            f"master.cf: {service.key}",
            f"its content_filter is {content_filter or 'empty'}: its mail is not"
            " archived",
            f"{INSTALL}; if that is intended: " + host.option(service, "archive", ""),
        )


def proxied(host: Observed) -> Iterator[Finding]:
    """Report before-queue filters whose second smtpd does not archive."""
    for service in host.clients():
        proxy = host.found.value("smtpd_proxy_filter", service)
        port = proxy.rpartition(":")[2]
        if not proxy or _leads_back(host, port):
            continue
        yield Finding(
            "proxy-around",
            WARNING,
            f"master.cf: {service.key} -o smtpd_proxy_filter={proxy}",
            "the smtpd behind that before-queue filter does not have the stamp filter"
            " as content_filter: its mail is not archived",
            INSTALL,
        )


def nexthop(host: Observed) -> Iterator[Finding]:
    """Report a content_filter of ours without a nexthop."""
    for service in host.clients():
        name, _, rest = _filter(host, service).partition(":")
        if name.startswith(gates.STAMP) and not rest:
            yield Finding(
                "nexthop",
                CRITICAL,
                f"{_place(service, 'content_filter')}: {name}",
                "without a nexthop Postfix uses the recipient's domain: the message is"
                " split by domain and requests no archive",
                INSTALL,
            )


def mappings(host: Observed) -> Iterator[Finding]:
    """Report address mappings that are made twice or not at all."""
    for service in host.clients():
        content_filter = _filter(host, service)
        back = _back(host, content_filter.partition(":")[0])
        if not content_filter.startswith(gates.STAMP) or back is None:
            continue
        first = not _unmapped(host, service)
        last = not _unmapped(host, back)
        place = _place(service, "receive_override_options")
        if first and last:
            yield Finding(
                "mapped-twice",
                CRITICAL,
                place,
                "aliases, always_bcc and bcc maps apply before the stamp filter and"
                f" again at {back.name}: recipients get mail twice",
                _unmapping(host, service),
            )
        elif not first and not last and not host.found.value("content_filter", back):
            yield Finding(
                "never-mapped",
                CRITICAL,
                f"master.cf: {back.key} -o receive_override_options",
                "addresses are mapped neither before the stamp filter nor at"
                " reinjection: aliases do not work and mail for them bounces",
                host.command("postconf", "-X", "archive_handback_options"),
            )


def next_filters(host: Observed) -> Iterator[Finding]:
    """Report a next content filter that is the stamp filter or does not exist."""
    for each in host.found.services:
        if not ways.is_ours(each) or each.name.rpartition(":")[0] not in _LOOPBACKS:
            continue
        content_filter = host.found.value("content_filter", each)
        name = content_filter.partition(":")[0]
        if not content_filter or name == "archive":
            continue
        place = f"master.cf: {each.key}, content_filter {content_filter}"
        if name.startswith(gates.STAMP):
            harm = (
                "content_filter of the reinjection port points to archive-stamp: mail"
                " loop"
            )
        elif host.found.service(f"{name}/unix") is None:
            harm = f"master.cf has no {name}: reinjected mail is deferred, then bounces"
        else:
            continue
        cure = "set archive_next_filter to the next content filter, or empty"
        yield Finding("next-filter", CRITICAL, place, harm, cure)


def client_checks(host: Observed) -> Iterator[Finding]:
    """Report services whose clients may send to archive-request.invalid."""
    name = "smtpd_recipient_restrictions"
    for service in host.clients():
        if service.program != "smtpd" or _takes_back(host, service):
            continue
        restrictions = host.found.value(name, service)
        if REFUSED in restrictions.partition("permit")[0]:
            continue
        guarded = ways.guarded(host.found.raw(name, service))
        is_option = name in service.options
        if is_option:
            cure = host.option(service, name, guarded)
        else:
            cure = host.setting(name, guarded)
        yield Finding(
            "client-check",
            WARNING,
            _place(service if is_option else None, name),
            "clients may send to archive-request.invalid: forged requests are dropped,"
            " but each logs an alarm",
            cure,
            is_safe=REFUSED not in restrictions,
        )


def _unusable(host: Observed, service: Service | None) -> Iterator[Finding]:
    """Report an archive parameter that is not a list of addresses."""
    raw = host.found.raw("archive", service)
    value = host.found.value("archive", service)
    try:
        request.from_nexthop(value) if value else None
    except RequestUnusable:
        yield Finding(
            "archive-value",
            CRITICAL,
            f"{_place(service, 'archive')} = {raw}",
            "not an archive address: mail is deferred and bounces after"
            " maximal_queue_lifetime",
            "correct it: one address, or several separated by commas without spaces",
        )


def _filter(host: Observed, service: Service) -> str:
    return host.found.value("content_filter", service)


def _place(service: Service | None, name: str) -> str:
    if service is None or name not in service.options:
        return f"main.cf: {name}" + (f" (for {service.key})" if service else "")
    return f"master.cf: {service.key} -o {name}"


def _takes_back(host: Observed, service: Service) -> bool:
    """Tell whether a content filter reinjects mail at this service."""
    is_local = service.kind == "inet" and service.name.startswith(ways.LOOPBACK)
    if not is_local or "content_filter" not in service.options:
        return False
    content_filter = _filter(host, service)
    if content_filter and not content_filter.startswith(gates.STAMP):
        return False
    return _is_filtered(host)


def _is_filtered(host: Observed) -> bool:
    """Tell whether mail passes another content filter, before or after the archive."""
    stamps = {gates.STAMP, *(each.name for each in host.captures())}
    behind = filter(None, (_back(host, each) for each in stamps))
    filters = [_filter(host, each) for each in (*host.clients(), *behind)]
    return any(each and not each.startswith(gates.STAMP) for each in filters)


def _is_kept_free(host: Observed, service: Service) -> bool:
    """Tell whether this is a pickup(8) where a filter reinjects with sendmail(1)."""
    has_no_filter = "content_filter" in service.options and not _filter(host, service)
    return service.program == "pickup" and has_no_filter


def _leads_back(host: Observed, port: str) -> bool:
    """Tell whether a service on this port has the stamp filter as content_filter."""
    return any(
        each.name.rpartition(":")[2] == port
        and _filter(host, each).startswith(gates.STAMP)
        for each in host.clients()
    )


def _back(host: Observed, stamp: str) -> Service | None:
    """Return the service to which a stamp filter reinjects."""
    address = doors.way_back(host.found, gates.number_in(stamp))
    if not address and host.settings is not None:
        address = "%s:%d" % host.settings.archive_handback_address
    return host.found.service(f"{address}/inet")


def _unmapped(host: Observed, service: Service) -> bool:
    """Tell whether a service has no_address_mappings."""
    options = host.found.value("receive_override_options", service)
    return gates.NO_MAPPINGS in configuration.words(options)


def _unmapping(host: Observed, service: Service) -> str:
    """Return the command that sets no_address_mappings for a service."""
    name = "receive_override_options"
    value = gates.unmapped(host.found.raw(name, service), False)
    if name in service.options:
        return host.option(service, name, value)
    return host.setting(name, value)


_LOOPBACKS = ("127.0.0.1", "[::1]", "localhost")

CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    asked_for,
    around,
    proxied,
    nexthop,
    mappings,
    next_filters,
    client_checks,
)
