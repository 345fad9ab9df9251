"""Check the archive addresses, duplicate copies and what the envelope records.

Used by doctor.checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.doctor import lookup_queries
from postfix_archive.doctor.finding import ADVICE, Finding
from postfix_archive.doctor.host import Host
from postfix_archive.monitoring import CRITICAL, WARNING
from postfix_archive.postfix import (
    archive_services,
    configuration,
    local_clients,
    lookup_tables,
)

LOCAL_DOMAIN_PARAMETERS = (
    "mydestination",
    "virtual_mailbox_domains",
    "virtual_alias_domains",
)


def check_copy_loop(host: Host) -> Iterator[Finding]:
    """Report mailed copies to a domain of this host that would loop."""
    if host.settings is None or host.settings.has_store:
        return
    for archive in archive_services.configured_archives(host.config):
        if _is_local(host, archive) and not host.config.value("archive_relay"):
            yield Finding(
                "copy-loop",
                CRITICAL,
                f"archive = {archive}",
                "the domain is local to this host: smtp(8) refuses copies with 'mail"
                " loops back to myself', and no copy is delivered",
                host.parameter_command("archive_relay", "archive-local:"),
            )


def check_archive_recipient(host: Host) -> Iterator[Finding]:
    """Report a local archive address without mailbox or alias."""
    if host.settings is None or not host.settings.has_mail_delivery:
        return
    for archive in archive_services.configured_archives(host.config):
        if (
            _is_local(host, archive)
            and _has_recipient_maps(host)
            and not _is_known_recipient(host, archive)
        ):
            yield Finding(
                "archive-address-unknown",
                CRITICAL,
                f"archive = {archive}",
                "there is no such user on this host, so mailed copies are refused",
                f"create the mailbox {archive}, or set archive_delivery = store",
            )


def check_bcc(host: Host) -> Iterator[Finding]:
    """Report always_bcc and bcc maps that send to an archive address as well."""
    archives = set(archive_services.configured_archives(host.config))
    if host.config.value("always_bcc").lower() in archives:
        yield Finding(
            "duplicate-bcc",
            WARNING,
            "main.cf: always_bcc",
            "the archive address gets every message twice: as archive copy and as bcc,"
            " which can bounce to the sender",
            host.postfix_command("postconf", "-X", "always_bcc"),
        )
    for parameter in lookup_queries.BCC_MAPS:
        for lookup in lookup_tables.in_parameter(host.config, parameter):
            text = host.table_texts.get(lookup.table, "").lower()
            if archives & set(text.replace(",", " ").split()):
                yield Finding(
                    "duplicate-bcc",
                    WARNING,
                    lookup.location,
                    "the archive address gets mail twice: as archive copy and as bcc",
                    f"remove those lines from {lookup.table}",
                )


def check_original_recipient(host: Host) -> Iterator[Finding]:
    """Report enable_original_recipient = no."""
    if host.config.value("enable_original_recipient") == "no" and not host.is_native():
        yield Finding(
            "original-recipient",
            WARNING,
            "main.cf: enable_original_recipient",
            "no record has the recipient as it was before alias expansion",
            host.parameter_command("enable_original_recipient", "yes"),
            is_safe=True,
        )


def check_local_clients(host: Host) -> Iterator[Finding]:
    """Report clients that are local in main.cf, but not in archive_local_clients."""
    if host.settings is None:
        return
    in_main_cf, unsupported = local_clients.from_configuration(host.config)
    ours = host.settings.archive_local_clients
    missing = [each for each in in_main_cf if each not in ours]
    if missing:
        value = ", ".join([*ours, *missing])
        fix = f"in archive.cf set archive_local_clients = {value}"
        yield _local_clients_finding(WARNING, ", ".join(missing), fix)
    if unsupported:
        fix = "none: archive_local_clients has no equivalent"
        yield _local_clients_finding(ADVICE, ", ".join(unsupported), fix)


def _local_clients_finding(severity: int, clients: str, fix: str) -> Finding:
    return Finding(
        "local-clients",
        severity,
        "archive.cf: archive_local_clients",
        f"local_header_rewrite_clients in main.cf has {clients}, archive_local_clients"
        " has not: after reinjection From:, Date: and addresses in headers of such"
        " clients are not completed",
        fix,
    )


def _is_local(host: Host, address: str) -> bool:
    """Tell whether the domain of an address is one of this host."""
    domain = address.rpartition("@")[2]
    domains: set[str] = set()
    for parameter in LOCAL_DOMAIN_PARAMETERS:
        domains.update(configuration.split_list(host.config.value(parameter).lower()))
    return domain in domains


def _has_recipient_maps(host: Host) -> bool:
    """Tell whether Postfix knows its users: without maps it accepts every address."""
    return bool(host.config.value("local_recipient_maps"))


def _is_known_recipient(host: Host, address: str) -> bool:
    user, _, domain = address.rpartition("@")
    keys = (user, address, f"@{domain}")
    return any(key in keys for _, key in host.lookup_results)


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (
    check_copy_loop,
    check_archive_recipient,
    check_bcc,
    check_original_recipient,
    check_local_clients,
)
