"""Check the internal SMTP ports and their cleanup(8) services.

Used by doctor.checks. An internal service inherits every main.cf parameter that its
entry does not set. master.cf.d/30-archive-ports.cf sets all that matter; it is the
reference.
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
BACK = ("handback", "refused")  # each route has its own two
OF_THE_WAY = ("content_filter", "receive_override_options")  # see check_routing
AT_LEAST = (
    "smtpd_timeout",
    "smtpd_recipient_limit",
    "smtpd_soft_error_limit",
    "smtpd_hard_error_limit",
    "smtpd_junk_command_limit",
    "hopcount_limit",
)
RULES = "restrictions for clients apply again and refuse or change accepted mail"
SLOW = "limits for remote clients slow down or refuse reinjection"
SIZE = (
    "a message of the maximal size is larger by its stamp now: it is refused and"
    " deferred until it expires"
)
LOCAL = (
    "headers of remote mail are completed and rewritten as if it were local: the"
    " message is changed and DKIM signatures break"
)
LEAK = "the whole envelope, Bcc included, goes to someone else than the archive"
DROPPED = "header lines of the received message are dropped"
HEADERS = "the archive copy, or the original in it, is changed or refused"
TLS = (
    "our client speaks SMTP without TLS or SASL: reinjection fails and mail is deferred"
)
CLIENTS = "reinjected mail loses its client's address, or others can forge one"
LOST = "what SMTP or the sender requested is refused or lost at reinjection"
FILTER = "mail goes to another filter here, and loops, is lost or duplicated"

HARMS = {
    "syslog_name": "log lines do not show which port they come from",
    "content_filter": FILTER,
    "receive_override_options": FILTER,
    "cleanup_service_name": "a cleanup(8) for other mail changes or refuses ours, or"
    " reinjection deadlocks after a reload",
    "smtpd_recipient_limit": "a large envelope does not fit in one transaction and is"
    " deferred",
    "message_size_limit": SIZE,
    "queue_minfree": "on a full disk reinjection is refused, and nothing frees space",
    "local_header_rewrite_clients": LOCAL,
    "always_add_missing_headers": LOCAL,
    "message_drop_headers": DROPPED,
    "in_flow_delay": "under load each reinjection pauses, and the queue grows",
    "hopcount_limit": "accepted mail with many Received: headers is bounced here",
    "soft_bounce": "mail to an undeliverable address is deferred instead of bounced",
    "mynetworks": "this host is refused, or others are allowed",
    "qmqpd_authorized_clients": "this host is refused, or others are allowed",
    "smtpd_authorized_xforward_hosts": CLIENTS,
    "smtpd_authorized_xclient_hosts": CLIENTS,
    "smtpd_timeout": "a slow answer for the capsule breaks the reinjection",
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
    """Report internal ports that are missing or have missing or wrong options."""
    for name, address in _addresses(host):
        key = f"{address}/inet"
        service = host.found.service(key)
        if service is None:
            yield Finding(
                "port-missing",
                CRITICAL,
                f"master.cf: {key}",
                f"no service for archive_{name}_address: mail is deferred and bounces"
                " after maximal_queue_lifetime",
                "make install",
            )
            continue
        yield from _options(host, service, _reference(host, name), name)


def exposed(host: Observed) -> Iterator[Finding]:
    """Report internal ports that other hosts can reach."""
    for each in host.found.services:
        ours = ways.is_ours(each) and each.kind == "inet"
        if ours and not each.name.startswith(ways.LOOPBACK):
            port = each.name.rpartition(":")[2]
            yield Finding(
                "port-exposed",
                CRITICAL,
                f"master.cf: {each.key}",
                "other hosts can reach an internal port, which has no restrictions for"
                " clients",
                f"in master.cf replace {each.name} by 127.0.0.1:{port}, then "
                + host.command("postfix", "reload"),
            )


def silent(host: Observed) -> Iterator[Finding]:
    """Report internal ports that do not accept a connection."""
    for address in host.silent_ports:
        yield Finding(
            "port-silent",
            CRITICAL,
            f"master.cf: {address}/inet",
            f"connect to {address} fails: mail is deferred and bounces after"
            " maximal_queue_lifetime",
            host.command("postfix", "reload") + "; then see Postfix's log",
        )


def handed_in(host: Observed) -> Iterator[Finding]:
    """Report mail on the reinjection ports that the stamp filter did not reinject."""
    if host.handed_in:
        yield Finding(
            "handed-in",
            WARNING,
            f"queue id {host.handed_in[0]}",
            f"{len(host.handed_in)} messages came from a reinjection port without a log"
            " line of the stamp filter: a local user bypassed the archive, or a crash"
            " made the filter reinject them twice",
            f"search Postfix's log for {host.handed_in[0]}: where it came from, and"
            " whether the archive has it",
        )


def cleanups(host: Observed) -> Iterator[Finding]:
    """Report missing or wrong options of our cleanup(8) services."""
    for key in CLEANUPS:
        service = host.found.service(key)
        if service is not None:
            yield from _options(host, service, host.reference.get(key), "cleanup")


def _addresses(host: Observed) -> Iterator[tuple[str, str]]:
    """Yield role and address of every internal port in use."""
    if host.settings is None:
        return
    for role in SETTINGS:
        address, port = getattr(host.settings, f"archive_{role}_address")
        yield role, f"{address}:{port}"
    arguments = [
        (e.argument(f"{role}-address"), role) for e in host.launched() for role in BACK
    ]
    for argument, role in dict.fromkeys(arguments):  # workers of a route share them
        if argument:
            yield role, argument


def _reference(host: Observed, role: str) -> Service | None:
    usual = ways.USUAL_PORT + SETTINGS.index(role)
    return host.reference.get(f"127.0.0.1:{usual}/inet")


def _options(
    host: Observed, service: Service, reference: Service | None, role: str
) -> Iterator[Finding]:
    """Yield a finding for each option that is missing or differs from master.cf.d."""
    for name, wanted in reference.options.items() if reference else ():
        if name in OF_THE_WAY and role in BACK:
            continue
        if name not in service.options:
            yield _inherited(host, service, name, wanted)
        elif not _is_as_good(host, name, service, wanted):
            given = service.options[name] or "empty"
            yield Finding(
                "port-option",
                CRITICAL,
                f"master.cf: {service.key} -o {name}",
                f"{_harm(name)} (is {given}, must be {wanted or 'empty'})",
                host.option(service, name, wanted),
                is_safe=True,
            )


def _inherited(host: Observed, service: Service, name: str, wanted: str) -> Finding:
    """Return the finding for a missing option; WARNING if main.cf's value is right."""
    inherited = host.found.value(name)
    is_wrong = inherited != host.found.expanded(wanted)
    if is_wrong:
        reason = f"not set; main.cf has {inherited or 'an empty value'}"
    else:
        reason = "if main.cf changes; the option is not set here"
    return Finding(
        "port-inherits",
        CRITICAL if is_wrong else WARNING,
        f"master.cf: {service.key} -o {name}",
        f"{_harm(name)} ({reason})",
        host.option(service, name, wanted),
        is_safe=True,
    )


def _is_as_good(host: Observed, name: str, service: Service, wanted: str) -> bool:
    if name in AT_LEAST:
        number = host.number(name, service)
        return number is not None and number >= int(wanted.rstrip("s"))
    given = configuration.words(service.options[name])
    return sorted(given) == sorted(configuration.words(wanted))


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
