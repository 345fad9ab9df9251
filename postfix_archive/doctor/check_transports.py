"""Check the master.cf entries of the transports that capture and archive mail.

Used by doctor.checks. With most mistakes pipe(8) bounces mail, or delivers it without
archiving it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from postfix_archive.doctor.finding import Finding
from postfix_archive.doctor.host import Host, launcher_name
from postfix_archive.monitoring import CRITICAL, WARNING
from postfix_archive.postfix import archive_services, lmtp_services
from postfix_archive.postfix.configuration import Service

SOFT_BOUNCE_SERVICES = (
    archive_services.STAMP_TRANSPORT,
    archive_services.CAPTURE_TRANSPORT,
    "archive",
    "archive-relay",
    "archive-local",
)
STATUS_FILTER = f"/{archive_services.STATUS_FILTER}"
# Recipients x 2 arguments, of 263 bytes or of capture recipients: below ARG_MAX
# (execve(2)).
MAX_RECIPIENTS = {
    archive_services.STAMP_TRANSPORT: 3500,
    archive_services.CAPTURE_TRANSPORT: 1500,
}


def check_missing_services(host: Host) -> Iterator[Finding]:
    """Report services of master.cf.d that are missing in master.cf."""
    for key in host.reference_services:
        name, _, kind = key.rpartition("/")
        if key == lmtp_services.SAMPLE_KEY:
            continue
        if kind == "unix" and host.config.service(key) is None:
            yield Finding(
                "service-missing",
                CRITICAL,
                f"master.cf: {key}",
                f"there is no service {name}: mail for it is deferred and bounces after"
                " maximal_queue_lifetime",
                host.install_command(),
            )


def check_soft_bounce(host: Host) -> Iterator[Finding]:
    """Report transports of ours without soft_bounce=yes."""
    for service in host.config.services:
        is_ours = (
            service.name in SOFT_BOUNCE_SERVICES or service in host.capture_transports()
        )
        if (
            is_ours
            and service.kind == "unix"
            and service.options.get("soft_bounce") != "yes"
        ):
            yield Finding(
                "soft-bounce",
                CRITICAL,
                f"master.cf: {service.key}",
                "any failure, even a time limit, bounces mail to its sender or loses an"
                " archive copy",
                host.option_command(service, "soft_bounce", "yes"),
                is_safe=True,
            )


def check_status_filter(host: Host) -> Iterator[Finding]:
    """Report transports without the delivery status filter of the reference."""
    for service in host.capture_transports():
        option = f"{service.program}_delivery_status_filter"
        if not service.options.get(option, "").endswith(STATUS_FILTER):
            yield Finding(
                "status-filter",
                WARNING,
                f"master.cf: {service.key} -o {option}",
                "a delay notice shows the sender the archive address or the program's"
                " path",
                host.install_command(),
            )


def check_recipient_limit(host: Host) -> Iterator[Finding]:
    """Report a recipient limit below smtpd(8)'s or above the kernel's."""
    accepted = [
        host.number("smtpd_recipient_limit", e) or 0 for e in host.receiving_services()
    ]
    for service in host.pipe_transports():
        parameter = f"{service.name}_destination_recipient_limit"
        limit = host.transport_limit(parameter, "default_destination_recipient_limit")
        maximum = MAX_RECIPIENTS[launcher_name(service)]
        fix = host.parameter_command(parameter, str(maximum))
        if limit == 0 or limit > maximum:
            harm = (
                f"{limit or 'unlimited'} recipients exceed the kernel's limit for"
                " arguments (ARG_MAX): such a message is deferred until it expires"
            )
            yield Finding(
                "recipient-limit", CRITICAL, parameter, harm, fix, is_safe=True
            )
        elif limit < min(max(accepted, default=0), maximum):
            harm = (
                f"a message to more than {limit} recipients is captured in pieces, with"
                " a mailed copy for each"
            )
            yield Finding(
                "recipient-limit", WARNING, parameter, harm, fix, is_safe=True
            )


def check_time_limit(host: Host) -> Iterator[Finding]:
    """Report a time limit of pipe(8) that ends before our own deadline."""
    if host.settings is None:
        return
    our_limit = host.settings.archive_time_limit
    for service in host.pipe_services():
        parameter = f"{service.name}_time_limit"
        limit = host.transport_limit(parameter, "command_time_limit")
        if limit <= our_limit:
            yield Finding(
                "time-limit",
                WARNING,
                parameter,
                f"pipe(8) kills the process after {limit} s, before archive_time_limit"
                f" ({our_limit} s, in archive.cf) can defer the message with a reason",
                host.parameter_command(parameter, f"{our_limit + 100}s"),
                is_safe=True,
            )


def check_null_sender(host: Host) -> Iterator[Finding]:
    """Report a pipe(8) transport without an empty null_sender=."""
    for service in host.pipe_transports():
        if "null_sender=" not in service.command.split():
            yield _entry_finding(
                host,
                "null-sender",
                service,
                "bounces get the sender MAILER-DAEMON in the filter, so that an"
                " undeliverable bounce causes another one",
            )


def check_flags(host: Host) -> Iterator[Finding]:
    """Report pipe(8) flags other than q (captures mail) or none (archive)."""
    for service in host.pipe_services():
        actual = set(service.argument("flags"))
        expected = set() if launcher_name(service) == "archive" else {"q"}
        if actual != expected:
            yield _entry_finding(
                host,
                "pipe-flags",
                service,
                "addresses are not quoted, or pipe(8) adds lines to the message: it"
                " differs from what was received",
            )


def check_arguments(host: Host) -> Iterator[Finding]:
    """Report arguments of the reference that are missing."""
    for service in host.pipe_services():
        reference = host.reference_services.get(f"{launcher_name(service)}/unix")
        expected = _launcher_arguments(reference) if reference else []
        actual = service.command.partition("argv=")[2].split()
        missing = [argument for argument in expected if argument not in actual]
        if missing:
            yield _entry_finding(
                host,
                "launcher-arguments",
                service,
                f"the argument {missing[0]} is missing: mail is deferred, or the"
                " envelope in the archive is incomplete",
            )


def check_users(host: Host) -> Iterator[Finding]:
    """Report users that pipe(8) refuses, that do not exist, or that differ."""
    users = [
        each.argument("user").partition(":")[0] for each in host.launcher_services()
    ]
    for service in host.launcher_services():
        user, _, group = service.argument("user").partition(":")
        groups = {group} if group else set(host.groups_by_user.get(user, ()))
        mail_owner = host.config.value("mail_owner")
        setgid_group = host.config.value("setgid_group")
        if user in ("root", mail_owner) or setgid_group in groups:
            yield _entry_finding(
                host,
                "service-user",
                service,
                f"pipe(8) refuses to run as {user}:{group or 'its groups'} (root,"
                " mail_owner and members of setgid_group), so all mail is deferred",
            )
        elif user != users[0]:
            yield _entry_finding(
                host,
                "service-user",
                service,
                f"runs as {user}, other services as {users[0]}: both write to the"
                " store, and one cannot use the files of the other",
            )
        elif user not in host.groups_by_user:
            yield _entry_finding(
                host,
                "service-user",
                service,
                f"there is no user {user}: mail is deferred",
            )


def check_programs(host: Host) -> Iterator[Finding]:
    """Report launchers that do not exist or that their user cannot execute."""
    for service in host.launcher_services():
        program = service.argument("argv")
        if program in host.blocking_directories:
            continue  # program-unreachable
        if obstacle := host.execute_obstacles.get((program, service.argument("user"))):
            yield Finding(
                "program-missing",
                CRITICAL,
                program,
                f"{service.name} cannot execute it, {obstacle}: mail is deferred and"
                " bounces after maximal_queue_lifetime",
                f"{host.install_command()}; if that takes long, let mail pass"
                f" unarchived: {host.bypass_commands()}",
            )


def check_program_directories(host: Host) -> Iterator[Finding]:
    """Report directories that keep a service's user from its program."""
    for service in host.launcher_services():
        directory = host.blocking_directories.get(service.argument("argv"))
        if directory:
            yield Finding(
                "program-unreachable",
                CRITICAL,
                service.argument("argv"),
                f"the user of {service.name} cannot search {directory}, so all mail is"
                " deferred",
                f"chmod a+x {shlex.quote(directory)}",
            )


def check_other_stamp_filters(host: Host) -> Iterator[Finding]:
    """Report stamp filters that make install did not create."""
    for service in host.pipe_transports():
        suffix = service.name.removeprefix(launcher_name(service))
        if suffix and not (suffix[:1] == "-" and suffix[1:].isdigit()):
            yield Finding(
                "second-stamp-filter",
                CRITICAL,
                f"master.cf: {service.key}",
                "second stamp filter: mail that passes both is stamped and archived"
                " twice",
                host.postfix_command("postconf", "-M", "-X", service.key),
            )


def _launcher_arguments(reference: Service) -> list[str]:
    return reference.command.partition("argv=")[2].split()[1:]


def _entry_finding(host: Host, check: str, service: Service, harm: str) -> Finding:
    fix = host.install_command()
    return Finding(check, CRITICAL, f"master.cf: {service.key}", harm, fix)


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (
    check_missing_services,
    check_soft_bounce,
    check_status_filter,
    check_recipient_limit,
    check_time_limit,
    check_null_sender,
    check_flags,
    check_arguments,
    check_users,
    check_programs,
    check_program_directories,
    check_other_stamp_filters,
)
