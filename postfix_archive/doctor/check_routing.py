"""Check that the mail of every service passes the stamp filter, exactly once.

Used by doctor.checks. install.filter_routes makes the right configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.doctor.finding import Finding
from postfix_archive.doctor.host import Host
from postfix_archive.errors import RequestInvalid
from postfix_archive.message import request
from postfix_archive.monitoring import CRITICAL, WARNING
from postfix_archive.postfix import (
    archive_services,
    configuration,
    content_filters,
    header_rewriting,
)
from postfix_archive.postfix.configuration import Service

REQUEST_DOMAIN_REJECT = "archive-request.invalid=reject"


def check_requests(host: Host) -> Iterator[Finding]:
    """Report a host that archives nothing, and archive parameters with a mistake."""
    if not any(map(host.is_archived, host.receiving_services())):
        if not host.config.value(archive_services.BYPASS_PARAMETER):
            harm = "no service has the stamp filter as content_filter: no archiving"
            if host.is_native():
                harm = (
                    "no service has a capture map in recipient_bcc_maps: no archiving"
                )
            yield Finding(
                "nothing-archived",
                CRITICAL,
                "main.cf: archive",
                harm,
                host.install_command(),
            )
    for service in (None, *host.receiving_services()):
        if service is None or "archive" in service.options:
            yield from _archive_findings(host, service)


def check_unfiltered_services(host: Host) -> Iterator[Finding]:
    """Report services with archive= whose mail does not pass the stamp filter."""
    if host.config.value(archive_services.BYPASS_PARAMETER) or host.is_native():
        return
    reinjection_ports = content_filters.reinjection_ports(host.config)
    archives_later = any(
        _content_filter(host, each).startswith(archive_services.STAMP_TRANSPORT)
        for each in reinjection_ports
    )
    for service in host.receiving_services():
        content_filter = _content_filter(host, service)
        if content_filter.startswith(archive_services.STAMP_TRANSPORT):
            continue
        if not host.config.value("archive", service):
            continue
        if service in reinjection_ports:
            continue
        if content_filters.is_sendmail_reinjection(host.config, service):
            continue
        if archives_later and content_filter:
            continue
        yield Finding(
            "other-content-filter",
            CRITICAL,
            f"master.cf: {service.key}",
            f"its content_filter is {content_filter or 'empty'}: its mail is not"
            " archived",
            f"{host.install_command()}; if that is intended: "
            + host.option_command(service, "archive", ""),
        )


def check_proxy_filters(host: Host) -> Iterator[Finding]:
    """Report before-queue filters if no smtpd that can be behind them archives.

    smtpd_proxy_filter names the filter; to which smtpd that sends mail is not known.
    """
    if any(_is_archived_behind_proxy(host, each) for each in host.receiving_services()):
        return
    for service in host.receiving_services():
        proxy = host.config.value("smtpd_proxy_filter", service)
        if not proxy:
            continue
        yield Finding(
            "proxy-unfiltered",
            WARNING,
            f"master.cf: {service.key} -o smtpd_proxy_filter={proxy}",
            "the smtpd behind that before-queue filter does not send mail to the"
            " archive",
            host.install_command(),
        )


def check_nexthop(host: Host) -> Iterator[Finding]:
    """Report a content_filter of ours without a nexthop."""
    for service in host.receiving_services():
        name, _, destination = _content_filter(host, service).partition(":")
        if name.startswith(archive_services.STAMP_TRANSPORT) and not destination:
            yield Finding(
                "nexthop-missing",
                CRITICAL,
                f"{_place(service, 'content_filter')}: {name}",
                "without a nexthop Postfix uses the recipient's domain: the message is"
                " split by domain and requests no archive",
                host.install_command(),
            )


def check_address_mappings(host: Host) -> Iterator[Finding]:
    """Report address mappings that are made twice or not at all."""
    later_ports = content_filters.reinjection_ports(host.config)
    for service in host.receiving_services():
        content_filter = _content_filter(host, service)
        reinjection_service = reinjection_service_of(
            host, content_filter.partition(":")[0]
        )
        if (
            not content_filter.startswith(archive_services.STAMP_TRANSPORT)
            or reinjection_service is None
        ):
            continue
        is_mapped_first = not (
            has_no_mappings(host, service)
            or header_rewriting.maps_headers_first(host.config, service)
        )
        is_mapped_last = not has_no_mappings(host, reinjection_service)
        place = _place(service, "receive_override_options")
        if (
            is_mapped_last
            and _has_own_no_mappings(host, service)
            and host.config.value("content_filter", reinjection_service)
            and any(not has_no_mappings(host, each) for each in later_ports)
        ):
            yield Finding(
                "addresses-mapped-twice",
                CRITICAL,
                place,
                "its addresses are to be mapped where the next content filter"
                f" reinjects, and {reinjection_service.name} maps them before it:"
                " recipients get mail twice",
                host.install_command(),
            )
            continue
        if is_mapped_first and is_mapped_last:
            yield Finding(
                "addresses-mapped-twice",
                CRITICAL,
                place,
                "aliases, always_bcc and bcc maps apply before the stamp filter and"
                f" again at {reinjection_service.name}: recipients get mail twice",
                _no_mappings_command(host, service),
            )
        elif (
            not is_mapped_first
            and not is_mapped_last
            and not host.config.value("content_filter", reinjection_service)
            and not _is_mapped_before_filter(host, service)
        ):
            yield Finding(
                "addresses-not-mapped",
                CRITICAL,
                f"master.cf: {reinjection_service.key} -o receive_override_options",
                "addresses are mapped neither before the stamp filter nor at"
                " reinjection: aliases do not work and mail for them bounces",
                host.postfix_command("postconf", "-X", "archive_handback_options"),
            )


def check_next_filters(host: Host) -> Iterator[Finding]:
    """Report a next content filter that is the stamp filter or does not exist."""
    for service in host.config.services:
        if not archive_services.is_ours(service) or not service.name.startswith(
            archive_services.LOOPBACK_PREFIXES
        ):
            continue
        content_filter = host.config.value("content_filter", service)
        name = content_filter.partition(":")[0]
        if not content_filter or name == "archive":
            continue
        place = f"master.cf: {service.key}, content_filter {content_filter}"
        if name.startswith(archive_services.STAMP_TRANSPORT):
            harm = (
                "content_filter of the reinjection port points to archive-stamp: mail"
                " loop"
            )
        elif host.config.service(f"{name}/unix") is None:
            harm = f"master.cf has no {name}: reinjected mail is deferred, then bounces"
        else:
            continue
        fix = "set archive_next_filter to the next content filter, or empty"
        yield Finding("next-filter", CRITICAL, place, harm, fix)


def check_client_restrictions(host: Host) -> Iterator[Finding]:
    """Report services whose clients may send to archive-request.invalid."""
    name = "smtpd_recipient_restrictions"
    reinjection_ports = content_filters.reinjection_ports(host.config)
    for service in host.receiving_services():
        if service.program != "smtpd" or service in reinjection_ports:
            continue
        restrictions = host.config.value(name, service)
        if REQUEST_DOMAIN_REJECT in restrictions.partition("permit")[0]:
            continue
        others = archive_services.remove_own_elements(host.config.raw(name, service))
        new_value = archive_services.guard_restrictions(others)
        is_option = name in service.options
        if is_option:
            fix = host.option_command(service, name, new_value)
        else:
            fix = host.parameter_command(name, new_value)
        yield Finding(
            "request-domain-open",
            WARNING,
            _place(service if is_option else None, name),
            "clients may send to archive-request.invalid: forged requests are dropped,"
            " but each logs an alarm",
            fix,
            is_safe=REQUEST_DOMAIN_REJECT not in restrictions,
        )


def _archive_findings(host: Host, service: Service | None) -> Iterator[Finding]:
    """Report an archive parameter that is not a list of addresses."""
    raw = host.config.raw("archive", service)
    value = host.config.value("archive", service)
    try:
        request.from_nexthop(value) if value else None
    except RequestInvalid:
        yield Finding(
            "archive-invalid",
            CRITICAL,
            f"{_place(service, 'archive')} = {raw}",
            "not an archive address: mail is deferred and bounces after"
            " maximal_queue_lifetime",
            "correct it: one address, or several separated by commas without spaces",
        )


def _content_filter(host: Host, service: Service) -> str:
    return host.config.value("content_filter", service)


def _place(service: Service | None, name: str) -> str:
    if service is None or name not in service.options:
        return f"main.cf: {name}" + (f" (for {service.key})" if service else "")
    return f"master.cf: {service.key} -o {name}"


def _is_archived_behind_proxy(host: Host, service: Service) -> bool:
    """Tell whether a before-queue filter can send to a service that archives."""
    return (
        service.program == "smtpd"
        and not host.config.value("smtpd_proxy_filter", service)
        and service.name.startswith(archive_services.LOOPBACK_PREFIXES)
        and host.is_archived(service)
    )


def reinjection_service_of(host: Host, transport_name: str) -> Service | None:
    """Return the service to which a stamp filter reinjects."""
    address = archive_services.reinject_address(
        host.config, archive_services.route_number(transport_name)
    )
    if not address and host.settings is not None:
        address = "%s:%d" % host.settings.archive_handback_address
    return host.config.service(f"{address}/inet")


def has_no_mappings(host: Host, service: Service) -> bool:
    """Tell whether a service has no_address_mappings."""
    return not archive_services.maps_addresses(host.config, service)


def _has_own_no_mappings(host: Host, service: Service) -> bool:
    """Tell whether an administrator has set no_address_mappings, with any archive."""
    options = host.config.raw("receive_override_options", service)
    return archive_services.NO_ADDRESS_MAPPINGS in configuration.split_list(options)


def _is_mapped_before_filter(host: Host, service: Service) -> bool:
    """Tell whether this takes mail from a content filter, before which it is mapped."""
    return service in content_filters.reinjection_ports(host.config) and all(
        not has_no_mappings(host, each)
        for each in host.receiving_services()
        if _has_other_filter(host, each)
    )


def _has_other_filter(host: Host, service: Service) -> bool:
    value = _content_filter(host, service)
    return bool(value) and not value.startswith(archive_services.STAMP_TRANSPORT)


def _no_mappings_command(host: Host, service: Service) -> str:
    """Return the command that sets no_address_mappings for a service."""
    name = "receive_override_options"
    value = archive_services.override_options_expression(
        host.config.raw(name, service), False
    )
    if name in service.options:
        return host.option_command(service, name, value)
    return host.parameter_command(name, value)


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (
    check_requests,
    check_unfiltered_services,
    check_proxy_filters,
    check_nexthop,
    check_address_mappings,
    check_next_filters,
    check_client_restrictions,
)
