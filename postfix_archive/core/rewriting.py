"""Clients whose message headers Postfix rewrites, as values of archive_local_clients.

Used by install/instance and doctor. local_header_rewrite_clients (postconf(5)) names
these clients. At reinjection every client is this host, so the stamp filter compares
the original client with archive_local_clients and sends the result by XFORWARD SOURCE.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from postfix_archive.core import address, configuration
from postfix_archive.core.configuration import Configuration

PARAMETER = "local_header_rewrite_clients"
SASL = "permit_sasl_authenticated"
LOOPBACK = ("127.0.0.0/8", "::1")


def clients(found: Configuration) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return values for archive_local_clients, and those of main.cf without one."""
    words: dict[str, None] = dict.fromkeys(LOOPBACK)
    without = []
    for word in _words(found):
        named = _named(word)
        if named is None:
            without.append(word)
        elif named:
            words[named] = None
    return tuple(words), tuple(without)


def _words(found: Configuration) -> Iterator[str]:
    for word in configuration.words(found.value(PARAMETER)):
        if word == "permit_mynetworks":
            yield from configuration.words(found.value("mynetworks"))
        elif word != "permit_inet_interfaces":  # addresses of this host, like loopback
            yield word


def _named(word: str) -> str | None:
    """Return a value as archive.cf has it, "" for loopback, None if it has none."""
    if word == SASL:
        return word
    try:
        network = ipaddress.ip_network(word.replace("[", "").replace("]", ""), False)
    except ValueError:
        return None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        network = ipaddress.ip_network((mapped, network.prefixlen - 96), False)
    if network.is_loopback:
        return ""
    single = network.prefixlen == network.max_prefixlen
    text = str(network.network_address if single else network)
    return text if address.is_network(text) else None
