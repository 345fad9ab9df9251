"""Checks of the way of mail: through the archive, once, for every service.

Used by core/checkup. core/ways and core/installation say how the way should be.
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
    """Somebody asks for archiving, in a form that is usable."""
    if not any(_filter(host, each).startswith(gates.STAMP) for each in host.clients()):
        if not host.found.value(gates.BYPASS):
            harm = "no service leads mail to the archive: nothing is archived"
            yield Finding("not-asked", CRITICAL, "main.cf: archive", harm, INSTALL)
    for each in (None, *host.clients()):
        if each is None or "archive" in each.options:
            yield from _unusable(host, each)


def around(host: Observed) -> Iterator[Finding]:
    """No service lets mail go around the archive that it asks for."""
    if host.found.value(gates.BYPASS):
        return
    backs = [each for each in host.clients() if _takes_back(host, each)]
    gated = any(_filter(host, each).startswith(gates.STAMP) for each in backs)
    for each in host.clients():
        leads = _filter(host, each)
        if leads.startswith(gates.STAMP) or not host.found.value("archive", each):
            continue
        if each in backs or gated and leads or _is_kept_free(host, each):
            continue
        yield Finding(
            "service-around",
            CRITICAL,
            f"master.cf: {each.key}",
            f"content_filter is {leads or 'empty'}: mail through it is not archived",
            f"{INSTALL}; if it is meant: " + host.option(each, "archive", ""),
        )


def proxied(host: Observed) -> Iterator[Finding]:
    """Behind a before-queue filter the second smtpd leads to the archive."""
    for each in host.clients():
        proxy = host.found.value("smtpd_proxy_filter", each)
        port = proxy.rpartition(":")[2]
        if not proxy or _leads_back(host, port):
            continue
        yield Finding(
            "proxy-around",
            WARNING,
            f"master.cf: {each.key} -o smtpd_proxy_filter={proxy}",
            "the smtpd that takes mail back from that filter does not lead to the"
            " archive, so nothing of it is archived",
            INSTALL,
        )


def nexthop(host: Observed) -> Iterator[Finding]:
    """A content_filter of ours names the nexthop."""
    for each in host.clients():
        name, _, rest = _filter(host, each).partition(":")
        if name.startswith(gates.STAMP) and not rest:
            yield Finding(
                "nexthop",
                CRITICAL,
                f"{_place(each, 'content_filter')}: {name}",
                "without a nexthop Postfix takes the recipient's domain: the message is"
                " split and asks for no archive",
                INSTALL,
            )


def mappings(host: Observed) -> Iterator[Finding]:
    """Addresses are mapped once: at the last hop, or where a next filter gives back."""
    for each in host.clients():
        leads = _filter(host, each)
        back = _back(host, leads.partition(":")[0])
        if not leads.startswith(gates.STAMP) or back is None:
            continue
        first = not _unmapped(host, each)
        last = not _unmapped(host, back)
        place = _place(each, "receive_override_options")
        if first and last:
            yield Finding(
                "mapped-twice",
                CRITICAL,
                place,
                "aliases, always_bcc and bcc maps act at the first hop and again at"
                f" {back.name}: recipients get mail twice",
                _unmapping(host, each),
            )
        elif not first and not last and not host.found.value("content_filter", back):
            yield Finding(
                "never-mapped",
                CRITICAL,
                f"master.cf: {back.key} -o receive_override_options",
                "neither the first hop nor the hand-back maps addresses: aliases do not"
                " work and mail for them bounces",
                host.command("postconf", "-X", "archive_handback_options"),
            )


def next_filters(host: Observed) -> Iterator[Finding]:
    """What stands behind the archive exists, and is not the archive."""
    for each in host.found.services:
        if not ways.is_ours(each) or each.name.rpartition(":")[0] not in _LOOPBACKS:
            continue
        leads = host.found.value("content_filter", each)
        name = leads.partition(":")[0]
        if not leads or name == "archive":
            continue
        place = f"master.cf: {each.key}, content_filter {leads}"
        if name.startswith(gates.STAMP):
            harm = "mail handed back goes to the stamp filter again, round and round"
        elif host.found.service(f"{name}/unix") is None:
            harm = f"master.cf has no {name}: mail handed back waits and then bounces"
        else:
            continue
        cure = "set archive_next_filter to the filter behind the archive, or empty"
        yield Finding("next-filter", CRITICAL, place, harm, cure)


def client_checks(host: Observed) -> Iterator[Finding]:
    """Clients cannot address the domain of requests."""
    name = "smtpd_recipient_restrictions"
    for each in host.clients():
        if each.program != "smtpd" or _takes_back(host, each):
            continue
        rules = host.found.value(name, each)
        if REFUSED in rules.partition("permit")[0]:
            continue
        own = name in each.options
        guarded = ways.guarded(host.found.raw(name, each))
        yield Finding(
            "client-check",
            WARNING,
            _place(each if own else None, name),
            "clients may address archive-request.invalid: what they forge is dropped,"
            " but each raises an alarm",
            host.option(each, name, guarded) if own else host.setting(name, guarded),
            is_safe=REFUSED not in rules,
        )


def _unusable(host: Observed, service: Service | None) -> Iterator[Finding]:
    """Give what is wrong with an archive parameter."""
    raw = host.found.raw("archive", service)
    value = host.found.value("archive", service)
    try:
        request.from_nexthop(value) if value else None
    except RequestUnusable:
        yield Finding(
            "archive-value",
            CRITICAL,
            f"{_place(service, 'archive')} = {raw}",
            "that is no archive address, so mail waits and is bounced after"
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
    """Tell whether this is where a content filter gives mail back."""
    bound = service.kind == "inet" and service.name.startswith(ways.LOOPBACK)
    leads = _filter(host, service)
    own = "content_filter" in service.options
    free = bound and own and (not leads or leads.startswith(gates.STAMP))
    return free and _is_filtered(host)


def _is_filtered(host: Observed) -> bool:
    """Tell whether mail passes a content filter, before the archive or behind it."""
    stamps = {gates.STAMP, *(each.name for each in host.captures())}
    behind = filter(None, (_back(host, each) for each in stamps))
    leads = [_filter(host, each) for each in (*host.clients(), *behind)]
    return any(each and not each.startswith(gates.STAMP) for each in leads)


def _is_kept_free(host: Observed, service: Service) -> bool:
    """Tell whether this is pickup, free for a filter that gives back by sendmail."""
    own = "content_filter" in service.options and not _filter(host, service)
    return service.program == "pickup" and own


def _leads_back(host: Observed, port: str) -> bool:
    """Tell whether a client service on this port of loopback leads to the archive."""
    return any(
        each.name.rpartition(":")[2] == port
        and _filter(host, each).startswith(gates.STAMP)
        for each in host.clients()
    )


def _back(host: Observed, stamp: str) -> Service | None:
    """Return the port to which a stamp filter hands back."""
    address = doors.way_back(host.found, gates.number_in(stamp))
    if not address and host.settings is not None:
        address = "%s:%d" % host.settings.archive_handback_address
    return host.found.service(f"{address}/inet")


def _unmapped(host: Observed, service: Service) -> bool:
    options = host.found.value("receive_override_options", service)
    return gates.NO_MAPPINGS in configuration.words(options)


def _unmapping(host: Observed, service: Service) -> str:
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
