"""Clients whose message headers Postfix rewrites, as values of archive_local_clients.

Used by install/instance and doctor. local_header_rewrite_clients (postconf(5)) names
these clients. At reinjection every client is this host, so the stamp filter compares
the original client with archive_local_clients and sends the result by XFORWARD SOURCE.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from postfix_archive.message import address
from postfix_archive.postfix import configuration
from postfix_archive.postfix.configuration import Configuration

REWRITE_PARAMETER = "local_header_rewrite_clients"
SASL_ELEMENT = "permit_sasl_authenticated"
LOOPBACK_NETWORKS = ("127.0.0.0/8", "::1")


def from_configuration(
    config: Configuration,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return values for archive_local_clients, and those of main.cf without one."""
    values: dict[str, None] = dict.fromkeys(LOOPBACK_NETWORKS)
    unsupported = []
    for element in _elements(config):
        value = _archive_cf_value(element)
        if value is None:
            unsupported.append(element)
        elif value:
            values[value] = None
    return tuple(values), tuple(unsupported)


def _elements(config: Configuration) -> Iterator[str]:
    for element in configuration.split_list(config.value(REWRITE_PARAMETER)):
        if element == "permit_mynetworks":
            yield from configuration.split_list(config.value("mynetworks"))
        elif (
            element != "permit_inet_interfaces"
        ):  # addresses of this host, like loopback
            yield element


def _archive_cf_value(element: str) -> str | None:
    """Return a value as archive.cf has it, "" for loopback, None if it has none."""
    if element == SASL_ELEMENT:
        return element
    try:
        network = ipaddress.ip_network(element.replace("[", "").replace("]", ""), False)
    except ValueError:
        return None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        network = ipaddress.ip_network((mapped, network.prefixlen - 96), False)
    if network.is_loopback:
        return ""
    is_single = network.prefixlen == network.max_prefixlen
    text = str(network.network_address if is_single else network)
    return text if address.is_network(text) else None
