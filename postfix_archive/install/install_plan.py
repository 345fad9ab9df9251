"""Plans an installation: which entries of main.cf and master.cf must change.

Used by install/instance. Takes Postfix's configuration and returns changes, each with
the value before it; changes nothing. An entry that has its value already yields no
change, so the plan of an installed instance is empty. Changes that route mail to the
stamp filter come last; all others only prepare for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from postfix_archive.errors import InstallRefused
from postfix_archive.install import filter_routes
from postfix_archive.install.filter_routes import Change, Route, Routing, Setup
from postfix_archive.message import request
from postfix_archive.postfix import (
    archive_services,
    configuration,
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
    _check_conflicts(config, setup)
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
    additional_routes = len(Routing(config, setup).routes) - 1
    return range(
        setup.port, setup.port + archive_services.PORT_COUNT + 2 * additional_routes
    )


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
        yield _entry_change(config, _adapt_entry(line, config, setup))
    for number, route in list(enumerate(routing.routes, 1))[1:]:
        reinject_port = setup.port + archive_services.PORT_COUNT + 2 * (number - 2)
        for line in _stamp_filter_entries(
            config, reference_entries, routing, number, reinject_port
        ):
            yield _entry_change(config, _adapt_entry(line, config, setup))
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
        yield _entry_change(config, _adapt_entry(line, config, setup))


def _adapt_entry(line: str, config: Configuration, setup: Setup) -> str:
    """Return an entry of master.cf.d with this host's ports, user and directory."""
    for offset in range(archive_services.PORT_COUNT):
        default_address = f"127.0.0.1:{archive_services.DEFAULT_FIRST_PORT + offset} "
        line = line.replace(default_address, f"127.0.0.1:{setup.port + offset} ", 1)
    line = line.replace("user=postfix-archive", f"user={setup.user}")
    line = line.replace("/usr/local/lib/postfix-archive", setup.launcher_directory)
    if config.version >= (3, 9):
        line = line.replace(" -- ", " --envid {${envid}} -- ", 1)
    return line


def _entry_change(config: Configuration, line: str) -> Change:
    """Return the change to one entry; a tuned maxproc value stays."""
    planned = configuration.parse_services(line)[0]
    installed = config.service(planned.key)
    if installed is None:
        return Change("service", planned.key, line)
    fields = line.split()
    fields[6] = installed.fields[4]
    line = " ".join(fields)
    is_equal = configuration.parse_services(line)[0].line == installed.line
    return Change(
        "service", planned.key, installed.line if is_equal else line, installed.line
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
    yield filter_routes.main_cf_change(
        config, "archive_relay", config.raw("archive_relay")
    )
    yield _change_if_unset(config, archive_services.BYPASS_PARAMETER, "")
    yield _change_if_unset(config, "archive_capsule_helo", setup.capsule_helo)
    for number in range(1, len(routing.routes) + 1):
        for limit, value in filter_routes.TRANSPORT_LIMITS[setup.mode]:
            yield _change_if_unset(
                config, f"{archive_services.transport_name(number)}_{limit}", value
            )
    yield _change_if_unset(config, "archive_time_limit", "1000s")
    tables = configuration.split_list(config.raw("transport_maps"))
    other_tables = [
        each
        for each in tables
        if not each.startswith(filter_routes.TRANSPORT_TABLE_PREFIX)
    ]
    yield filter_routes.main_cf_change(
        config,
        "transport_maps",
        ", ".join([filter_routes.transport_table(setup.mode), *other_tables]),
    )
    restrictions = archive_services.guard_restrictions(
        config.raw("smtpd_recipient_restrictions")
    )
    yield filter_routes.main_cf_change(
        config, "smtpd_recipient_restrictions", restrictions
    )


def _change_if_unset(config: Configuration, name: str, value: str) -> Change:
    """Set a parameter unless main.cf sets it: the admin may have tuned it."""
    return filter_routes.main_cf_change(config, name, config.main.get(name, value))


def _check_conflicts(config: Configuration, setup: Setup) -> None:
    """Raise InstallRefused if a foreign service has one of our names or ports."""
    is_installed = archive_services.is_installed(config)
    for service in config.services:
        is_transport = (
            service.name in (STAMP_TRANSPORT, "archive") and service.kind == "unix"
        )
        has_own_name = (
            service.name in archive_services.OWN_SERVICE_NAMES
            or archive_services.is_worker_socket(service.name)
        )
        has_launcher = archive_services.has_launcher(
            service
        ) or archive_services.is_lmtp_client(service)
        is_known = (
            is_installed
            and service.name in archive_services.OWN_SERVICE_NAMES
            and not is_transport
        )
        if has_own_name and not (has_launcher or is_known):
            raise InstallRefused(
                f"{config.directory}/master.cf: service {service.key} exists and does"
                " not belong to postfix-archive; rename it there, in main.cf and in"
                " lookup tables"
            )
    ports = {
        str(port)
        for port in range(setup.port, setup.port + archive_services.PORT_COUNT)
    }
    for service in config.services:
        port = service.name.rpartition(":")[2]
        if (
            service.kind == "inet"
            and port in ports
            and not archive_services.is_ours(service)
        ):
            raise InstallRefused(
                f"{config.directory}/master.cf: service {service.key} uses a port that"
                " postfix-archive needs; choose another first port,"
                f" PORT={setup.port + 100}"
            )


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
