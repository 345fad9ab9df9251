"""Capture maps of the native modes: whose mail cleanup(8) captures, to which archive.

Used by install, doctor, bypass and the commands key and tables. recipient_bcc_maps
(postconf(5)) names a regexp_table(5) of ours, which makes a capture recipient for each
recipient of a message (message/request). The map of main.cf is for the archive value of
main.cf. A service with another value has a cleanup(8) service of its own, which names
the map of that value.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from postfix_archive.errors import InstallRefused
from postfix_archive.message import request
from postfix_archive.postfix import (
    archive_services,
    configuration,
    header_rewriting,
    lmtp_services,
)
from postfix_archive.postfix.archive_services import (
    BYPASS_PARAMETER,
    CAPTURE_TRANSPORT,
)
from postfix_archive.postfix.configuration import Configuration, Service

PARAMETER = archive_services.CAPTURE_PARAMETER
MAP_NAME = CAPTURE_TRANSPORT  # file in the configuration directory
MAP_PREFIX = f"{MAP_NAME}."  # for the value of a service, which follows
NOTHING = "none"  # in place of the value: this service archives nothing


def main_expression(on_request: bool) -> str:
    """Return recipient_bcc_maps of main.cf.

    on_request: mail without an archive value is captured as well. The expression names
    archive all the same: postconf(1) lists only parameters that another one uses.
    """
    tables = _tables(MAP_NAME)
    otherwise = f":{{{tables}}}" if on_request else ""
    return f"${{{BYPASS_PARAMETER}:{{${{archive?{{{tables}}}{otherwise}}}}}}}"


def service_expression(value: str) -> str:
    """Return recipient_bcc_maps of the cleanup(8) service for one archive value."""
    if not value:
        return ""
    return f"${{{BYPASS_PARAMETER}:{{{_tables(map_name(value))}}}}}"


def _tables(name: str) -> str:
    """Return the tables: the map, and what makes it match an address without UTF-8.

    Such an address is no key of a table, but its domain is (cleanup(8) looks up both):
    pipemap makes ``@`` of that, which the map has for it.
    """
    table = f"regexp:$config_directory/{name}"
    return f"{table},pipemap:{{static:{request.NO_KEY},{table}}}"


def map_name(value: str) -> str:
    """Return the file name of a map: a comma would end the name in a list of tables."""
    return MAP_PREFIX + value.replace(",", ":")


def cleanup_name(original: str, value: str) -> str:
    """Return the name of the cleanup(8) service that takes the place of another."""
    return f"archive-{original}.{value or NOTHING}"


def cleanup_expression(original: str, value: str) -> str:
    """Return cleanup_service_name of a service whose value is not that of main.cf."""
    return f"${{{BYPASS_PARAMETER}?{{{original}}}:{{{cleanup_name(original, value)}}}}}"


def check_value(value: str, original: str) -> None:
    """Raise InstallRefused if a value cannot be part of a service name and a file name.

    original: the cleanup service whose place the one for this value takes.
    """
    problem = f"native mode: -o archive={value} cannot be a service name in master.cf"
    if not lmtp_services.SERVICE_NAME.fullmatch(value):
        raise InstallRefused(
            f"{problem}: only letters, digits and . _ + - @ ' , are allowed; use"
            " another address or MODE=pipe"
        )
    path = f"private/{cleanup_name(original, value)}"
    excess = len(path) - lmtp_services.SOCKET_PATH_LIMIT
    if excess > 0:
        raise InstallRefused(
            f"{problem}: it has {len(value)} characters, the socket path allows"
            f" {len(value) - excess}; use a shorter address or MODE=pipe"
        )


def is_on_request(config: Configuration) -> bool:
    """Tell whether main.cf captures mail without an archive value as well."""
    return config.raw(PARAMETER).startswith(main_expression(on_request=True))


def original_maps(config: Configuration, service: Service | None) -> str:
    """Return recipient_bcc_maps as an administrator has set it, without our maps."""
    elements = configuration.split_list(config.raw(PARAMETER, service))
    return ", ".join(each for each in elements if MAP_NAME not in each)


def cleanup_service(config: Configuration, service: Service) -> Service | None:
    """Return the cleanup(8) service to which a service passes its mail."""
    name = config.value(header_rewriting.CLEANUP_PARAMETER, service)
    return config.service(f"{name}/unix")


def map_of(config: Configuration, service: Service) -> str:
    """Return the path of the capture map for the mail of a service, "" if none.

    None with no_address_mappings: cleanup(8) adds no bcc recipients then.
    """
    if not archive_services.maps_addresses(config, service):
        return ""
    maps = config.value(PARAMETER, cleanup_service(config, service))
    for element in configuration.split_list(maps):
        table_type, _, path = element.partition(":")
        if table_type == "regexp" and is_map_name(posixpath.basename(path)):
            return path
    return ""


def is_map_name(name: str) -> bool:
    """Tell whether a file in the configuration directory has the name of our maps."""
    return name == MAP_NAME or name.startswith(MAP_PREFIX)


def value_of(config: Configuration, path: str) -> str:
    """Return the archive value that the map with this path must have."""
    name = posixpath.basename(path)
    if name.startswith(MAP_PREFIX):
        return name.removeprefix(MAP_PREFIX).replace(":", ",")
    return config.value("archive") or request.ON_REQUEST


def needed(config: Configuration) -> dict[str, str]:
    """Return file name -> archive value of the maps for main.cf and all services."""
    main_value = config.value("archive") or request.ON_REQUEST
    services = archive_services.receiving_services(config)
    values = {config.value("archive", each) for each in services}
    values.update(required(config, services).values())
    others = {map_name(each): each for each in sorted(values - {"", main_value})}
    return {MAP_NAME: main_value, **others}


def required(config: Configuration, services: Iterable[Service]) -> dict[str, str]:
    """Return path -> archive value of the maps for the mail of these services."""
    paths = [map_of(config, each) for each in services]
    return {path: value_of(config, path) for path in paths if path}
