"""Plans an installation in a native mode: capture maps in place of a content filter.

Used by install/install_plan. The modes native and native-pipe differ only by entries of
master.cf.d, the nexthop (archive_services.request_destination) and the limits of the
transport. Every message gets capture recipients from cleanup(8) where its addresses are
mapped (postconf(5), recipient_bcc_maps), so exactly one cleanup(8) on its way must do
that. Where a content filter reinjects, that is the first one which maps addresses.
Raises InstallRefused where mail would be captured twice, in pieces or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from postfix_archive.errors import InstallRefused
from postfix_archive.install import filter_routes, plan_parts
from postfix_archive.install.filter_routes import Change, Setup
from postfix_archive.message import request
from postfix_archive.postfix import (
    archive_services,
    capture_maps,
    content_filters,
    header_rewriting,
)
from postfix_archive.postfix.configuration import Configuration, Service

OTHER_MODES = "or use MODE=lmtp or MODE=pipe, which need no bcc map"


def plan_changes(
    config: Configuration, setup: Setup, reference_entries: Mapping[str, str]
) -> tuple[Change, ...]:
    """Return the changes, those that route mail last.

    reference_entries: those of master.cf.d, by name/type. Raises InstallRefused.
    """
    check_maps(config)
    values = capture_values(config, setup)
    reinjection_services = content_filters.reinjection_ports(config)
    changes = [
        *_entry_changes(config, setup, reference_entries),
        *_cleanup_changes(config, setup, values),
        *plan_parts.transport_limits(config, setup, archive_services.CAPTURE_TRANSPORT),
        *plan_parts.main_cf_changes(config, setup),
        *filter_routes.restriction_changes(
            config, reinjection_services, takes_requests=True
        ),
        *_routing_changes(config, setup, values),
    ]
    return tuple(each for each in changes if each.after != each.before)


def map_values(config: Configuration, setup: Setup) -> dict[str, str]:
    """Return file name -> archive value of the capture maps that the plan needs.

    Raises InstallRefused.
    """
    values = {each for each in capture_values(config, setup).values() if each}
    main_value = _value(config, setup)
    names = {capture_maps.map_name(each): each for each in values - {main_value}}
    return {capture_maps.MAP_NAME: main_value, **names}


def capture_values(config: Configuration, setup: Setup) -> dict[str, str]:
    """Return name/type -> archive value of each receiving service, "" for none.

    Raises InstallRefused.
    """
    services = archive_services.receiving_services(config)
    values = {each.key: _value(config, setup, each) for each in services}
    returning = content_filters.returning_services(config)
    clients = [e for e in services if e not in returning and values[e.key]]
    filtered = [each for each in clients if _content_filter(config, each)]
    for service in clients:
        if service in filtered:
            _check_filter(config, service)
        else:
            _check_is_mapped(config, service)
    unmapped = returning
    if not all(archive_services.maps_addresses(config, each) for each in filtered):
        mapped = [e for e in returning if archive_services.maps_addresses(config, e)]
        unmapped = [each for each in returning if each not in mapped]
        others = [e for e in services if e not in returning and e not in clients]
        unarchived = [each for each in others if _content_filter(config, each)]
        _check_later_mapping(config, values, [*filtered, *unarchived], mapped)
    return {**values, **{each.key: "" for each in unmapped}}


def check_maps(config: Configuration) -> None:
    """Raise InstallRefused for recipient_bcc_maps of an administrator."""
    for service in (None, *config.services):
        if service is not None and (
            capture_maps.PARAMETER not in service.options
            or archive_services.is_ours(service)
        ):
            continue
        maps = capture_maps.original_maps(config, service)
        if config.expand(maps, service):
            raise InstallRefused(
                f"{_place(config, service)}: {capture_maps.PARAMETER} = {maps}: native"
                " mode needs this parameter, and Postfix takes one result of it for a"
                " recipient; move these entries to virtual_alias_maps (the recipient"
                f" itself and its copy), {OTHER_MODES}"
            )


def _value(config: Configuration, setup: Setup, service: Service | None = None) -> str:
    """Return the archive value of a service, or of main.cf."""
    has_own = service is not None and "archive" in service.options
    archive = config.value("archive", service) if has_own else setup.archive
    return archive or (request.ON_REQUEST if setup.on_request else "")


def _content_filter(config: Configuration, service: Service) -> str:
    return config.expand(content_filters.original_filter(config, service), service)


def _check_is_mapped(config: Configuration, service: Service) -> None:
    """Raise InstallRefused if cleanup(8) would add no capture recipients."""
    if archive_services.maps_addresses(config, service):
        return
    if config.value("smtpd_proxy_filter", service):
        return
    raise InstallRefused(
        f"{_place(config, service)}: receive_override_options has no_address_mappings,"
        " so cleanup(8) would capture nothing of its mail; remove it there,"
        f" {OTHER_MODES}"
    )


def _check_filter(config: Configuration, service: Service) -> None:
    """Raise InstallRefused for a content filter that would get a message in pieces."""
    content_filter = _content_filter(config, service)
    transport, _, nexthop = content_filter.partition(":")
    if not nexthop:
        raise InstallRefused(
            f"{_place(config, service)}: content_filter = {content_filter} has no"
            " nexthop: Postfix splits mail by domain before it is captured; give it"
            f" one ({transport}:dummy), {OTHER_MODES}"
        )
    limit = content_filters.recipient_limit(config, service)
    if limit is not None and limit.is_too_low:
        raise InstallRefused(
            f"{_place(config, service)}: content_filter = {content_filter}: in native"
            " mode it gets two recipients for each of the client's, and more than"
            f" {limit.value} in pieces, each archived by itself; run postconf -e"
            f" '{limit.parameter} = {limit.needed}', {OTHER_MODES}"
        )


def _check_later_mapping(
    config: Configuration,
    values: Mapping[str, str],
    filtered: list[Service],
    mapped: list[Service],
) -> None:
    """Raise InstallRefused unless all that is filtered is mapped when it comes back.

    It is captured there, to the archive of the service that takes it back.
    """
    wanted = {values[each.key] for each in (*filtered, *mapped)}
    is_mapped_first = any(
        archive_services.maps_addresses(config, each) for each in filtered
    )
    if is_mapped_first or not mapped or len(wanted) > 1:
        raise InstallRefused(
            f"{_place(config, filtered[0])}: its addresses are mapped where the content"
            " filter reinjects (no_address_mappings in receive_override_options), so"
            " its mail would be captured there; for that all services with a content"
            " filter must map there and have the same archive; change that,"
            f" {OTHER_MODES}"
        )


def _entry_changes(
    config: Configuration, setup: Setup, reference_entries: Mapping[str, str]
) -> Iterator[Change]:
    """Yield the services of master.cf.d.

    Mail of another mode that is still reinjected has been captured by that mode.
    """
    for key, line in reference_entries.items():
        if key == header_rewriting.LAST_CLEANUP:
            line = header_rewriting.add_options(line, {capture_maps.PARAMETER: ""})
        yield plan_parts.entry_change(
            config, plan_parts.adapt_entry(line, config, setup)
        )


def _cleanup_changes(
    config: Configuration, setup: Setup, values: Mapping[str, str]
) -> Iterator[Change]:
    """Yield the cleanup(8) service of each value that is not that of main.cf.

    Raises InstallRefused for a value that cannot be part of a service name.
    """
    services = archive_services.receiving_services(config)
    needed = {
        (header_rewriting.cleanup_name(config, each), values[each.key])
        for each in services
        if values[each.key] != _value(config, setup)
    }
    for original_name, value in sorted(needed):
        if value:
            capture_maps.check_value(value, original_name)
        original = config.service(f"{original_name}/unix")
        if original is None:
            raise InstallRefused(
                f"{config.directory}/master.cf: there is no service {original_name},"
                " which cleanup_service_name names; correct it"
            )
        name = capture_maps.cleanup_name(original_name, value)
        words = [name, "unix", *original.fields, original.command]
        options = {
            **original.options,
            capture_maps.PARAMETER: capture_maps.service_expression(value),
        }
        entry = header_rewriting.add_options(" ".join(words), options)
        yield plan_parts.entry_change(config, entry)


def _routing_changes(
    config: Configuration, setup: Setup, values: Mapping[str, str]
) -> Iterator[Change]:
    """Yield the changes after which mail is captured."""
    for service in archive_services.receiving_services(config):
        name = header_rewriting.cleanup_name(config, service)
        if values[service.key] != _value(config, setup):
            name = capture_maps.cleanup_expression(name, values[service.key])
        if name != config.raw(header_rewriting.CLEANUP_PARAMETER, service):
            yield filter_routes.option_change(
                service, header_rewriting.CLEANUP_PARAMETER, name, routes_mail=True
            )
    yield from filter_routes.archive_changes(config, setup)
    yield filter_routes.main_cf_change(
        config,
        capture_maps.PARAMETER,
        capture_maps.main_expression(setup.on_request),
        routes_mail=True,
    )


def _place(config: Configuration, service: Service | None) -> str:
    if service is None:
        return f"{config.directory}/main.cf"
    return f"{config.directory}/master.cf: {service.key}"
