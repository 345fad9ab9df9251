"""Plans an installation: which entries of main.cf and master.cf must change.

Used by install/instance. Takes Postfix's configuration and returns changes, each with
the value before it; changes nothing. An entry that has its value already yields no
change, so the plan of an installed instance is empty. Changes that route mail to the
stamp filter come last; all others only prepare for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from postfix_archive.install import filter_routes, native_plan, plan_parts
from postfix_archive.install.filter_routes import Change, Route, Routing, Setup
from postfix_archive.message import request
from postfix_archive.postfix import (
    archive_services,
    header_rewriting,
    lmtp_services,
)
from postfix_archive.postfix.archive_services import STAMP_TRANSPORT
from postfix_archive.postfix.configuration import Configuration, Service
from postfix_archive.postfix.header_rewriting import LAST_CLEANUP


def plan_changes(
    config: Configuration, setup: Setup, reference_entries: Mapping[str, str]
) -> tuple[Change, ...]:
    """Return the changes, those that route mail last.

    reference_entries: those of master.cf.d, by name/type. Raises InstallRefused if the
    configuration does not allow a safe installation.
    """
    plan_parts.check_conflicts(config, setup)
    if setup.mode in archive_services.NATIVE_MODES:
        return native_plan.plan_changes(config, setup, reference_entries)
    routing = Routing(config, setup)
    changes = [
        *_service_changes(config, setup, reference_entries, routing),
        *_main_cf_changes(config, setup, routing),
        *routing.service_changes(),
        *routing.main_changes(),
    ]
    return tuple(each for each in changes if each.after != each.before)


def required_ports(config: Configuration, setup: Setup) -> range:
    """Return the ports on which our services will listen."""
    is_native = setup.mode in archive_services.NATIVE_MODES
    additional_routes = 0 if is_native else len(Routing(config, setup).routes) - 1
    return range(
        setup.port, setup.port + archive_services.PORT_COUNT + 2 * additional_routes
    )


def map_values(config: Configuration, setup: Setup) -> dict[str, str]:
    """Return file name -> archive value of the capture maps that the mode needs."""
    if setup.mode not in archive_services.NATIVE_MODES:
        return {}
    return native_plan.map_values(config, setup)


def installed_first_port(config: Configuration) -> int:
    """Return the first port of the installed services, 0 if there are none."""
    for service in config.services:
        if service.options.get("syslog_name", "").endswith("/archive-capsule"):
            port = service.name.rpartition(":")[2]
            return int(port) - 1 if port.isdigit() else 0
    return 0


def installed_position(config: Configuration) -> str:
    """Return "before" or "after" as installed, "" without an installation."""
    if STAMP_TRANSPORT in config.raw("content_filter"):
        return "before"
    reinjection_services = Routing(
        config, Setup(archive="", launcher_directory="")
    ).reinjection_services
    is_filtered = any(
        STAMP_TRANSPORT in each.options["content_filter"]
        for each in reinjection_services
    )
    return "after" if is_filtered else ""


def _service_changes(
    config: Configuration,
    setup: Setup,
    reference_entries: Mapping[str, str],
    routing: Routing,
) -> Iterator[Change]:
    """Yield the services of master.cf.d, and those of each additional route."""
    sample = reference_entries.get(lmtp_services.SAMPLE_KEY, "")
    lines = [line for line in reference_entries.values() if line != sample]
    if sample:
        lines += worker_entries(sample, config, routing, 1)
    lines += [
        header_rewriting.first_entry(config, name)
        for name in sorted(routing.first_cleanups)
    ]
    for line in lines:
        if routing.maps_headers_first and line == reference_entries.get(LAST_CLEANUP):
            line = header_rewriting.add_options(
                line, header_rewriting.last_options(config)
            )
        yield plan_parts.entry_change(
            config, plan_parts.adapt_entry(line, config, setup)
        )
    for number, route in list(enumerate(routing.routes, 1))[1:]:
        reinject_port = setup.port + archive_services.PORT_COUNT + 2 * (number - 2)
        for line in _stamp_filter_entries(
            config, reference_entries, routing, number, reinject_port
        ):
            yield plan_parts.entry_change(
                config, plan_parts.adapt_entry(line, config, setup)
            )
        yield from _reinjection_port_changes(
            config, setup, reference_entries, route, reinject_port
        )


def _stamp_filter_entries(
    config: Configuration,
    reference_entries: Mapping[str, str],
    routing: Routing,
    number: int,
    reinject_port: int,
) -> Iterator[str]:
    """Yield the stamp filter of an additional route, with workers in lmtp mode."""
    entry = reference_entries[f"{STAMP_TRANSPORT}/unix"].replace(
        f"{STAMP_TRANSPORT} ", f"{STAMP_TRANSPORT}-{number} ", 1
    )
    arguments = f"--handback-address 127.0.0.1:{reinject_port}"
    arguments += f" --refused-address 127.0.0.1:{reinject_port + 1}"
    yield entry.replace(" -- ", f" {arguments} -- ", 1)
    if sample := reference_entries.get(lmtp_services.SAMPLE_KEY, ""):
        for line in worker_entries(sample, config, routing, number):
            yield f"{line} {arguments}"


def _reinjection_port_changes(
    config: Configuration,
    setup: Setup,
    reference_entries: Mapping[str, str],
    route: Route,
    reinject_port: int,
) -> Iterator[Change]:
    """Yield the two reinjection ports (SMTP and QMQP) of an additional route."""
    for default_port, port in (
        (archive_services.DEFAULT_FIRST_PORT, reinject_port),
        (archive_services.DEFAULT_FIRST_PORT + 4, reinject_port + 1),
    ):
        line = reference_entries[f"127.0.0.1:{default_port}/inet"]
        line = line.replace(f":{default_port} ", f":{port} ", 1)
        options = route.reinject_options or filter_routes.REINJECT_OPTIONS
        option = "receive_override_options="
        start, _, rest = line.partition(option)
        line = f"{start}{option}{options} " + rest.partition(" ")[2]
        line = line.replace("$archive_next_filter", route.next_filter)
        yield plan_parts.entry_change(
            config, plan_parts.adapt_entry(line, config, setup)
        )


def _main_cf_changes(
    config: Configuration, setup: Setup, routing: Routing
) -> Iterator[Change]:
    """Yield the changes to main.cf that must precede the routing changes."""
    yield filter_routes.main_cf_change(
        config, "archive_next_filter", routing.first_route.next_filter
    )
    yield filter_routes.main_cf_change(
        config, "archive_handback_options", routing.first_route.reinject_options
    )
    for number in range(1, len(routing.routes) + 1):
        yield from plan_parts.transport_limits(
            config, setup, archive_services.transport_name(number)
        )
    yield from plan_parts.main_cf_changes(config, setup)


def worker_entries(
    sample: str, config: Configuration, routing: Routing, number: int
) -> Iterator[str]:
    """Yield a worker entry, from the sample of master.cf.d, for each archive value.

    number: of the route. Raises InstallRefused for a value that cannot be a service
    name.
    """
    route_services: list[Service | None] = []
    for service in config.services:
        is_candidate = (
            "archive" in service.options
            if number == 1
            else service in routing.archived_services
        )
        if is_candidate and routing.route_number(service) == number:
            route_services.append(service)
    if number == 1:
        route_services.insert(0, None)
    elif routing.setup.on_request:
        yield lmtp_services.worker_entry(sample, number, request.ON_REQUEST)
    for archive in lmtp_services.archive_values(
        config, routing.setup.archive, route_services
    ):
        lmtp_services.check_archive(archive, number)
        yield lmtp_services.worker_entry(sample, number, archive)
