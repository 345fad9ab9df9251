"""Check that Milters see the headers that are delivered, so that signatures verify.

Used by doctor.checks. postfix.header_rewriting says how install arranges it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.doctor import check_routing
from postfix_archive.doctor.finding import Finding
from postfix_archive.doctor.host import Host
from postfix_archive.monitoring import CRITICAL, WARNING
from postfix_archive.postfix import archive_services, configuration, header_rewriting
from postfix_archive.postfix.configuration import Service


def check_header_rewriting(host: Host) -> Iterator[Finding]:
    """Report headers that are rewritten after Milters, twice, or not at all."""
    config = host.config
    if config.value(archive_services.BYPASS_PARAMETER):
        return
    mapped_services = [
        each for each in host.receiving_services() if _is_mapped(host, each)
    ]
    is_needed = header_rewriting.is_needed(config, mapped_services)
    for service in mapped_services:
        if is_needed and not header_rewriting.maps_headers_first(config, service):
            yield Finding(
                "header-rewriting",
                WARNING,
                f"master.cf: {service.key}",
                "Postfix rewrites addresses in headers (canonical_maps,"
                " masquerade_domains) after the Milters: DKIM signatures of this host"
                " do not verify",
                host.install_command(),
            )
    services = filter(
        lambda each: header_rewriting.maps_headers_first(config, each), mapped_services
    )
    names = {header_rewriting.cleanup_name(config, each) for each in services}
    for name in sorted(names):
        yield from _first_cleanup_findings(host, name)
    last = config.service(header_rewriting.LAST_CLEANUP)
    if last is not None:
        expected = header_rewriting.last_options(config) if names else {}
        yield from _last_cleanup_findings(host, last, expected)


def _is_mapped(host: Host, service: Service) -> bool:
    """Tell whether a service is archived and reinjection maps its addresses."""
    config = host.config
    content_filter = config.value("content_filter", service)
    if not content_filter.startswith(archive_services.STAMP_TRANSPORT):
        return False
    last = check_routing.reinjection_service_of(host, content_filter.partition(":")[0])
    if last is None or check_routing.has_no_mappings(host, last):
        return False
    return check_routing.has_no_mappings(
        host, service
    ) or header_rewriting.maps_headers_first(config, service)


def _first_cleanup_findings(host: Host, name: str) -> Iterator[Finding]:
    """Report a cleanup(8) of the first hop that is missing or is not up to date."""
    key = f"{archive_services.FIRST_CLEANUP_PREFIX}{name}/unix"
    service = host.config.service(key)
    entry = header_rewriting.first_entry(host.config, name)
    expected = next(iter(configuration.parse_services(entry)), None)
    if service is None:
        harm = "it does not exist: mail is not accepted"
    elif expected is not None and service.options != expected.options:
        harm = (
            f"its options are not those of {name}/unix and of the classes in main.cf:"
            " checks do not apply, or addresses are mapped twice or not at all"
        )
    else:
        return
    yield Finding(
        "header-rewriting", CRITICAL, f"master.cf: {key}", harm, host.install_command()
    )


def _last_cleanup_findings(
    host: Host, service: Service, expected: dict[str, str]
) -> Iterator[Finding]:
    """Report an archive-cleanup that maps headers twice or not at all."""
    names = {*header_rewriting.CLASSES, *header_rewriting.CLASSES.values()}
    actual = {name: service.options[name] for name in names & service.options.keys()}
    if actual != expected:
        yield Finding(
            "header-rewriting",
            CRITICAL,
            f"master.cf: {service.key}",
            "its mappings do not match those of the first hop: headers or envelopes"
            " are rewritten twice or not at all",
            host.install_command(),
        )


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (check_header_rewriting,)
