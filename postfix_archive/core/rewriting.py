"""Whose mail counts as local, so that its headers are completed and mapped.

Used by installation and by the checks. Postfix says it by
local_header_rewrite_clients (postconf(5)), and we by archive_local_clients, since at
hand-back every client is this host: the stamp filter passes on which it was.
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
    """Return the words of archive_local_clients, and what main.cf says beyond them."""
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
        elif word != "permit_inet_interfaces":  # this host's own, as loopback is
            yield word


def _named(word: str) -> str | None:
    """Return our word for one of main.cf's, "" for loopback, None if there is none."""
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
