"""Checks of the internal ports and of the cleanup(8) behind them.

Used by core/checkup. An internal service inherits every parameter of main.cf that its
entry does not say itself; master.cf.d/30-archive-ports.cf says all that matter and is
what entries are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.core import configuration, ways
from postfix_archive.core.configuration import Service
from postfix_archive.core.finding import CRITICAL, WARNING, Finding
from postfix_archive.core.observed import Observed

CLEANUPS = (
    "archive-cleanup/unix",
    "archive-capsule-cleanup/unix",
    "archive-copy-cleanup/unix",
)
SETTINGS = ("handback", "capsule", "copy", "relay", "refused")  # archive_…_address
BACK = ("handback", "refused")  # every way has these two of its own
OF_THE_WAY = ("content_filter", "receive_override_options")  # see checks_way
AT_LEAST = (
    "smtpd_timeout",
    "smtpd_recipient_limit",
    "smtpd_soft_error_limit",
    "smtpd_hard_error_limit",
    "smtpd_junk_command_limit",
    "hopcount_limit",
)
RULES = "rules made for clients run again and refuse or change mail that was accepted"
SLOW = "limits made against strangers slow down or refuse our own hand-back"
SIZE = (
    "a message of the largest size, a stamp longer now, is refused and waits for ever"
)
LOCAL = (
    "headers of strangers' mail are completed and rewritten as if it were local: it"
    " does not leave as it came, and DKIM signatures break"
)
LEAK = "the whole envelope, Bcc included, goes to somebody else than the archive"
DROPPED = "header lines are dropped that were in the message as received"
HEADERS = "the archive copy, or the original in it, is changed or refused on its way"
TLS = "our client speaks plain SMTP on loopback: hand-back fails and mail waits"
CLIENTS = "mail handed back loses its real client, or strangers can name one"
LOST = "what SMTP or the sender asked for is refused or lost at hand-back"
FILTER = "mail goes to another filter here, and comes back, is lost or doubled"

HARMS = {
    "syslog_name": "lines in the log do not tell which port they come from",
    "content_filter": FILTER,
    "receive_override_options": FILTER,
    "cleanup_service_name": "a cleanup(8) made for other mail changes and refuses ours,"
    " or hand-back waits for itself after a reload",
    "smtpd_recipient_limit": "a large envelope does not fit one transaction and waits",
    "message_size_limit": SIZE,
    "queue_minfree": "mail cannot flow on when the disk is full, which nothing frees",
    "local_header_rewrite_clients": LOCAL,
    "always_add_missing_headers": LOCAL,
    "message_drop_headers": DROPPED,
    "in_flow_delay": "under load each hand-back pauses, and mail that waits grows",
    "hopcount_limit": "mail that was accepted with many hops is bounced in here",
    "soft_bounce": "an address that never can be delivered waits instead of bouncing",
    "mynetworks": "this host itself is refused, or others are let in",
    "qmqpd_authorized_clients": "this host itself is refused, or others are let in",
    "smtpd_authorized_xforward_hosts": CLIENTS,
    "smtpd_authorized_xclient_hosts": CLIENTS,
    "smtpd_timeout": "a long wait for the capsule breaks the hand-back",
}
HARMS_BY_PART = (
    ("restrictions", RULES),
    ("milter", RULES),
    ("reject_unlisted", RULES),
    ("proxy", RULES),
    ("command_filter", RULES),
    ("tls", TLS),
    ("sasl", TLS),
    ("_bcc", LEAK),
    ("_checks", HEADERS),
    ("discard_ehlo", LOST),
    ("min_user", LOST),
    ("strict_", LOST),
    ("_limit", SLOW),
    ("", RULES),
)


def ports(host: Observed) -> Iterator[Finding]:
    """Every internal port: there, on loopback alone, and with all its options."""
    for name, address in _addresses(host):
        key = f"{address}/inet"
        service = host.found.service(key)
        if service is None:
            yield Finding(
                "port-missing",
                CRITICAL,
                f"master.cf: {key}",
                f"nobody listens for the {name} of the archive, so mail waits and is"
                " bounced after maximal_queue_lifetime",
                "make install",
            )
            continue
        yield from _options(host, service, _reference(host, name), name)


def exposed(host: Observed) -> Iterator[Finding]:
    """An internal port that others than this host can reach."""
    for each in host.found.services:
        ours = ways.is_ours(each) and each.kind == "inet"
        if ours and not each.name.startswith(ways.LOOPBACK):
            port = each.name.rpartition(":")[2]
            yield Finding(
                "port-exposed",
                CRITICAL,
                f"master.cf: {each.key}",
                "other hosts can reach an internal port, where no rule for clients"
                " holds",
                f"in master.cf write 127.0.0.1:{port} for {each.name}, then "
                + host.command("postfix", "reload"),
            )


def silent(host: Observed) -> Iterator[Finding]:
    """An internal port on which nobody answers."""
    for each in host.silent_ports:
        yield Finding(
            "port-silent",
            CRITICAL,
            f"master.cf: {each}/inet",
            "nobody answers there, so mail waits and is bounced after"
            " maximal_queue_lifetime",
            host.command("postfix", "reload") + "; then see Postfix's log",
        )


def handed_in(host: Observed) -> Iterator[Finding]:
    """Nobody but the stamp filter gives mail to the hand-back ports."""
    if host.handed_in:
        yield Finding(
            "handed-in",
            WARNING,
            f"queue id {host.handed_in[0]}",
            f"{len(host.handed_in)} messages came in by a hand-back port, and no run of"
            " the stamp filter says so: sent around the archive by somebody on this"
            " host, or delivered twice after a crash",
            f"look for {host.handed_in[0]} in Postfix's log: where it came from, and"
            " whether the archive has it",
        )


def cleanups(host: Observed) -> Iterator[Finding]:
    """The options of the internal ports' own cleanup(8) services."""
    for key in CLEANUPS:
        service = host.found.service(key)
        if service is not None:
            yield from _options(host, service, host.reference.get(key), "cleanup")


def _addresses(host: Observed) -> Iterator[tuple[str, str]]:
    """Give the role and the address of every internal port that somebody uses."""
    if host.settings is None:
        return
    for role in SETTINGS:
        address, port = getattr(host.settings, f"archive_{role}_address")
        yield role, f"{address}:{port}"
    own = [
        (e.argument(f"{role}-address"), role) for e in host.launched() for role in BACK
    ]
    for given, role in dict.fromkeys(own):  # workers of one way have the same
        if given:
            yield role, given


def _reference(host: Observed, role: str) -> Service | None:
    usual = ways.USUAL_PORT + SETTINGS.index(role)
    return host.reference.get(f"127.0.0.1:{usual}/inet")


def _options(
    host: Observed, service: Service, reference: Service | None, role: str
) -> Iterator[Finding]:
    """Give the options that are missing or say something else than master.cf.d."""
    for name, wanted in reference.options.items() if reference else ():
        if name in OF_THE_WAY and role in BACK:
            continue
        if name not in service.options:
            yield _inherited(host, service, name, wanted)
        elif not _is_as_good(host, name, service, wanted):
            given = service.options[name] or "nothing"
            yield Finding(
                "port-option",
                CRITICAL,
                f"master.cf: {service.key} -o {name}",
                f"{_harm(name)} ({given}, not {wanted or 'empty'})",
                host.option(service, name, wanted),
                is_safe=True,
            )


def _inherited(host: Observed, service: Service, name: str, wanted: str) -> Finding:
    """Say what a missing option means: now, or as soon as main.cf says something."""
    given = host.found.value(name)
    now = given != host.found.expanded(wanted)
    source = f"main.cf's {given or 'empty value'}" if now else "what main.cf will say"
    return Finding(
        "port-inherits",
        CRITICAL if now else WARNING,
        f"master.cf: {service.key} -o {name}",
        f"{_harm(name)} (it inherits {source})",
        host.option(service, name, wanted),
        is_safe=True,
    )


def _is_as_good(host: Observed, name: str, service: Service, wanted: str) -> bool:
    if name in AT_LEAST:
        given, least = host.number(name, service), wanted.rstrip("s")
        return given is not None and given >= int(least)
    given_words = configuration.words(service.options[name])
    return sorted(given_words) == sorted(configuration.words(wanted))


def _harm(name: str) -> str:
    if name in HARMS:
        return HARMS[name]
    return next(harm for part, harm in HARMS_BY_PART if part in name)


CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    ports,
    exposed,
    silent,
    handed_in,
    cleanups,
)
