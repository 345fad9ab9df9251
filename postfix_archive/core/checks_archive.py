"""Checks of the archive address: that copies get there, once, and of what is recorded.

Used by core/checkup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.core import configuration, gates, lookups, questions, rewriting
from postfix_archive.core.finding import ADVICE, CRITICAL, WARNING, Finding
from postfix_archive.core.observed import Observed

OF_THIS_HOST = ("mydestination", "virtual_mailbox_domains", "virtual_alias_domains")


def comes_back(host: Observed) -> Iterator[Finding]:
    """Copies that leave without a store can be delivered on this host."""
    if host.settings is None or host.settings.stores:
        return
    for each in gates.archives(host.found):
        if _is_here(host, each) and not host.found.value("archive_relay"):
            yield Finding(
                "loops-back",
                CRITICAL,
                f"archive = {each}",
                "the domain is this host's own: smtp(8) says that mail loops back to"
                " myself, and no copy arrives",
                host.setting("archive_relay", "archive-local:"),
            )


def unknown(host: Observed) -> Iterator[Finding]:
    """An archive address of this host is a mailbox or an alias."""
    if host.settings is None or not host.settings.mails:
        return
    for each in gates.archives(host.found):
        if _is_here(host, each) and _can_be_known(host) and not _is_known(host, each):
            yield Finding(
                "archive-unknown",
                CRITICAL,
                f"archive = {each}",
                "there is no such user here, so mailed copies are refused",
                f"make the mailbox {each}, or set archive_delivery = store",
            )


def still_bcc(host: Observed) -> Iterator[Finding]:
    """No bcc sends to the archive address besides."""
    archives = set(gates.archives(host.found))
    if host.found.value("always_bcc").lower() in archives:
        yield Finding(
            "still-bcc",
            WARNING,
            "main.cf: always_bcc",
            "the archive address gets every message twice: a copy of ours and this one,"
            " which can bounce to senders",
            host.command("postconf", "-X", "always_bcc"),
        )
    for parameter in questions.BCC:
        for each in lookups.in_parameter(host.found, parameter):
            told = host.tables.get(each.table, "").lower()
            if archives & set(told.replace(",", " ").split()):
                yield Finding(
                    "still-bcc",
                    WARNING,
                    each.place,
                    "the archive address gets mail twice: a copy of ours and this one",
                    f"take those lines out of {each.table}",
                )


def original_recipient(host: Observed) -> Iterator[Finding]:
    """The original recipients are kept."""
    if host.found.value("enable_original_recipient") == "no":
        yield Finding(
            "original-recipient",
            WARNING,
            "main.cf: enable_original_recipient",
            "what an alias was before its expansion is in no record",
            host.setting("enable_original_recipient", "yes"),
            is_safe=True,
        )


def local_clients(host: Observed) -> Iterator[Finding]:
    """The same clients count as local at the first hop and at hand-back."""
    if host.settings is None:
        return
    theirs, without = rewriting.clients(host.found)
    ours = host.settings.archive_local_clients
    missing = [each for each in theirs if each not in ours]
    if missing:
        words = ", ".join([*ours, *missing])
        cure = f"in archive.cf set archive_local_clients = {words}"
        yield _local(WARNING, ", ".join(missing), cure)
    if without:
        yield _local(ADVICE, ", ".join(without), "archive.cf has no word for it")


def _local(severity: int, who: str, cure: str) -> Finding:
    return Finding(
        "local-clients",
        severity,
        "archive.cf: archive_local_clients",
        f"{who} in local_header_rewrite_clients of main.cf counts as local, but not at"
        " hand-back: From:, Date: and addresses in its headers stay incomplete",
        cure,
    )


def _is_here(host: Observed, address: str) -> bool:
    domain = address.rpartition("@")[2]
    named: set[str] = set()
    for parameter in OF_THIS_HOST:
        named.update(configuration.words(host.found.value(parameter).lower()))
    return domain in named


def _can_be_known(host: Observed) -> bool:
    """Tell whether there are maps of users at all: without, everybody is accepted."""
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
