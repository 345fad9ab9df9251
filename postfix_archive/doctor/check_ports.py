"""Check the internal SMTP ports and their cleanup(8) services.

Used by doctor.checks. An internal service inherits every main.cf parameter that its
entry does not set. master.cf.d/30-archive-ports.cf sets all that matter; it is the
reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.doctor import reference_options
from postfix_archive.doctor.finding import Finding
from postfix_archive.doctor.host import Host
from postfix_archive.doctor.reference_options import OptionRules
from postfix_archive.monitoring import CRITICAL, WARNING
from postfix_archive.postfix import archive_services
from postfix_archive.postfix.configuration import Service

CLEANUP_SERVICES = (
    "archive-cleanup/unix",
    "archive-capsule-cleanup/unix",
    "archive-copy-cleanup/unix",
)
PORT_ROLES = ("handback", "capsule", "copy", "relay", "refused")  # archive_…_address
REINJECT_ROLES = ("handback", "refused")  # each route has its own two
ROUTE_OPTIONS = ("content_filter", "receive_override_options")  # see check_routing
MINIMUM_OPTIONS = (
    "smtpd_timeout",
    "smtpd_recipient_limit",
    "smtpd_soft_error_limit",
    "smtpd_hard_error_limit",
    "smtpd_junk_command_limit",
    "hopcount_limit",
)
RESTRICTION_HARM = (
    "restrictions for clients apply again and refuse or change accepted mail"
)
LIMIT_HARM = "limits for remote clients slow down or refuse reinjection"
SIZE_HARM = (
    "a message of the maximal size is larger by its stamp now: it is refused and"
    " deferred until it expires"
)
LOCAL_REWRITE_HARM = (
    "headers of remote mail are completed and rewritten as if it were local: the"
    " message is changed and DKIM signatures break"
)
LEAK_HARM = "the whole envelope, Bcc included, goes to someone else than the archive"
DROPPED_HEADER_HARM = "header lines of the received message are dropped"
HEADER_CHECKS_HARM = "the archive copy, or the original in it, is changed or refused"
TLS_HARM = (
    "our client speaks SMTP without TLS or SASL: reinjection fails and mail is deferred"
)
CLIENT_HARM = "reinjected mail loses its client's address, or others can forge one"
LOST_HARM = "what SMTP or the sender requested is refused or lost at reinjection"
FILTER_HARM = "mail goes to another filter here, and loops, is lost or duplicated"

HARMS = {
    "syslog_name": "log lines do not show which port they come from",
    "content_filter": FILTER_HARM,
    "receive_override_options": FILTER_HARM,
    "cleanup_service_name": (
        "a cleanup(8) for other mail changes or refuses ours, or"
        " reinjection deadlocks after a reload"
    ),
    "smtpd_recipient_limit": (
        "a large envelope does not fit in one transaction and is deferred"
    ),
    "message_size_limit": SIZE_HARM,
    "queue_minfree": "on a full disk reinjection is refused, and nothing frees space",
    "local_header_rewrite_clients": LOCAL_REWRITE_HARM,
    "always_add_missing_headers": LOCAL_REWRITE_HARM,
    "message_drop_headers": DROPPED_HEADER_HARM,
    "in_flow_delay": "under load each reinjection pauses, and the queue grows",
    "hopcount_limit": "accepted mail with many Received: headers is bounced here",
    "soft_bounce": "mail to an undeliverable address is deferred instead of bounced",
    "mynetworks": "this host is refused, or others are allowed",
    "qmqpd_authorized_clients": "this host is refused, or others are allowed",
    "smtpd_authorized_xforward_hosts": CLIENT_HARM,
    "smtpd_authorized_xclient_hosts": CLIENT_HARM,
    "smtpd_timeout": "a slow answer for the capsule breaks the reinjection",
}
HARMS_BY_PART = (
    ("restrictions", RESTRICTION_HARM),
    ("milter", RESTRICTION_HARM),
    ("reject_unlisted", RESTRICTION_HARM),
    ("proxy", RESTRICTION_HARM),
    ("command_filter", RESTRICTION_HARM),
    ("tls", TLS_HARM),
    ("sasl", TLS_HARM),
    ("_bcc", LEAK_HARM),
    ("_checks", HEADER_CHECKS_HARM),
    ("discard_ehlo", LOST_HARM),
    ("min_user", LOST_HARM),
    ("strict_", LOST_HARM),
    ("_limit", LIMIT_HARM),
    ("", RESTRICTION_HARM),
)


def _is_equivalent(host: Host, service: Service, name: str, expected: str) -> bool:
    if name not in MINIMUM_OPTIONS:
        return reference_options.is_same_list(host, service, name, expected)
    number = host.number(name, service)
    return number is not None and number >= int(expected.rstrip("s"))


RULES = OptionRules(
    missing_check="port-option-missing",
    different_check="port-option",
    harms=HARMS,
    harms_by_part=HARMS_BY_PART,
    is_equivalent=_is_equivalent,
)


def check_ports(host: Host) -> Iterator[Finding]:
    """Report internal ports that are missing or have missing or wrong options."""
    for role, address in _port_addresses(host):
        key = f"{address}/inet"
        service = host.config.service(key)
        if service is None:
            yield Finding(
                "port-missing",
                CRITICAL,
                f"master.cf: {key}",
                f"no service for archive_{role}_address: mail is deferred and bounces"
                " after maximal_queue_lifetime",
                host.install_command(),
            )
            continue
        ignored = ROUTE_OPTIONS if role in REINJECT_ROLES else ()
        reference = _reference_port(host, role)
        yield from RULES.compare(host, service, reference, ignored=ignored)


def check_exposed_ports(host: Host) -> Iterator[Finding]:
    """Report internal ports that other hosts can reach."""
    for service in host.config.services:
        is_internal = archive_services.is_ours(service) and service.kind == "inet"
        if is_internal and not service.name.startswith(
            archive_services.LOOPBACK_PREFIXES
        ):
            port = service.name.rpartition(":")[2]
            yield Finding(
                "port-exposed",
                CRITICAL,
                f"master.cf: {service.key}",
                "other hosts can reach an internal port, which has no restrictions for"
                " clients",
                f"in master.cf replace {service.name} by 127.0.0.1:{port}, then "
                + host.postfix_command("postfix", "reload"),
            )


def check_unreachable_ports(host: Host) -> Iterator[Finding]:
    """Report internal ports that do not accept a connection."""
    for address in host.unreachable_ports:
        yield Finding(
            "port-unreachable",
            CRITICAL,
            f"master.cf: {address}/inet",
            f"connect to {address} fails: mail is deferred and bounces after"
            " maximal_queue_lifetime",
            host.postfix_command("postfix", "reload") + "; then see Postfix's log",
        )


def check_unarchived_reinjections(host: Host) -> Iterator[Finding]:
    """Report mail on the reinjection ports that the stamp filter did not reinject."""
    if host.unarchived_reinjections:
        yield Finding(
            "foreign-reinjection",
            WARNING,
            f"queue id {host.unarchived_reinjections[0]}",
            f"{len(host.unarchived_reinjections)} messages came from a reinjection port"
            " without a log line of the stamp filter: a local user bypassed the"
            " archive, or a crash made the filter reinject them twice",
            f"search Postfix's log for {host.unarchived_reinjections[0]}: where it came"
            " from, and whether the archive has it",
        )


def check_cleanup_services(host: Host) -> Iterator[Finding]:
    """Report missing or wrong options of our cleanup(8) services."""
    for key in CLEANUP_SERVICES:
        service = host.config.service(key)
        if service is not None:
            reference = host.reference_services.get(key)
            yield from RULES.compare(host, service, reference)


def _port_addresses(host: Host) -> Iterator[tuple[str, str]]:
    """Yield role and address of every internal port in use."""
    if host.settings is None:
        return
    for role in PORT_ROLES:
        address, port = getattr(host.settings, f"archive_{role}_address")
        yield role, f"{address}:{port}"
    arguments = [
        (e.argument(f"{role}-address"), role)
        for e in host.launcher_services()
        for role in REINJECT_ROLES
    ]
    for argument, role in dict.fromkeys(arguments):  # workers of a route share them
        if argument:
            yield role, argument


def _reference_port(host: Host, role: str) -> Service | None:
    default_port = archive_services.DEFAULT_FIRST_PORT + PORT_ROLES.index(role)
    return host.reference_services.get(f"127.0.0.1:{default_port}/inet")


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (
    check_ports,
    check_exposed_ports,
    check_unreachable_ports,
    check_unarchived_reinjections,
    check_cleanup_services,
)
