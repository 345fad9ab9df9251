"""Check the native modes: does cleanup(8) capture every message once, and for whom?

Used by doctor.checks. install.native_plan makes the right configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.doctor.finding import Finding, attribute_finding
from postfix_archive.doctor.host import Host
from postfix_archive.message import request
from postfix_archive.monitoring import CRITICAL, WARNING
from postfix_archive.postfix import (
    archive_services,
    capture_maps,
    content_filters,
    header_rewriting,
)
from postfix_archive.postfix.configuration import Service


def check_captured_services(host: Host) -> Iterator[Finding]:
    """Report services whose mail is captured to another archive or not at all."""
    config = host.config
    if config.value(archive_services.BYPASS_PARAMETER) or not host.is_native():
        return
    returning = content_filters.returning_services(config)
    captures_later = any(capture_maps.map_of(config, each) for each in returning)
    for service in host.receiving_services():
        archive = config.value("archive", service)
        path = capture_maps.map_of(config, service)
        is_filtered = bool(config.value("content_filter", service))
        if path:
            value = capture_maps.value_of(config, path)
            if value != (archive or request.ON_REQUEST):
                reason = (
                    f"its mail is archived to {value}, not to {archive or 'nobody'}"
                )
                yield _service_finding(host, service, reason)
        elif (
            archive
            and service not in returning
            and not (is_filtered and captures_later)
        ):
            yield _service_finding(host, service, _reason(host, service))


def check_captured_once(host: Host) -> Iterator[Finding]:
    """Report mail that is captured before a content filter and again behind it."""
    if not host.is_native():
        return
    config = host.config
    captured = [e for e in host.receiving_services() if capture_maps.map_of(config, e)]
    returning = content_filters.returning_services(config)
    filtered = [e for e in captured if config.value("content_filter", e)]
    for service in captured if filtered else ():
        if service in returning:
            yield Finding(
                "captured-twice",
                CRITICAL,
                f"master.cf: {service.key}",
                f"mail of {filtered[0].key} is captured before the content filter and"
                " again here: it is archived twice, with what aliases made of its"
                " recipients",
                host.install_command(),
            )


def check_content_filters(host: Host) -> Iterator[Finding]:
    """Report content filters that get a message in pieces."""
    if not host.is_native():
        return
    config = host.config
    names = set()
    for service in host.receiving_services():
        limit = content_filters.recipient_limit(config, service)
        if limit is None or limit.parameter in names or not limit.is_too_low:
            continue
        if not capture_maps.map_of(config, service):
            continue
        names.add(limit.parameter)
        yield Finding(
            "filter-limit",
            WARNING,
            f"main.cf: {limit.parameter}",
            "the content filter gets two recipients for each of the client's: a message"
            f" to more than {limit.value // 2} is archived in pieces, each a record",
            host.parameter_command(limit.parameter, str(limit.needed)),
            is_safe=True,
        )


def check_other_maps(host: Host) -> Iterator[Finding]:
    """Report a recipient_bcc_maps that has other tables beside ours."""
    if not host.is_native():
        return
    for service in (None, *host.config.services):
        if service is not None and capture_maps.PARAMETER not in service.options:
            continue
        raw = host.config.raw(capture_maps.PARAMETER, service)
        others = capture_maps.original_maps(host.config, service)
        if capture_maps.MAP_NAME in raw and others:
            yield Finding(
                "other-bcc-map",
                CRITICAL,
                f"{service.key if service else 'main.cf'}: {capture_maps.PARAMETER}",
                f"Postfix takes the first result for a recipient: one in {others} is"
                " missing in the archive, or gets no copy of its own",
                f"move the entries of {others} to virtual_alias_maps, then"
                f" {host.install_command()}",
            )


def check_map_files(host: Host) -> Iterator[Finding]:
    """Report capture maps that are missing, wrong, or readable by others."""
    for path, problem in host.capture_map_problems.items():
        if problem:
            yield Finding(
                "capture-map", CRITICAL, path, problem, host.install_command()
            )
        file = host.files.get(path)
        if file is None or not file.exists:
            continue
        harm = "local users can read the secret with which they request archiving"
        if file.owner != "root":
            yield attribute_finding("capture-map-owner", file, harm, "chown", "root")
        elif file.mode & 0o077:
            yield attribute_finding("capture-map-mode", file, harm, "chmod", "600")


def _service_finding(host: Host, service: Service, harm: str) -> Finding:
    return Finding(
        "not-captured",
        CRITICAL,
        f"master.cf: {service.key}",
        harm,
        f"{host.install_command()}; if that is intended: "
        + host.option_command(service, "archive", ""),
    )


def _reason(host: Host, service: Service) -> str:
    """Return why cleanup(8) captures nothing of the mail of a service."""
    config = host.config
    if not archive_services.maps_addresses(config, service):
        return (
            "receive_override_options has no_address_mappings, so cleanup(8) adds no"
            " capture recipients: its mail is not archived"
        )
    name = config.value(header_rewriting.CLEANUP_PARAMETER, service)
    return (
        f"{capture_maps.PARAMETER} of the service {name}/unix has no capture map: its"
        " mail is not archived"
    )


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (
    check_captured_services,
    check_captured_once,
    check_content_filters,
    check_other_maps,
    check_map_files,
)
