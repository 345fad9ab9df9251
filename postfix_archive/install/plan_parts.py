"""Parts of every plan: entries of master.cf.d, parameters that all modes need, names.

Used by install/install_plan and install/native_plan. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from postfix_archive.errors import InstallRefused
from postfix_archive.install import filter_routes
from postfix_archive.install.filter_routes import Change, Setup
from postfix_archive.postfix import archive_services, configuration
from postfix_archive.postfix.archive_services import (
    CAPTURE_TRANSPORT,
    STAMP_TRANSPORT,
)
from postfix_archive.postfix.configuration import Configuration


def adapt_entry(line: str, config: Configuration, setup: Setup) -> str:
    """Return an entry of master.cf.d with this host's ports, user and directory."""
    for offset in range(archive_services.PORT_COUNT):
        default_address = f"127.0.0.1:{archive_services.DEFAULT_FIRST_PORT + offset} "
        line = line.replace(default_address, f"127.0.0.1:{setup.port + offset} ", 1)
    line = line.replace("user=postfix-archive", f"user={setup.user}")
    line = line.replace("/usr/local/lib/postfix-archive", setup.launcher_directory)
    if config.version >= (3, 9):
        line = line.replace(" -- ", " --envid {${envid}} -- ", 1)
    return line


def entry_change(config: Configuration, line: str) -> Change:
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


def main_cf_changes(config: Configuration, setup: Setup) -> Iterator[Change]:
    """Yield the changes to main.cf that every mode needs before mail is routed."""
    yield filter_routes.main_cf_change(
        config, "archive_relay", config.raw("archive_relay")
    )
    yield change_if_unset(config, archive_services.BYPASS_PARAMETER, "")
    yield change_if_unset(config, "archive_capsule_helo", setup.capsule_helo)
    yield change_if_unset(config, "archive_time_limit", "1000s")
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


def transport_limits(
    config: Configuration, setup: Setup, transport: str
) -> Iterator[Change]:
    """Yield the parameters of a transport that receives mail to archive."""
    for limit, value in filter_routes.TRANSPORT_LIMITS[setup.mode]:
        yield change_if_unset(config, f"{transport}_{limit}", value)


def change_if_unset(config: Configuration, name: str, value: str) -> Change:
    """Set a parameter unless main.cf sets it: the admin may have tuned it."""
    return filter_routes.main_cf_change(config, name, config.main.get(name, value))


def check_conflicts(config: Configuration, setup: Setup) -> None:
    """Raise InstallRefused if a foreign service has one of our names or ports."""
    is_installed = archive_services.is_installed(config)
    for service in config.services:
        is_transport = (
            service.name in (STAMP_TRANSPORT, CAPTURE_TRANSPORT, "archive")
            and service.kind == "unix"
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
