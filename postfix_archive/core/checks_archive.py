"""Check the archive addresses, duplicate copies and what the envelope records.

Used by doctor.checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.core import configuration, gates, lookups, questions, rewriting
from postfix_archive.core.finding import ADVICE, CRITICAL, WARNING, Finding
from postfix_archive.core.observed import Observed

OF_THIS_HOST = ("mydestination", "virtual_mailbox_domains", "virtual_alias_domains")


def comes_back(host: Observed) -> Iterator[Finding]:
    """Report mailed copies to a domain of this host that would loop."""
    if host.settings is None or host.settings.stores:
        return
    for each in gates.archives(host.found):
        if _is_here(host, each) and not host.found.value("archive_relay"):
            yield Finding(
                "loops-back",
                CRITICAL,
                f"archive = {each}",
                "the domain is local to this host: smtp(8) refuses copies with 'mail"
                " loops back to myself', and no copy is delivered",
                host.setting("archive_relay", "archive-local:"),
            )


def unknown(host: Observed) -> Iterator[Finding]:
    """Report a local archive address without mailbox or alias."""
    if host.settings is None or not host.settings.mails:
        return
    for each in gates.archives(host.found):
        if _is_here(host, each) and _can_be_known(host) and not _is_known(host, each):
            yield Finding(
                "archive-unknown",
                CRITICAL,
                f"archive = {each}",
                "there is no such user on this host, so mailed copies are refused",
                f"create the mailbox {each}, or set archive_delivery = store",
            )


def still_bcc(host: Observed) -> Iterator[Finding]:
    """Report always_bcc and bcc maps that send to an archive address as well."""
    archives = set(gates.archives(host.found))
    if host.found.value("always_bcc").lower() in archives:
        yield Finding(
            "still-bcc",
            WARNING,
            "main.cf: always_bcc",
            "the archive address gets every message twice: as archive copy and as bcc,"
            " which can bounce to the sender",
            host.command("postconf", "-X", "always_bcc"),
        )
    for parameter in questions.BCC:
        for each in lookups.in_parameter(host.found, parameter):
            text = host.tables.get(each.table, "").lower()
            if archives & set(text.replace(",", " ").split()):
                yield Finding(
                    "still-bcc",
                    WARNING,
                    each.place,
                    "the archive address gets mail twice: as archive copy and as bcc",
                    f"remove those lines from {each.table}",
                )


def original_recipient(host: Observed) -> Iterator[Finding]:
    """Report enable_original_recipient = no."""
    if host.found.value("enable_original_recipient") == "no":
        yield Finding(
            "original-recipient",
            WARNING,
            "main.cf: enable_original_recipient",
            "no record has the recipient as it was before alias expansion",
            host.setting("enable_original_recipient", "yes"),
            is_safe=True,
        )


def local_clients(host: Observed) -> Iterator[Finding]:
    """Report clients that are local in main.cf, but not in archive_local_clients."""
    if host.settings is None:
        return
    in_main_cf, unsupported = rewriting.clients(host.found)
    ours = host.settings.archive_local_clients
    missing = [each for each in in_main_cf if each not in ours]
    if missing:
        value = ", ".join([*ours, *missing])
        cure = f"in archive.cf set archive_local_clients = {value}"
        yield _local(WARNING, ", ".join(missing), cure)
    if unsupported:
        cure = "none: archive_local_clients has no equivalent"
        yield _local(ADVICE, ", ".join(unsupported), cure)


def _local(severity: int, who: str, cure: str) -> Finding:
    return Finding(
        "local-clients",
        severity,
        "archive.cf: archive_local_clients",
        f"local_header_rewrite_clients in main.cf has {who}, archive_local_clients has"
        " not: after reinjection From:, Date: and addresses in headers of such clients"
        " are not completed",
        cure,
    )


def _is_here(host: Observed, address: str) -> bool:
    """Tell whether the domain of an address is one of this host."""
    domain = address.rpartition("@")[2]
    domains: set[str] = set()
    for parameter in OF_THIS_HOST:
        domains.update(configuration.words(host.found.value(parameter).lower()))
    return domain in domains


def _can_be_known(host: Observed) -> bool:
    """Tell whether Postfix knows its users: without maps it accepts every address."""
    return bool(host.found.value("local_recipient_maps"))


def _is_known(host: Observed, address: str) -> bool:
    user, _, domain = address.rpartition("@")
    wanted = (user, address, f"@{domain}")
    return any(key in wanted for _, key in host.answers)


CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    comes_back,
    unknown,
    still_bcc,
    original_recipient,
    local_clients,
)
